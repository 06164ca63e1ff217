"""PoseTrack as a dataset: its files prepared, checked and opened, and what the original makes of them."""
