"""Pictures of results: overlay, sheet, report, the frames to check, and pictures of what a network sees."""
