"""Suppression of doubles."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.demo.crowd import stage_crowd, tell_crowd
from posewarper.evaluation.oks import usual_sigmas
from posewarper.geometry import keypoint_boxes
from posewarper.prediction.tracker import single_poses, suppress_doubles
from posewarper.skeletons import POSETRACK


def test_the_best_of_doubles_stays_and_what_it_removed_removes_nothing() -> None:
    # 0 and 1 are doubles, 1 and 2 too, 0 and 2 are not: 1 removes both when it is best ...
    similarity = np.array([[1, 0.9, 0.2], [0.9, 1, 0.9], [0.2, 0.9, 1]])
    np.testing.assert_array_equal(
        suppress_doubles(similarity, np.array([0.1, 0.9, 0.5]), 0.5), [False, True, False]
    )
    # ... and when it is removed itself, the third stays.
    np.testing.assert_array_equal(
        suppress_doubles(similarity, np.array([0.9, 0.5, 0.1]), 0.5), [True, False, True]
    )


def test_ties_go_to_the_first_and_the_threshold_itself_is_allowed() -> None:
    similarity = np.array([[1, 0.9], [0.9, 1]])
    np.testing.assert_array_equal(suppress_doubles(similarity, np.ones(2), 0.8), [True, False])
    np.testing.assert_array_equal(suppress_doubles(similarity, np.ones(2), 0.9), [True, True])
    assert suppress_doubles(np.zeros((0, 0)), np.zeros(0), 0.5).shape == (0,)


def _poses(*poses: np.ndarray) -> dict[str, np.ndarray]:
    keypoints = np.array(poses)
    return {
        "keypoints": keypoints,
        "keypoint_scores": np.full(keypoints.shape[:2], 0.8),
        "boxes": keypoint_boxes(keypoints),
        "scores": np.linspace(0.9, 0.5, len(poses)),
    }


STANDING = np.array([[50.0, 10.0], [40.0, 40.0], [60.0, 42.0], [45.0, 90.0]])
SIGMAS = np.array([0.03, 0.08, 0.08, 0.09])
LIMITS = {"threshold": 0.9, "keypoint_threshold": 0.2}


def test_a_double_goes_and_somebody_beside_stays() -> None:
    beside = STANDING + np.array([25, 0])
    stays = single_poses(**_poses(STANDING, STANDING + 0.5, beside), sigmas=SIGMAS, **LIMITS)
    assert stays.tolist() == [True, False, True]
    worse_first = _poses(STANDING + 0.5, STANDING, beside)
    worse_first["scores"] = np.array([0.5, 0.9, 0.4])
    assert single_poses(**worse_first, sigmas=SIGMAS, **LIMITS).tolist() == [False, True, True]


def test_part_of_a_body_is_a_double_and_half_a_stranger_is_none() -> None:
    part, stranger = STANDING + 0.5, STANDING + 0.5
    part[2:] = np.nan
    stranger[:2] += (0, 30)
    stays = single_poses(**_poses(STANDING, part, stranger), sigmas=SIGMAS, **LIMITS)
    assert stays.tolist() == [True, False, True]
    # A part does not remove the whole, however sure the network is of it, and the whole removes the part.
    assert single_poses(**_poses(part, STANDING), sigmas=SIGMAS, **LIMITS).tolist() == [False, True]


def test_what_is_not_confident_does_not_save_a_double() -> None:
    poses = _poses(STANDING, STANDING + 0.5)
    poses["keypoints"][1, 3] += 40
    assert single_poses(**poses, sigmas=SIGMAS, **LIMITS).tolist() == [True, True]
    poses["keypoint_scores"][1, 3] = 0.1
    assert single_poses(**poses, sigmas=SIGMAS, **LIMITS).tolist() == [True, False]


def test_poses_without_keypoints_are_judged_by_their_boxes() -> None:
    poses = _poses(STANDING, STANDING, STANDING)
    poses["keypoint_scores"][1:] = 0.0
    poses["boxes"][2, 0] += 5
    assert single_poses(**poses, sigmas=SIGMAS, **LIMITS).tolist() == [True, False, True]


@pytest.mark.parametrize("seed", range(4))
def test_people_who_cross_are_no_doubles(seed: int) -> None:
    sigmas, crowd = usual_sigmas(POSETRACK), stage_crowd(5, (240, 320), seed)
    least = 1.0
    for t in range(0, 100, 2):
        truth = tell_crowd(crowd, t)
        n = len(truth.tracks)
        stays = single_poses(truth.keypoints, np.ones((n, 17)), truth.boxes, np.ones(n), sigmas, **LIMITS)
        assert stays.all()
        middle = truth.boxes[:, :2] + truth.boxes[:, 2:] / 2
        apart = np.abs(middle[:, None, 0] - middle[None, :, 0]) / truth.boxes[:, 2]
        least = min(least, apart[~np.eye(n, dtype=bool)].min())
    assert least < 0.1  # they do cross: middles within a tenth of a width
