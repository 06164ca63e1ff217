"""The comparison of methods: what it refuses before it does any work."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.benchmark import check_gaps, check_methods, source_digest, usable_methods
from posewarper.errors import ConfigError, LabelsError
from posewarper.fitting import METHODS
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

N_FRAMES = 12


@pytest.fixture
def dense() -> Labels:
    track = Track(np.arange(N_FRAMES), np.zeros((N_FRAMES, 1, 2)))
    return Labels(Skeleton(("nose",)), {0: track}, n_frames=N_FRAMES)


def test_methods():
    with pytest.raises(ConfigError, match="nearest, linear") as caught:
        check_methods(["nearest", "nearer"], "normal")
    assert "unknown" in str(caught.value) and "got:      nearer\n" in str(caught.value)
    with pytest.raises(ConfigError, match="no method"):
        check_methods([], "normal")
    with pytest.raises(ConfigError, match="unknown effort"):
        check_methods(["nearest"], "slow")
    assert check_methods(["linear", "nearest", "linear"], "normal") == ["linear", "nearest"]
    assert usable_methods("normal") == list(METHODS)


def test_methods_that_need_a_network_where_none_is_trained():
    with pytest.raises(ConfigError, match="trains none") as caught:
        check_methods(["nearest", "frame"], "fast")
    assert "got:      frame\n" in str(caught.value)
    usable = usable_methods("fast")
    assert {"nearest", "flow2", "default"} <= set(usable) and not {"frame", "warper"} & set(usable)


def test_gaps(dense):
    for impossible in ([0], [-3], [3, N_FRAMES], []):
        with pytest.raises(ConfigError, match="from 1 to 11"):
            check_gaps(impossible, dense)
    with pytest.raises(LabelsError, match="nothing to score"):
        check_gaps([1], dense)
    with pytest.raises(LabelsError, match="nothing to propagate"):
        check_gaps([6], dense.at([0, 1, 2, 4]))
    assert check_gaps([7, 3, 7], dense) == [7, 3]


def test_source_digest_is_steady():
    assert source_digest() == source_digest() and len(source_digest()) == 64
