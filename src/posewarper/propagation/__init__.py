"""The main job: from a few labels to a pose on every frame of a clip."""
