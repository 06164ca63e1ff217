"""A small video, a session on it, and a browser that has come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from page_samples import FROM_PAGE, HEIGHT, HOST, N_FRAMES, SKELETON, WIDTH
from starlette.testclient import TestClient

from posewarper.formats.labels import write_labels
from posewarper.review.server import Gate, Routes
from posewarper.review.session import Session
from posewarper.structures import Labels, Track
from posewarper.video.writing import write_video


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Each frame has a brightness of its own, by which it is told."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    frames = (np.full((HEIGHT, WIDTH, 3), 20 * n, np.uint8) for n in range(N_FRAMES))
    write_video(path, frames, fps=25)
    return path


@pytest.fixture
def labels(tmp_path) -> Path:
    keypoints = np.arange(12, dtype=float).reshape(2, 3, 2) + 10
    made = Labels(SKELETON, {0: Track([2, 8], keypoints)}, image_size=(HEIGHT, WIDTH), n_frames=N_FRAMES)
    write_labels(tmp_path / "given.json", made)
    return tmp_path / "given.json"


@pytest.fixture
def session(clip, tmp_path):
    opened = Session(clip, tmp_path / "out", skeleton=SKELETON)
    yield opened
    opened.close()


@pytest.fixture
def stranger(session):
    """A client of the server that has no cookie."""
    gate = Gate(8123)
    client = TestClient(Routes(session, gate).application(), base_url=f"http://{HOST}")
    client.gate = gate
    with client:
        yield client


@pytest.fixture
def page(stranger):
    """A client that has come in, as the page does."""
    answer = stranger.post("/api/enter", json={"token": stranger.gate.token}, headers=FROM_PAGE)
    assert answer.status_code == 200
    stranger.headers.update(FROM_PAGE)
    return stranger
