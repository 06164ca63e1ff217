"""Which frames are filled from which: small cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import ConfigError, LabelsError
from posewarper.paper.propagation import consecutive_steps, neighbour_steps, plan_dataset
from posewarper.posetrack.dataset import open_dataset
from posewarper.posetrack.preparation import prepare_dataset
from posewarper.structures import InstanceTable


def table(n_frames: int, labelled, first: int = 1) -> InstanceTable:
    numbers = range(first, first + n_frames)
    names = tuple(f"v/{n:08}.jpg" for n in numbers)
    flags = [n in labelled for n in numbers]
    return InstanceTable("v", names, numbers, [], np.zeros((0, 17, 2)), is_labelled=flags)


def pairs(steps) -> list[tuple[int, int]]:
    assert all(step.delta == step.number - step.labelled for step in steps)
    return [(step.labelled, step.number) for step in steps]


def test_the_longest_labelled_run_is_filled_from_every_seventh() -> None:
    # 1 and 20 are labelled, too, but belong to no run.
    labels = table(20, {1, 20, *range(5, 16)})
    reached = {8: [5, 6, 7, 8, 9, 10, 11], 15: [12, 13, 14, 15]}
    found = pairs(consecutive_steps(labels))
    assert sorted(found) == [(a, b) for a, numbers in reached.items() for b in numbers]
    assert sorted(pairs(consecutive_steps(labels, keep=range(5, 9)))) == [(8, b) for b in range(5, 9)]
    assert consecutive_steps(table(20, {1, 5, 6, 7, 20})) == []
    assert consecutive_steps(table(4, set())) == []


def test_neighbours_end_with_the_video_and_take_the_nearer_label() -> None:
    # 6 is as far from 4 as from 8 and goes to the earlier; 9 and 10 are both labelled.
    labels = table(12, {2, 4, 9, 10})
    assert pairs(neighbour_steps(labels)) == [
        *((2, 1), (2, 3), (4, 5), (4, 6), (9, 7), (9, 8)), (10, 11), (10, 12)
    ]  # fmt: skip
    assert pairs(neighbour_steps(table(7, {2, 6}))) == [(2, 1), (2, 3), (2, 4), (6, 5), (6, 7)]
    assert pairs(neighbour_steps(labels, reach=1)) == [(2, 1), (2, 3), (4, 5), (9, 8), (10, 11)]
    assert neighbour_steps(table(7, set())) == []


def test_what_is_not_kept_counts_as_unlabelled() -> None:
    labels = table(12, {2, 4, 9, 10})
    assert pairs(neighbour_steps(labels, keep=[4])) == [(4, n) for n in (1, 2, 3, 5, 6, 7)]
    there = set(range(0, 30)) - {3, 6}
    assert pairs(neighbour_steps(labels, keep=[4], numbers=there)) == [(4, n) for n in (1, 2, 5, 7)]
    assert neighbour_steps(labels, keep=[]) == []
    for steps in (neighbour_steps, consecutive_steps):
        with pytest.raises(LabelsError, match=r"not[\s\S]*\[5\]"):
            steps(labels, keep=[4, 5])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    top = tmp_path_factory.mktemp("steps")
    write_posetrack_tree(
        top / "in", "posetrack17", n_videos=(2,), n_frames=12, size=(48, 64), n_people=(1, 1)
    )
    (top / "in/images/bonn_5sec/000001_mpii/00000003.jpg").unlink()
    with pytest.warns(match="missing"):
        prepare_dataset("posetrack17", top / "in", top / "out")
    return open_dataset(top / "out")


def test_a_whole_split(dataset) -> None:
    # Frames 5 to 8 of 12 are labelled.
    plan = plan_dataset(dataset, "train", "neighbours")
    assert list(plan) == ["000001_mpii", "000002_mpii"]
    assert pairs(plan["000002_mpii"]) == [*((5, n) for n in (2, 3, 4)), *((8, n) for n in (9, 10, 11))]
    assert pairs(plan["000001_mpii"]) == [(5, 2), (5, 4), (8, 9), (8, 10), (8, 11)]  # 3 is missing
    plan = plan_dataset(dataset, "train", "neighbours", selection={"000002_mpii": [6]}, reach=1)
    assert {stem: pairs(own) for stem, own in plan.items()} == {"000002_mpii": [(6, 5), (6, 7)]}
    plan = plan_dataset(dataset, "train", "consecutive")
    assert sorted(pairs(plan["000001_mpii"])) == [(8, 5), (8, 6), (8, 7), (8, 8)]


def test_what_cannot_be_planned_is_explained(dataset) -> None:
    with pytest.raises(ConfigError, match="consecutive, neighbours"):
        plan_dataset(dataset, "train", "all")
    with pytest.raises(LabelsError, match=r"not in the split 'train'[\s\S]*000009"):
        plan_dataset(dataset, "train", "neighbours", selection={"000009": [1]})
    with pytest.raises(LabelsError, match="nothing to propagate in the 0 videos"):
        plan_dataset(dataset, "val", "neighbours")
    with pytest.raises(LabelsError, match="more than 3 labelled frames in a row"):
        plan_dataset(dataset, "train", "consecutive", selection={"000001_mpii": [5, 6, 7]})
