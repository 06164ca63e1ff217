"""The labelling page: label, look, correct, go again; served to a browser on the same machine."""
