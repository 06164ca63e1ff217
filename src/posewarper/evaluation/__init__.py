"""Measures of how good poses are."""
