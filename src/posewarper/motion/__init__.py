"""Optical flow and interpolation: evidence for propagation, and the baselines."""
