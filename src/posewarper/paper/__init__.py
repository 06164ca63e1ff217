"""The paper's prediction and propagation over PoseTrack, and its pseudo-labels."""
