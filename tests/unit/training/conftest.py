"""What the tests of training share: dotted people, and a network of milliseconds."""

from __future__ import annotations

import pytest
import torch
from dotted_people import Trunk, prepare_dots

from posewarper.model import network


@pytest.fixture(scope="session")
def dots(tmp_path_factory):
    """The prepared dataset of dotted people: 18 labels in two videos of train, 3 in one of val."""
    return prepare_dots(tmp_path_factory.mktemp("dots"))


@pytest.fixture
def small_trunk(monkeypatch):
    """In place of any backbone the smallest one."""
    monkeypatch.setattr(network, "build_backbone", lambda name, crop_size, neck: (Trunk(), 8))


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    """Networks this small are not worth sharing: on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
