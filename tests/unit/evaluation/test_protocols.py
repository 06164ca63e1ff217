from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.evaluation.oks import OksScore
from posewarper.evaluation.pairing import table_of_labels
from posewarper.evaluation.pck import PckScore
from posewarper.evaluation.posetrack import PoseTrackScore
from posewarper.evaluation.protocols import evaluate
from posewarper.formats.labels import write_labels, write_poses
from posewarper.posetrack.posetrack18 import write_posetrack18
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import NO_TRACK, InstanceTable, Labels, Poses, Track

SKELETON = Skeleton(("nose", "paw", "tail"))
BODY = np.array([[10.0, 10.0], [30.0, 20.0], [50.0, 60.0]])


def some_labels(shift=0.0, frames=(0, 2, 4), visibility=2, **more) -> Labels:
    keypoints = BODY + 2.0 * np.array(frames, float)[:, None, None] + shift
    track = Track(np.array(frames), keypoints, visibility=np.full((len(frames), 3), visibility))
    return Labels(SKELETON, {3: track}, **{"image_size": (100, 120), "n_frames": 6, "video": "clip", **more})


def some_poses(shift=0.0, track=3, labelled=()) -> Poses:
    frames = np.arange(6)
    keypoints = BODY + 2.0 * frames[:, None, None] + shift
    poses = {track: Track(frames, keypoints, keypoint_scores=np.full((6, 3), 0.5))}
    return Poses(SKELETON, poses, (100, 120), 6, labelled_frames=np.array(labelled, int), video="clip")


def test_labels_as_a_table() -> None:
    hidden = some_labels(visibility=np.array([2, 1, 0])).tracks[3]
    table = table_of_labels(
        Labels(SKELETON, {3: hidden}, labelled_frames=[0, 1, 2, 4], n_frames=6), only_visible=True
    )
    assert table.frame_names == ("0", "1", "2", "3", "4", "5")
    assert table.is_labelled.tolist() == [True, True, True, False, True, False]
    assert table.rows.tolist() == [0, 2, 4] and table.tracks.tolist() == [3, 3, 3]
    assert np.isnan(table.keypoints[:, 1:]).all() and table.keypoints[1, 0].tolist() == [14, 14]
    assert table.boxes[0] == pytest.approx([8, 9, 24, 12])  # of the hidden keypoint as well
    everything = table_of_labels(some_labels(visibility=1, n_frames=None), only_visible=False)
    assert len(everything.frame_names) == 5 and not np.isnan(everything.keypoints).any()
    assert table_of_labels(some_labels(n_frames=None), only_visible=False, n_frames=9).n_frames == 9
    assert table_of_labels(some_labels(), only_visible=False, n_frames=9).n_frames == 6


def test_two_tracks_stand_frame_by_frame() -> None:
    tracks = {1: some_labels(frames=(1, 3)).tracks[3], 0: some_labels(frames=(0, 1)).tracks[3]}
    table = table_of_labels(Labels(SKELETON, tracks), only_visible=True)
    assert table.rows.tolist() == [0, 1, 1, 3] and table.tracks.tolist() == [0, 0, 1, 1]


def test_poses_as_a_table() -> None:
    table = table_of_labels(some_poses(labelled=[2]).as_labels(), only_visible=False)
    assert table.n_instances == 6 and (table.keypoint_scores == 0.5).all()
    assert np.flatnonzero(table.is_labelled).tolist() == [2]
    empty = table_of_labels(Poses(SKELETON, {}, (10, 10), 2).as_labels(), only_visible=False)
    assert empty.n_instances == 0 and empty.keypoints.shape == (0, 3, 2) and len(empty.frame_names) == 2


def test_own_files_and_objects_give_the_same(tmp_path: Path) -> None:
    write_labels(tmp_path / "dense.json", some_labels())
    write_poses(tmp_path / "poses.json", some_poses(shift=3.0))
    from_files = evaluate(tmp_path / "dense.json", tmp_path / "poses.json", metric="pck")
    assert isinstance(from_files, PckScore)
    assert from_files.normaliser == "box" and from_files.thresholds == (0.05, 0.1, 0.2)
    assert from_files.matched_by == "track id" and from_files.n_instances == 3
    # 3 * sqrt(2) of 60 pixels is 0.0707.
    assert from_files.mean.tolist() == [0, 100, 100]
    from_objects = evaluate(some_labels(), some_poses(shift=3.0), metric="pck")
    assert from_objects.to_dict() == from_files.to_dict()
    as_labels = evaluate(some_labels(), some_labels(shift=3.0), metric="pck")
    assert as_labels.mean.tolist() == [0, 100, 100]


