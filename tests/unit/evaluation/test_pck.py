from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.evaluation.pck import score_pck
from posewarper.evaluation.protocols import format_score
from posewarper.evaluation.scales import boxes_or_extents, reference_lengths
from posewarper.skeletons import Skeleton
from posewarper.structures import InstanceTable

NAN = np.nan
SKELETON = Skeleton(("nose", "left_hip", "right_hip"))
# Longer side of the extent 30, with the margins 36; hips 10 apart.
MOUSE = np.array([[5.0, 0.0], [0.0, 30.0], [10.0, 30.0]])


def table(*people, **more) -> InstanceTable:
    """People as (frame, track, keypoints)."""
    n_frames = 1 + max(frame for frame, _, _ in people)
    return InstanceTable(
        "clip",
        tuple(str(n) for n in range(n_frames)),
        np.arange(n_frames),
        rows=[frame for frame, _, _ in people],
        tracks=[track for _, track, _ in people],
        keypoints=np.stack([points for _, _, points in people]),
        **{"skeleton": SKELETON, **more},
    )


def score(truth, predictions, normaliser="pixels", thresholds=(3.0,), trust_tracks=True):
    return score_pck(
        {"t": truth},
        {"p": predictions},
        normaliser=normaliser,
        thresholds=thresholds,
        trust_tracks=trust_tracks,
    )


def test_shares_within_thresholds_the_border_included() -> None:
    moved = MOUSE + np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 9.0]])
    found = score(table((0, 1, MOUSE)), table((0, 1, moved)), thresholds=(2.9, 3, 5))
    assert found.pck.tolist() == [[0, 0, 0], [100, 0, 0], [100, 100, 0]]
    assert found.mean == pytest.approx([0, 100 / 3, 200 / 3])
    assert found.coverage == 100 and found.counts.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("normaliser", "length"), [("pixels", 1), ("box", 36), ("left_hip, right_hip", 10), ("head", 30)]
)
def test_what_distances_are_measured_by(normaliser: str, length: float) -> None:
    truth = table((0, 1, MOUSE), head_boxes=[[0, 0, 30, 40]])
    assert reference_lengths(truth, normaliser) == pytest.approx([length])
    shifted = table((0, 1, MOUSE + np.array([2.0, 0.0])))
    assert score(truth, shifted, normaliser, (2 / length + 1e-9,)).mean.tolist() == [100]
    assert score(truth, shifted, normaliser, (2 / length - 1e-9,)).mean.tolist() == [0]


def test_boxes_are_given_or_made_from_keypoints() -> None:
    keypoints = np.stack([MOUSE, MOUSE, np.full((3, 2), NAN)])
    boxes = np.array([[1.0, 2, 50, 70], [NAN] * 4, [NAN] * 4])
    made = boxes_or_extents(keypoints, boxes)
    assert made[0].tolist() == [1, 2, 50, 70]
    assert made[1] == pytest.approx([-1, -3, 12, 36])
    assert np.isnan(made[2]).all()


def test_a_missing_prediction_is_wrong_and_a_missing_label_is_not_scored() -> None:
    truth, predicted = MOUSE.copy(), MOUSE.copy()
    truth[0], predicted[1] = NAN, NAN
    found = score(table((0, 1, truth)), table((0, 1, predicted)))
    assert found.pck[0] == pytest.approx([NAN, 0, 100], nan_ok=True)
    assert found.mean.tolist() == [50] and found.coverage == 50
    assert found.to_dict()["pck"]["3"] == {"nose": None, "left_hip": 0, "right_hip": 100, "total": 50}


def test_instances_are_matched_by_track_where_both_sides_have_the_same() -> None:
    left, right = MOUSE, MOUSE + np.array([100.0, 0.0])
    truth = table((0, 1, left), (0, 2, right), (1, 1, left))
    swapped = table((0, 2, left), (0, 1, right), (1, 1, left))
    by_track = score(truth, swapped)
    assert by_track.matched_by == "track id" and by_track.mean == pytest.approx([100 / 3])
    by_distance = score(truth, swapped, trust_tracks=False)
    assert by_distance.matched_by == "least distance" and by_distance.mean.tolist() == [100]
    renamed = replace(swapped, tracks=[5, 6, 6])
    assert score(truth, renamed).matched_by == "least distance" and score(truth, renamed).mean.tolist() == [
        100
    ]
    doubled = replace(swapped, tracks=[1, 1, 2])
    assert score(truth, doubled).matched_by == "least distance"


def test_an_instance_without_a_partner() -> None:
    truth = table((0, 1, MOUSE), (0, 2, MOUSE + 100.0))
    found = score(truth, table((0, 7, MOUSE)))
    assert (found.n_instances, found.n_unmatched) == (2, 1) and found.mean.tolist() == [50]


def test_only_labelled_frames_are_scored() -> None:
    truth = table((0, 1, MOUSE), (1, 1, MOUSE + 50.0), is_labelled=[True, False])
    assert score(truth, table((0, 1, MOUSE), (1, 1, MOUSE))).counts.tolist() == [1, 1, 1]


def test_instances_without_the_length_are_left_out_with_a_warning() -> None:
    lacking = MOUSE.copy()
    lacking[1] = NAN
    truth = table((0, 1, MOUSE), (1, 1, lacking))
    with pytest.warns(
        PosewarperWarning, match="1 of 2 labelled instances are left out.*'left_hip,right_hip'"
    ):
        assert score(truth, truth, "left_hip,right_hip").n_instances == 1
    with pytest.raises(LabelsError, match=r"(?s)no labelled instance can be scored.*2 instances without"):
        score(truth, truth, "head")


@pytest.mark.parametrize("normaliser", ["torso", "nose", "nose,tail", "nose,nose,nose"])
def test_an_unknown_normaliser(normaliser: str) -> None:
    with pytest.raises(ConfigError, match=r"(?s)unknown normaliser.*nose, left_hip, right_hip"):
        score(table((0, 1, MOUSE)), table((0, 1, MOUSE)), normaliser)


@pytest.mark.parametrize("thresholds", [(), (0.0,), (-1.0,), (NAN,)])
def test_thresholds_are_positive(thresholds) -> None:
    with pytest.raises(ConfigError, match="positive"):
        score(table((0, 1, MOUSE)), table((0, 1, MOUSE)), thresholds=thresholds)


def test_the_table_has_a_row_a_keypoint() -> None:
    text = format_score(score(table((0, 1, MOUSE)), table((0, 1, MOUSE + 2.0)), "box", (0.05, 0.1)))
    lines = text.splitlines()
    assert lines[0].split() == ["keypoint", "labels", "PCK@0.05", "PCK@0.1"]
    assert lines[1].split() == ["nose", "1", "0.0", "100.0"]
    assert lines[4].split() == ["mean", "3", "0.0", "100.0"]
    assert "longer side of the box" in text and "matched by track id: 1 of 1" in text
    assert max(map(len, lines)) <= 80
