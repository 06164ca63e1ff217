"""Recipes: what is trained, on what and how, as YAML files with validated settings."""