def test_other_label_formats_on_both_sides(tmp_path: Path) -> None:
    plain = {"n_frames": None, "image_size": None, "video": None}
    write_labels(tmp_path / "truth.csv", some_labels(**plain), format="csv")
    write_labels(tmp_path / "found.csv", some_labels(1.0, frames=(0, 2), **plain), format="csv")
    score = evaluate(tmp_path / "truth.csv", tmp_path / "found.csv", metric="pck", thresholds=[0.1])
    assert score.mean == pytest.approx([200 / 3])  # frame 4 is not predicted
    assert isinstance(evaluate(tmp_path / "truth.csv", some_poses(), metric="oks"), OksScore)


def test_tracks_of_another_name_are_matched_by_distance() -> None:
    score = evaluate(some_labels(), some_poses(track=8), metric="pck", normaliser="pixels", thresholds=[1])
    assert score.matched_by == "least distance" and score.mean.tolist() == [100]


def test_oks_of_a_clip_takes_one_sigma_for_all() -> None:
    near, far = (evaluate(some_labels(), some_poses(shift), metric="oks", sigmas=[0.05]) for shift in (1, 9))
    assert near.sigmas == {"nose": 0.05, "paw": 0.05, "tail": 0.05}
    assert near.figures["AP"] > 80 > far.figures["AP"]


def test_labels_among_the_predictions_are_pointed_out() -> None:
    with pytest.warns(PosewarperWarning, match="1 of the 3 scored frames hold labels"):
        evaluate(some_labels(), some_poses(labelled=[2]), metric="pck")
    evaluate(some_labels(), some_labels(), metric="pck")  # a file against itself needs no word


def posetrack_files(folder: Path, shift=0.0, names=("a", "b"), **more) -> Path:
    folder.mkdir()
    body = np.full((17, 2), np.nan)
    body[[0, 1, 2, *range(5, 17)]] = np.stack([100.0 * np.arange(15), np.zeros(15)], 1)
    for name in names:
        columns = {
            "keypoints": np.stack([body + shift] * 2),
            "keypoint_scores": np.full((2, 17), 0.5),
            "head_boxes": [[0, 0, 60, 80]] * 2,
            "boxes": [[0, 0, 1400, 100]] * 2,
            "tracks": [4, 4],
            **more,
        }
        frames = (f"val/{name}/000000.jpg", f"val/{name}/000001.jpg")
        table = InstanceTable(name, frames, [0, 1], rows=[0, 1], image_ids=[7, 8], **columns)
        write_posetrack18(folder / f"{name}.json", table)
    return folder


def test_posetrack_files_under_every_metric(tmp_path: Path) -> None:
    truth = posetrack_files(tmp_path / "truth")
    near, far = posetrack_files(tmp_path / "near", 20.0), posetrack_files(tmp_path / "far", 25.0)
    assert isinstance(evaluate(truth, near), PoseTrackScore)
    for predictions, found in ((near, 100), (far, 0)):  # at 28.3 and 35.4 of 30 pixels
        assert (evaluate(truth, predictions).detection.recall == found).all()
        pck = evaluate(truth, predictions, metric="pck")
        assert pck.normaliser == "head" and pck.thresholds == (0.5,)
        assert pck.mean.tolist() == [found] and pck.matched_by == "least distance"
        assert evaluate(truth, predictions, metric="oks").n_predictions == 4


def test_one_posetrack_file_is_read_as_such_and_ours_is_not(tmp_path: Path) -> None:
    truth = posetrack_files(tmp_path / "truth")
    assert evaluate(truth / "a.json", truth / "a.json", metric="pck").matched_by == "least distance"
    with pytest.raises(LabelsError, match="different videos"):
        evaluate(truth / "a.json", truth / "b.json", metric="pck")
    ours = Labels(POSETRACK, {0: Track([0], np.full((1, 17, 2), 5.0))}, n_frames=1)
    write_labels(tmp_path / "ours.json", ours)
    score = evaluate(tmp_path / "ours.json", tmp_path / "ours.json", metric="pck", normaliser="pixels")
    assert score.matched_by == "track id" and score.thresholds == (5, 10, 20)


