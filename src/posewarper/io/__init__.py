"""Files in and out: videos, labels, poses."""
