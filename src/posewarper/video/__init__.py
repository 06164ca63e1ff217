"""Videos in and out: frames by their index, folders of frames, live sources, crops of tracks, writing."""
