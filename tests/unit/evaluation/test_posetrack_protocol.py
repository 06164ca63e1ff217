from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.evaluation.posetrack import score_posetrack
from posewarper.evaluation.protocols import format_score
from posewarper.posetrack.points import POINT_KEYPOINTS, POINTS
from posewarper.skeletons import COCO
from posewarper.structures import InstanceTable

NOSE = POINTS.index("nose")
# 15 points in a row, 100 apart, of a person whose head box has the diagonal 100: the threshold is 30.
PERSON = np.full((17, 2), np.nan)
PERSON[POINT_KEYPOINTS] = np.stack([100.0 * np.arange(15), np.zeros(15)], 1)
HEAD = (0.0, 0.0, 60.0, 80.0)


def video(*frames, name="a", scores=True, **more) -> InstanceTable:
    """Each frame is a list of (track, keypoints)."""
    people = [(row, track, points) for row, frame in enumerate(frames) for track, points in frame]
    n = len(people)
    columns = {
        "rows": [row for row, _, _ in people],
        "tracks": [track for _, track, _ in people],
        "keypoints": np.reshape([points for _, _, points in people], (n, 17, 2)),
        "head_boxes": np.tile(HEAD, (n, 1)),
        "keypoint_scores": np.linspace(0.9, 0.5, n)[:, None] * np.ones(17) if scores else None,
    }
    names = tuple(f"{name}/{row:06}.jpg" for row in range(len(frames)))
    return InstanceTable(name, names, np.arange(len(frames)), **{**columns, **more})


def far(distance: float) -> np.ndarray:
    return PERSON + np.array([0.0, distance])


def test_perfect_predictions() -> None:
    truth = video([(1, PERSON)], [(1, PERSON)])
    score = score_posetrack({"a": truth}, {"a": truth})
    assert score.n_frames == 2
    assert (score.detection.ap == 100).all() and (score.tracking.mota == 100).all()


def test_the_last_frame_is_not_tracked() -> None:
    truth = video([(1, PERSON)], [(1, PERSON)], [(1, PERSON)])
    predictions = video([(1, PERSON)], [(2, PERSON)], [(3, PERSON)])
    tracking = score_posetrack({"a": truth}, {"a": predictions}).tracking
    assert (tracking.counts.objects == 2).all() and (tracking.counts.switches == 1).all()
    assert (tracking.mota == 50).all() and (tracking.recall == 100).all()


def test_frames_without_people_are_dropped_with_their_predictions() -> None:
    truth = video([(1, PERSON)], [], [(1, PERSON)])
    predictions = video([(1, PERSON)], [(1, far(500))], [(1, PERSON)])
    score = score_posetrack({"a": truth}, {"a": predictions})
    assert score.n_frames == 2 and (score.detection.precision == 100).all()


def test_people_without_any_prediction_count_as_one() -> None:
    truth = video([(1, PERSON), (2, far(300))], [(1, PERSON)])
    predictions = video([], [(1, PERSON)])
    counts = score_posetrack({"a": truth}, {"a": predictions}).tracking.counts
    assert (counts.objects == 1).all() and (counts.misses == 1).all() and (counts.false_positives == 1).all()


def test_a_person_without_points_in_files_of_both_years() -> None:
    """A frame with such people alone: dropped people (17) leave a lost frame, those of 18 none."""
    nobody = np.full((17, 2), np.nan)
    truth = video([(1, nobody)], [(1, PERSON)])
    predictions = video([(1, PERSON)], [(1, PERSON)])
    of_17 = score_posetrack({"a": truth}, {"a": predictions})
    of_18 = score_posetrack({"a": replace(truth, image_ids=[5, 6])}, {"a": predictions})
    for score in (of_17, of_18):
        assert score.n_frames == 2 and (score.detection.precision == 50).all()
    assert (of_17.tracking.counts.misses == 1).all() and (of_18.tracking.counts.misses == 0).all()


def test_points_in_ignore_regions_count_on_neither_side() -> None:
    region = np.array([[-50.0, -50], [1450, -50], [1450, 50], [-50, 50]])
    truth = video([(1, PERSON), (2, far(300))], [(1, PERSON)], ignore_regions={0: (region,)})
    predictions = video([(1, far(10)), (2, far(300))], [(1, PERSON)])
    score = score_posetrack({"a": truth}, {"a": predictions})
    assert (score.tracking.counts.objects == 1).all()
    assert (score.detection.precision == 100).all() and (score.detection.recall == 100).all()


def test_a_region_that_swallows_everybody() -> None:
    region = np.array([[-50.0, -50], [1450, -50], [1450, 50], [-50, 50]])
    truth = video([(1, PERSON)], [(1, PERSON)], ignore_regions={0: (region,)})
    predictions = video([(1, far(300))], [(1, PERSON)])
    score = score_posetrack({"a": truth}, {"a": predictions})
    assert (score.detection.precision == 50).all()
    assert (score.tracking.counts.misses == 1).all() and (score.tracking.counts.false_positives == 1).all()


def test_a_point_that_is_never_annotated() -> None:
    without = PERSON.copy()
    without[POINT_KEYPOINTS[NOSE]] = np.nan
    truth = video([(1, without)], [(1, without)])
    figures = score_posetrack({"a": truth}, {"a": video([(1, PERSON)], [(1, PERSON)])}).to_dict()
    assert figures["ap"]["per_joint"]["nose"] is None and figures["ap"]["per_joint"]["total"] == 100
    assert figures["ap"]["groups"]["head"] is None and figures["ap"]["groups"]["knee"] == 100
    assert figures["mot"]["mota"]["nose"] is None and figures["mot"]["motp"]["nose"] == 0
    assert figures["mot"]["pre"]["nose"] == 0


