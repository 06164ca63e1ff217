"""The paper's prediction and propagation over a prepared PoseTrack."""
