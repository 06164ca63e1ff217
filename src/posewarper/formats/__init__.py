"""The formats of labels, one file each, and the border at which they are checked."""