def test_a_point_that_neither_side_has_counts_as_not_found() -> None:
    # The reference gives 0, not NaN, to what has no predictions.
    without = PERSON.copy()
    without[POINT_KEYPOINTS[NOSE]] = np.nan
    table = video([(1, without)], [(1, without)])
    figures = score_posetrack({"a": table}, {"a": table}).to_dict()
    assert figures["ap"]["per_joint"]["nose"] == 0 and figures["mot"]["pre"]["nose"] is None


def test_the_neck_between_the_shoulders() -> None:
    truth = video([(1, PERSON)], [(1, PERSON)])
    assert (
        score_posetrack({"a": truth}, {"a": truth}, neck="shoulders").detection.ap[POINTS.index("neck")] == 0
    )


def test_frames_are_found_by_name_whatever_their_order_and_folder() -> None:
    truth = video([(1, PERSON)], [(1, far(50))])
    predictions = video([(1, far(50))], [(1, PERSON)])
    predictions = replace(predictions, frame_names=("val/a/000001.png", "val/a/000000.png"))
    assert (score_posetrack({"a": truth}, {"a": predictions}).detection.ap == 100).all()


def test_videos_are_found_by_name_where_files_are_called_otherwise() -> None:
    first, second = video([(1, PERSON)], [(1, PERSON)]), video([(1, far(50))], [(1, far(50))], name="b")
    predictions = {"result_1": second, "result_2": first}
    assert (score_posetrack({"x": first, "y": second}, predictions).detection.ap == 100).all()


def test_no_tracks_no_tracking_figures() -> None:
    truth = video([(1, PERSON)], [(1, PERSON)])
    for tracks, why in (([-1, 1], "has no track id"), ([-1, -1], "has no track id")):
        with pytest.warns(PosewarperWarning, match=why):
            score = score_posetrack({"a": truth}, {"a": replace(truth, tracks=tracks)})
        assert score.to_dict()["mot"] is None and "MOTA" not in format_score(score)
    with pytest.warns(PosewarperWarning, match="ground truth of a in a/000000.jpg: a person has no track id"):
        score_posetrack({"a": replace(truth, tracks=[-1, 1])}, {"a": truth})
    with pytest.warns(PosewarperWarning, match="no video has two annotated frames"):
        score_posetrack({"a": video([(1, PERSON)])}, {"a": video([(1, PERSON)])})


def test_predictions_without_scores_are_warned_of() -> None:
    truth = video([(1, PERSON)], [(1, PERSON)])
    with pytest.warns(PosewarperWarning, match="the predicted points have no scores"):
        score = score_posetrack({"a": truth}, {"a": video([(1, PERSON)], [(1, PERSON)], scores=False)})
    assert (score.detection.ap == 100).all()
    some = truth.keypoint_scores.copy()
    some[0, 0] = np.nan
    with pytest.warns(PosewarperWarning, match="1 of 30 predicted points have no score and rank below"):
        score_posetrack({"a": truth}, {"a": replace(truth, keypoint_scores=some)})


def broken(case: str) -> tuple[dict, dict]:
    truth = video([(1, PERSON)], [(1, PERSON)])
    if case == "video":
        return {"a": truth, "b": video([(1, PERSON)], name="b")}, {"a": truth}
    if case == "frame":
        return {"a": truth}, {"a": video([(1, PERSON)])}
    if case == "names":
        return {"a": truth}, {"a": replace(truth, frame_names=("x_1.jpg", "x_2.jpg"))}
    if case == "twice":
        return {"a": truth}, {"a": replace(truth, frame_names=("a/000000.jpg", "a/000000.jpg"))}
    if case == "head":
        return {"a": replace(truth, head_boxes=np.full((2, 4), np.nan))}, {"a": truth}
    if case == "people":
        return {"a": video([], [])}, {"a": truth}
    assert case == "skeleton"
    return {"a": truth}, {"a": replace(truth, skeleton=COCO)}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "video",
            "there are no predictions for 1 of 2 videos\n.*files named as those of the ground truth: b",
        ),
        ("frame", "predictions of a: 1 of 2 annotated frames are missing\n.*a/000001.jpg"),
        ("names", "predictions of a: the names of the frames are not those of the ground truth"),
        ("twice", "predictions of a: a frame is listed twice"),
        ("head", "ground truth of a: a person has no head box"),
        ("people", "no frame of the ground truth can be scored"),
        ("skeleton", "predictions of a: the keypoints are not PoseTrack's"),
    ],
)
def test_bad_input_is_explained(case: str, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        score_posetrack(*broken(case))


def test_predictions_that_belong_to_nothing_are_left_out_with_a_warning() -> None:
    truth = video([(1, PERSON)], [(1, PERSON)])
    with pytest.warns(PosewarperWarning, match="1 predicted frames without ground truth.*a/000002.jpg"):
        score_posetrack({"a": truth}, {"a": video([(1, PERSON)], [(1, PERSON)], [(1, PERSON)])})
    with pytest.warns(PosewarperWarning, match="predictions of videos without ground truth are left out: b"):
        score_posetrack({"a": truth}, {"a": truth, "b": truth})


def test_the_table_is_the_papers() -> None:
    truth = video([(1, PERSON)], [(1, PERSON)])
    lines = format_score(score_posetrack({"a": truth}, {"a": truth})).splitlines()
    heads = ["Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Mean"]
    assert lines[0].split() == ["2", "frames", *heads] and lines[5].split() == ["tracking", *heads]
    assert [line.split()[0] for line in lines if line] == [
        *("2", "AP", "precision", "recall", "tracking", "MOTA", "MOTP", "precision", "recall")
    ]
    assert lines[1].split()[1:] == ["100.0"] * 8
    assert max(map(len, lines)) <= 80