def test_the_neck_rule_reaches_every_metric(tmp_path: Path) -> None:
    truth = posetrack_files(tmp_path / "truth")
    for metric in ("posetrack", "pck"):
        figures = {
            neck: evaluate(truth, truth, metric=metric, neck=neck) for neck in ("head_bottom", "shoulders")
        }
        necks = (
            {name: score.detection.ap[12] for name, score in figures.items()}
            if metric == "posetrack"
            else {name: score.pck[0, 1] for name, score in figures.items()}
        )
        assert necks == {"head_bottom": 100, "shoulders": 0}
    with pytest.raises(LabelsError, match="no neck to find"):
        evaluate(some_labels(), some_poses(), metric="oks", neck="shoulders")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "map"}, r"(?s)unknown metric.*posetrack, pck, oks"),
        ({"thresholds": [0.1]}, "metric posetrack has no thresholds"),
        ({"metric": "oks", "normaliser": "box"}, "metric oks has no normaliser"),
        ({"metric": "pck", "sigmas": [0.1]}, "metric pck has no sigmas"),
        ({"neck": "throat"}, "unknown rule for the neck"),
    ],
)
def test_impossible_settings(tmp_path: Path, settings, message: str) -> None:
    truth = posetrack_files(tmp_path / "truth")
    with pytest.raises(ConfigError, match=message):
        evaluate(truth, truth, **settings)


def test_a_clip_has_no_posetrack_figures() -> None:
    with pytest.raises(LabelsError, match=r"ground truth of clip: the keypoints are not PoseTrack's"):
        evaluate(some_labels(), some_poses())


def test_predictions_of_a_shorter_clip() -> None:
    poses = some_poses()
    short = Poses(
        SKELETON, {3: Track([0], poses.tracks[3].keypoints[:1], keypoint_scores=[[1.0] * 3])}, (100, 120), 3
    )
    with pytest.raises(LabelsError, match=r"(?s)1 of 3 annotated frames are missing.*expected: 4"):
        evaluate(some_labels(), short, metric="pck")


# --- PoseTrack18's own annotations ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the predicted points have no scores")
@pytest.mark.filterwarnings("ignore:.*predicted instances have no score")
@pytest.mark.filterwarnings("ignore:no tracking figures")
def test_posetrack18_annotations_against_themselves_and_shifted_copies(shared_data, tmp_path: Path) -> None:
    annotations = shared_data / "posetrack18_sample" / "annotations" / "val"
    itself = evaluate(annotations, annotations)
    assert itself.n_frames == 2 and (itself.detection.ap == 100).all()
    shifted = {}
    for shift in (8, 60):
        folder = tmp_path / str(shift)
        folder.mkdir()
        for file in annotations.glob("*.json"):
            document = json.loads(file.read_text())
            for record in document["annotations"]:
                there = [v > 0 for v in record["keypoints"][2::3]]
                xs = record["keypoints"][::3]
                record["keypoints"][::3] = [x + shift * t for x, t in zip(xs, there, strict=True)]
            (folder / file.name).write_text(json.dumps(document))
        score = evaluate(annotations, folder)
        shifted[shift] = score.to_dict()["ap"]["per_joint"]["total"]
        assert evaluate(annotations, folder, metric="oks").figures["AP"] < 100
    assert 100 > shifted[8] > shifted[60] + 10
    assert evaluate(annotations, annotations, metric="pck").mean.tolist() == [100]
    assert evaluate(annotations, annotations, metric="oks").figures["AP"] == pytest.approx(100)


def test_a_person_without_track_id_in_a_file(tmp_path: Path) -> None:
    truth = posetrack_files(tmp_path / "truth")
    without = posetrack_files(tmp_path / "without", tracks=[NO_TRACK, 3])
    with pytest.warns(
        PosewarperWarning, match=r"predictions of a in val/a/000000.jpg: a person has no track id"
    ):
        assert evaluate(truth, without).tracking is None
