"""Pictures of results: overlays and tables."""
