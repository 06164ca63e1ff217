"""The command line: each command has a file of its own, which parses, calls and prints."""
