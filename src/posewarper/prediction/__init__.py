"""A trained model on new videos: boxes, windows of frames, tracks."""
