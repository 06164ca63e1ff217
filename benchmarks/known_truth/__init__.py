"""Clips whose every keypoint is known, and how methods are measured on them."""
