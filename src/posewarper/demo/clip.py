"""The demo clip: its frames, one by one, and the labels of all of them.

It takes most of a minute of a processor to draw, so the package brings it along: ``python -m
posewarper.demo.clip`` has made the two files beside this one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.demo.camera import HEIGHT, WIDTH
from posewarper.demo.filming import FPS, Scene, film_frame, keypoints_at, stage_scene
from posewarper.formats.labels import write_labels
from posewarper.skeletons import COCO
from posewarper.structures import Labels, Track
from posewarper.video.writing import write_video

N_FRAMES = 135
DRAWN = Path(__file__).with_name("clip.mp4")
"""The clip of seed 0, which comes with the package; beside it lie the labels of all frames, in a .json."""


def render_scene(
    n_frames: int = N_FRAMES, seed: int = 0, *, processes: int = 1
) -> tuple[Iterator[NDArray[np.uint8]], Labels]:
    """Render a person who walks through a street, turns and walks back, behind a lamp post both times.

    Args:
        n_frames: frames, at 30 a second; the whole story takes 135, fewer show its beginning.
        seed: of the street and of the folds of the clothes; the walk is the same for all.
        processes: that render frames at the same time, the same ones; more than 1 for programs that guard
            their main module, as every program does that starts processes.

    Returns:
        The frames, (480, 854, 3) uint8 RGB, rendered as they are asked for; and the labels of all frames: one
        track of COCO keypoints in the middle of each exposure, in pixels, with visibility 2 where they are
        seen and 1 where the body or the street hides them.
    """
    scene = stage_scene(n_frames / FPS, seed)
    if processes > 1:
        frames = _film_in_parallel(scene, n_frames, processes)
    else:
        frames = (film_frame(scene, i) for i in range(n_frames))
    found = [keypoints_at(scene, i / FPS) for i in range(n_frames)]
    keypoints, visibility = (np.stack(values) for values in zip(*found, strict=True))
    track = Track(np.arange(n_frames), keypoints, visibility=visibility)
    labels = Labels(COCO, {0: track}, image_size=(HEIGHT, WIDTH), n_frames=n_frames, video="clip")
    return frames, labels


def write_clip(path: Path = DRAWN, n_frames: int = N_FRAMES, seed: int = 0) -> None:
    """Render the clip into a file that ends in .mp4, and write all labels into a .json beside it."""
    # More processes would wait for the one that writes.
    frames, labels = render_scene(n_frames, seed, processes=min(os.cpu_count() or 1, 4))
    write_video(path, frames, fps=FPS)
    write_labels(path.with_suffix(".json"), labels)


def _film_in_parallel(scene: Scene, n_frames: int, processes: int) -> Iterator[NDArray[np.uint8]]:
    # New processes, not forked ones: the threads of OpenCV and of the progress bar do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, n_frames), context, initializer=_begin, initargs=(scene,))
    frames = pool.map(_film, range(n_frames))  # they begin here

    def hand_out() -> Iterator[NDArray[np.uint8]]:
        try:
            yield from frames
        finally:
            pool.shutdown(cancel_futures=True)

    return hand_out()


_scene: Scene | None = None


def _begin(scene: Scene) -> None:
    """Make a process ready to film."""
    global _scene
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks for frames
    cv2.setNumThreads(1)
    _scene = scene


def _film(i: int) -> NDArray[np.uint8]:
    assert _scene is not None
    return film_frame(_scene, i)


if __name__ == "__main__":
    # By its whole name, under which other processes find what they are to do.
    from posewarper.demo import clip

    clip.write_clip()
