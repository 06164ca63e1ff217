"""The demo clip: its frames, one by one, and the labels of all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from posewarper.demo.camera import HEIGHT, WIDTH
from posewarper.demo.filming import FPS, film_frame, keypoints_at, stage_scene
from posewarper.skeletons import COCO
from posewarper.structures import Labels, Track

N_FRAMES = 135


def render_scene(n_frames: int = N_FRAMES, seed: int = 0) -> tuple[Iterator[NDArray[np.uint8]], Labels]:
    """Render a person who walks through a street, turns and walks back, behind a lamp post both times.

    Args:
        n_frames: frames, at 30 a second; the whole story takes 135, fewer show its beginning.
        seed: of the street and of the folds of the clothes; the walk is the same for all.

    Returns:
        The frames, (480, 854, 3) uint8 RGB, rendered as they are asked for; and the labels of all frames: one
        track of COCO keypoints in the middle of each exposure, in pixels, with visibility 2 where they are
        seen and 1 where the body or the street hides them.
    """
    scene = stage_scene(n_frames / FPS, seed)
    found = [keypoints_at(scene, i / FPS) for i in range(n_frames)]
    keypoints, visibility = (np.stack(values) for values in zip(*found, strict=True))
    track = Track(np.arange(n_frames), keypoints, visibility=visibility)
    labels = Labels(COCO, {0: track}, image_size=(HEIGHT, WIDTH), n_frames=n_frames, video="clip")
    return (film_frame(scene, i) for i in range(n_frames)), labels
