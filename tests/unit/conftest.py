"""What unit tests of several rooms share: a clip whose motion is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.skeletons import Skeleton
from posewarper.video.source import open_video


@dataclass(frozen=True)
class MovingPicture:
    """A periodic texture that moves by ``velocity`` (x, y) pixels a frame, by less than a pixel exactly."""

    size: tuple[int, int] = (72, 112)
    velocity: tuple[float, float] = (1.3, -0.7)
    n_frames: int = 16

    def image(self, frame: int) -> np.ndarray:
        """Return frame (H, W, 3) uint8; shifting by a phase is exact, and wraps around."""
        height, width = self.size
        noise = np.fft.fft2(np.random.default_rng(0).normal(size=(height, width)))
        x, y = np.fft.fftfreq(width)[None], np.fft.fftfreq(height)[:, None]
        noise *= np.exp(-2 * np.pi**2 * 1.5**2 * (x**2 + y**2))
        phase = np.exp(-2j * np.pi * frame * (x * self.velocity[0] + y * self.velocity[1]))
        moved = np.fft.ifft2(noise * phase).real * 240 + 128
        return np.repeat(np.clip(moved.round(), 0, 255).astype(np.uint8)[..., None], 3, axis=2)

    def keypoints(self, start, frames) -> np.ndarray:
        """Return (t, K, 2): where points that lie at ``start`` (K, 2) on frame 0 are."""
        frames = np.asarray(frames, float)
        return np.asarray(start, float)[None] + frames[:, None, None] * np.array(self.velocity)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Pictures this small are not worth sharing: on a busy machine threads wait for each other."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.fixture(scope="session")
def picture() -> MovingPicture:
    return MovingPicture()


@pytest.fixture(scope="session")
def write_frames(tmp_path_factory):
    """Write frames (H, W, 3) RGB as a folder of PNG files, without loss, and give its path."""

    def write(frames) -> Path:
        folder = tmp_path_factory.mktemp("frames")
        for n, frame in enumerate(frames):
            assert cv2.imwrite(str(folder / f"{n:04}.png"), np.ascontiguousarray(frame[..., ::-1]))
        return folder

    return write


@pytest.fixture(scope="session")
def moving_folder(picture, write_frames) -> Path:
    return write_frames(picture.image(n) for n in range(picture.n_frames))


@pytest.fixture
def moving_video(moving_folder):
    with open_video(moving_folder) as video:
        yield video


@pytest.fixture
def make_model():
    """Make a model with random weights for the keypoint names given."""

    def make(names=("left_paw", "right_paw", "tail"), crop_size=(64, 64)) -> PoseWarper:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            spec = ModelSpec(
                "hrnet_w18_small", Skeleton(tuple(names)), crop_size, 2.0, head_width=8, head_blocks=1
            )
            return PoseWarper(spec).eval()

    # Layers this small are not worth sharing: with other work on the machine, threads wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make
    torch.set_num_threads(threads)
