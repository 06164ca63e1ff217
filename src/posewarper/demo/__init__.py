"""The clip that ``demo`` renders and the made-up PoseTrack of ``tiny.yaml``; finished, and not part of the method."""
