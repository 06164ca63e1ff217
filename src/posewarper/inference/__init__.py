"""Poses for use: evidence, trajectories, propagation."""
