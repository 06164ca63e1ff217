"""A network too small to be of use, but of the real kind."""

from __future__ import annotations

import pytest
import torch

from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.skeletons import Skeleton


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
