"""The PoseTrack data set: prepare and check its files, open it, select frames, write results."""
