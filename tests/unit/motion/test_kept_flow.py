"""Optical flow that is kept for the next run on the same video."""

from __future__ import annotations

import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from posewarper.motion import flow, kept_flow
from posewarper.motion.flow import carry_labels
from posewarper.motion.kept_flow import cache_folder, find_flow, keep_flow
from posewarper.structures import Track


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(kept_flow.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "flow"


def labels_on(picture, frames):
    return {0: Track(frames, picture.keypoints(np.array([[40.0, 40.0], [62.5, 30.25]]), frames))}


def run(picture, video, data, labelled, known=None):
    chains = carry_labels(
        video, labels_on(picture, labelled), {0: np.arange(16)}, subject=60.0, kept=data, known=known
    )
    return chains[0]


def assert_same(one, other):
    for a, b in zip(one.sides, other.sides, strict=True):
        assert_array_equal(a[0], b[0])
        assert_array_equal(a[1], b[1])


def keep(picture, video, tmp_path, name="some video", labelled=(2, 9)):
    chain = run(picture, video, tmp_path / "flow.bin", list(labelled))
    keep_flow(name, chain.flow.store, tmp_path / "flow.bin")
    return chain


def test_the_next_run_takes_what_it_needs_and_finds_the_same(
    picture, moving_video, tmp_path, cache, monkeypatch
):
    first = keep(picture, moving_video, tmp_path)
    assert not (tmp_path / "flow.bin").exists()
    assert find_flow("another video") is None
    counted = []

    def counting(a, b):
        counted.append(a.shape)
        return computed(a, b)

    computed = flow.dense_flow
    monkeypatch.setattr(flow, "dense_flow", counting)
    again = run(picture, moving_video, tmp_path / "again.bin", [2, 9], find_flow("some video"))
    assert not counted
    assert_same(first, again)
    # With another label, what is computed and what is taken come to the same as if nothing were kept.
    fresh = run(picture, moving_video, tmp_path / "fresh.bin", [2, 9, 13])
    wanted = len(counted)
    counted.clear()
    more = run(picture, moving_video, tmp_path / "more.bin", [2, 9, 13], find_flow("some video"))
    assert len(counted) < wanted / 2
    assert_same(fresh, more)
    assert (tmp_path / "fresh.bin").read_bytes() == (tmp_path / "more.bin").read_bytes()


def test_flow_of_another_scale_is_no_use(picture, moving_video, tmp_path, cache):
    keep(picture, moving_video, tmp_path)
    known = find_flow("some video")
    assert known is not None
    known.factor *= 2
    store = flow.FlowStore(known.factor / 2, known=known)
    assert not store.take([0], 2, known.windows(0, 2)[0])


def test_what_is_damaged_counts_as_absent(picture, moving_video, tmp_path, cache):
    keep(picture, moving_video, tmp_path)
    (place,) = (p for p in cache.iterdir() if p.is_dir())
    (data,) = place.glob("*.bin")
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    assert find_flow("some video") is None
    data.write_bytes(whole)
    assert find_flow("some video") is not None
    (place / "places.npz").write_bytes(b"PK\3\4 not an archive")
    assert find_flow("some video") is None
    keep(picture, moving_video, tmp_path)
    assert find_flow("some video") is not None
    assert len(list(place.iterdir())) == 2


def test_what_was_used_longest_ago_makes_room(picture, moving_video, tmp_path, cache, monkeypatch):
    keep(picture, moving_video, tmp_path, "first")
    size = sum(f.stat().st_size for f in cache.rglob("*.bin"))
    keep(picture, moving_video, tmp_path, "second")
    for place in cache.iterdir():
        os.utime(place, (1, 1))
    assert find_flow("first") is not None  # which is used now
    monkeypatch.setattr(kept_flow, "_MOST_BYTES", 2.9 * size)
    keep(picture, moving_video, tmp_path, "third")
    assert find_flow("first") is not None and find_flow("third") is not None
    assert find_flow("second") is None
    monkeypatch.setattr(kept_flow, "_MOST_BYTES", size / 2)  # too much of one video
    keep(picture, moving_video, tmp_path, "fourth")
    assert find_flow("fourth") is None and (tmp_path / "flow.bin").is_file()
    assert (cache / "CACHEDIR.TAG").is_file()


def test_nothing_is_kept_where_that_is_switched_off_or_impossible(
    picture, moving_video, tmp_path, monkeypatch
):
    monkeypatch.setenv(kept_flow.VARIABLE, "")
    assert cache_folder() is None
    keep(picture, moving_video, tmp_path)
    assert find_flow("some video") is None and (tmp_path / "flow.bin").is_file()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(kept_flow.VARIABLE, str(tmp_path / "file"))
    keep(picture, moving_video, tmp_path)
    assert find_flow("some video") is None
    monkeypatch.delenv(kept_flow.VARIABLE)
    assert cache_folder() is not None


def test_a_disk_that_fills_up_costs_nothing_but_the_flow(picture, moving_video, tmp_path, cache, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_flow.np, "savez", full)
    keep(picture, moving_video, tmp_path)
    assert find_flow("some video") is None
    assert not list(cache.rglob("*.bin"))
