"""Batches: the same over any number of processes, whole, and from any step of an epoch."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.errors import ConfigError
from posewarper.training.batches import EpochSampler, epoch_order


def batches(n=23, batch=8, world=1, rank=0, epoch=0, start=0, accumulate=1):
    sampler = EpochSampler(n, batch, rank=rank, world=world, seed=5, accumulate=accumulate)
    sampler.set_epoch(epoch, start)
    listed = list(sampler)
    assert len(sampler) == len(listed)
    return listed


@pytest.mark.parametrize("world", [2, 4])
def test_all_processes_together_see_the_batches_of_one(world):
    ranks = [batches(world=world, rank=rank) for rank in range(world)]
    together = [[key for part in parts for key in part] for parts in zip(*ranks, strict=True)]
    assert together == batches()
    assert all(len(part) == 8 // world for rank in ranks for part in rank)
    # Pieces that are added up over time are the same pieces: one process in place of two.
    assert [b for parts in zip(*ranks, strict=True) for b in parts] == batches(accumulate=world)


def test_an_epoch_shows_everything_and_is_filled_up_from_its_beginning():
    shown = [index for batch in batches() for _, index in batch]
    assert len(shown) == 24 and sorted(shown[:23]) == list(range(23)) and shown[23] == shown[0]
    few = [index for batch in batches(n=3, batch=8) for _, index in batch]
    assert few == [*few[:3], *few[:3], *few[:2]] and sorted(few[:3]) == [0, 1, 2]


def test_order_depends_on_seed_and_epoch_and_keys_name_the_epoch():
    first, second = batches(), batches(epoch=1)
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [i for _, i in first[0]] != [i for _, i in second[0]]
    assert not np.array_equal(epoch_order(23, 5, 0), epoch_order(23, 6, 0))
    assert batches() == first  # asking twice changes nothing


def test_an_epoch_can_begin_in_its_middle():
    assert batches(start=2, world=2, rank=1) == batches(world=2, rank=1)[2:]
    assert batches(start=1, accumulate=2) == batches(accumulate=2)[2:]
    assert batches(start=3) == []


def test_no_samples_are_refused():
    with pytest.raises(ConfigError, match="no samples"):
        EpochSampler(0, 8, rank=0, world=1, seed=0)
