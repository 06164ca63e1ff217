"""A small clip of a textured patch that moves over a still background, with labels that are exactly right."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

from posewarper.cli import app as command_line
from posewarper.formats.labels import write_labels
from posewarper.options import FitConfig, NetworkConfig
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.writing import write_video

N_FRAMES, HEIGHT, WIDTH = 20, 96, 128
SKELETON = Skeleton(("nose", "left_paw", "right_paw", "tail"), ((0, 3),), name="mouse")
# Of the patch's corner on frame 0, its steps a frame, its size, and the keypoints in it.
_START, _STEP, _PATCH = np.array([14.0, 18.0]), np.array([2.0, 1.0]), (40, 48)
_OFFSETS = np.array([[8.0, 20.0], [20.0, 8.0], [20.25, 32.5], [40.0, 20.0]])

# Enough to go through every stage, too little to learn anything.
TINY_FIT = FitConfig(pose_iterations=3, pseudo_iterations=1, warp_iterations=2, pose_batch=2, warp_batch=2)
TINY_NETWORK = NetworkConfig(
    backbone="hrnet_w18_small",
    backbone_weights="none",
    crop_size=(64, 64),
    head_width=8,
    head_blocks=1,
    head_dilations=(1, 2),
)


def _texture(height: int, width: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.clip((smooth - 128) * 3 + 128, 0, 255).astype(np.uint8)


def picture(frame: int) -> np.ndarray:
    """Frame (96, 128, 3)."""
    image = _texture(HEIGHT, WIDTH, 0) // 2
    x, y = (_START + _STEP * frame).astype(int)
    patch = _texture(*_PATCH, 1)[: HEIGHT - y, : WIDTH - x]
    image[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
    return image


def true_keypoints(frames) -> np.ndarray:
    """(t, 4, 2) xy."""
    return _START + _STEP * np.asarray(frames, float)[:, None, None] + _OFFSETS


def write_clip(folder: Path, n_frames: int = N_FRAMES) -> Path:
    write_video(folder / "clip.mp4", (picture(n) for n in range(n_frames)), fps=25)
    return folder / "clip.mp4"


def write_frames(folder: Path, n_frames: int = N_FRAMES) -> Path:
    """Frames named by every second number from 10, so that names and indices differ."""
    folder.mkdir()
    for n in range(n_frames):
        assert cv2.imwrite(str(folder / f"img{10 + 2 * n:03}.png"), picture(n)[..., ::-1])
    return folder


def some_labels(frames=(3, 10, 16), skeleton: Skeleton = SKELETON, **more) -> Labels:
    keypoints = true_keypoints(frames)
    track = Track(np.array(frames), keypoints)
    return Labels(
        skeleton, {0: track}, **{"image_size": (HEIGHT, WIDTH), "n_frames": N_FRAMES, "video": "clip", **more}
    )


def write_some_labels(folder: Path, *arguments, **more) -> Path:
    write_labels(folder / "labels.json", some_labels(*arguments, **more))
    return folder / "labels.json"


def command(capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process; returns (exit code, stdout, stderr)."""
    capsys.readouterr()
    words = [str(a) for a in arguments]
    # A run records the words of its process, which here would be pytest's: none, where pytest was given none.
    with mock.patch.object(sys, "argv", ["posewarper", *words]):
        try:
            command_line.app(words, prog_name="posewarper")
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out, err
