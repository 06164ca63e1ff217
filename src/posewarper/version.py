"""The version of this package, in a file that imports nothing, so that every layer may ask for it."""

__version__ = "0.1.0"
