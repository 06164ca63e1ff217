"""The rendered demo clip: a walking figure in a street, drawn here, whose keypoints are known exactly."""
