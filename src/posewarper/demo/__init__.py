"""The clip that ``demo`` renders, and the made-up PoseTrack of ``tiny.yaml``. Frozen."""
