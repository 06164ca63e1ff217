"""The clip that ``demo`` renders and the made-up PoseTrack of ``tiny.yaml``; not part of the method."""
