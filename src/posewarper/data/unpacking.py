"""Frames of video files as image files: what training reads at random is decoded once, in order."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from posewarper.data.frame_readers import VideoFrames
from posewarper.data.sample_arrays import TrainingSamples
from posewarper.files import replacing
from posewarper.io.video import open_video
from posewarper.structures import Progress, silent


def unpack_videos(
    samples: TrainingSamples, folder: str | os.PathLike[str], reach: int, progress: Progress = silent
) -> TrainingSamples:
    """Write the frames that training will read from video files as BMP files, without loss.

    To read one frame of a video file, all since the last key frame are decoded; that is too slow for frames
    in random order. BMP files are large (2.8 MB at 1280 x 720) and read in no time, unlike PNG files. Videos
    that are folders of images are left as they are. Frames that an earlier call has written are not written
    again, if the video file has not changed.

    Args:
        samples: of one's own videos or of a dataset.
        folder: where to write, a folder for each video.
        reach: frames around each labelled one that are read beside it.
        progress: is told after every frame.

    Returns:
        The same samples, whose frames are read from the image files.

    Raises:
        VideoError: if a video cannot be read.
        OutputError: if the folder cannot be written.
    """
    packed = [v for v, video in enumerate(samples.videos) if not video.files and os.path.isfile(video.path)]
    wanted = {v: _wanted(samples, v, reach) for v in packed}
    videos, done, total = list(samples.videos), 0, sum(map(len, wanted.values()))
    for v in packed:
        target = Path(folder) / _name(videos[v].path)
        names = tuple(f"{n:08d}.bmp" for n in range(videos[v].n_frames))
        missing = [n for n in wanted[v] if not (target / names[n]).is_file()]
        done += len(wanted[v]) - len(missing)
        if missing:
            with open_video(videos[v].path) as video:
                for n, image in video.frames(missing):
                    _, data = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                    with replacing(target / names[n]) as temporary:
                        temporary.write_bytes(data.tobytes())
                    done += 1
                    progress("frames", done, total)
        videos[v] = VideoFrames(str(target.absolute()), 0, videos[v].n_frames, names)
    return replace(samples, videos=tuple(videos))


def _wanted(samples: TrainingSamples, v: int, reach: int) -> list[int]:
    """Return the frames of a video that training reads, rising."""
    numbers = np.unique(samples.numbers[samples.video_of == v])
    video = samples.videos[v]
    around = {video.neighbour(int(n), offset) for n in numbers for offset in range(-reach, reach + 1)}
    return sorted(around)


def _name(path: str) -> str:
    """Return a folder's name that another video, or the same after a change, does not have."""
    state = os.stat(path)
    told = f"{os.path.abspath(path)} {state.st_size} {state.st_mtime_ns}"
    return f"{Path(path).stem}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
