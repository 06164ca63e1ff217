"""Labels that are not whole, through the command line: correct a keypoint, and propagate again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from moving_clip import N_FRAMES, command, some_labels, true_keypoints, write_clip, write_some_labels

from posewarper.formats.labels import read_annotations, read_labels, read_poses, write_labels


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def correct(poses: Path, corrected: Path, changes: Mapping[int, tuple[int, list[float]]]) -> None:
    """Write a result in which one keypoint on each of some frames has a new place, and is a label alone."""
    document = json.loads(poses.read_text())
    frame_of = {image["id"]: image for image in document["images"]}
    for annotation in document["annotations"]:
        image = frame_of[annotation["image_id"]]
        if image["frame_id"] in changes:
            keypoint, place = changes[image["frame_id"]]
            image["is_labeled"] = True
            annotation["keypoints"][3 * keypoint : 3 * keypoint + 3] = [*place, 2]
            annotation["labelled"] = [int(k == keypoint) for k in range(len(annotation["keypoints"]) // 3)]
    corrected.write_text(json.dumps(document))


@pytest.mark.parametrize("method", [("--effort", "fast"), ("--method", "flow")])
def test_correcting_one_keypoint_leaves_the_others_of_its_frame(capsys, clip, tmp_path, method):
    where = ("--device", "cpu", "--quiet", *method)
    labels = write_some_labels(tmp_path)
    assert command(capsys, "propagate", clip, "--labels", labels, "--out", tmp_path / "one", *where)[0] == 0
    first = read_poses(tmp_path / "one" / "poses.json")
    # One on a labelled frame, one on a frame that was propagated.
    truth = true_keypoints([6, 10])
    changes = {6: (1, (truth[0, 1] + 0.123).tolist()), 10: (2, (truth[1, 2] - 1 / 3).tolist())}
    corrected = tmp_path / "corrected.json"
    correct(tmp_path / "one" / "poses.json", corrected, changes)
    out = tmp_path / "two"
    assert command(capsys, "propagate", clip, "--labels", corrected, "--out", out, *where)[0] == 0
    poses = read_poses(out / "poses.json")
    track = poses.tracks[0]
    assert poses.labelled_frames.tolist() == [3, 6, 10, 16]
    assert track.frames.tolist() == first.tracks[0].frames.tolist()
    assert (track.visibility > 0).all()
    for frame, (keypoint, place) in changes.items():
        row = int(np.flatnonzero(track.frames == frame)[0])
        assert track.keypoints[row, keypoint].tolist() == place  # to the last bit, also in the file
        assert np.flatnonzero(track.labelled[row]).tolist() == [keypoint]
        others = np.arange(4) != keypoint
        np.testing.assert_allclose(track.keypoints[row, others], true_keypoints([frame])[0, others], atol=1)
        assert (track.keypoint_scores[row, others] < 1).all()
        if track.knows_error:
            assert (track.expected_error[row, others] > 0).all()
            assert track.expected_error[row, keypoint] == 0
    assert track.knows_error == ("fast" in method)
    # Of the result again the labels alone are labels.
    again = read_labels(out / "poses.json")
    assert again.tracks[0].placed.sum() == 4 + 1 + 1 + 4


def test_what_is_not_labelled_is_absent_if_that_is_said(capsys, clip, tmp_path):
    labels = some_labels()
    keypoints = labels.tracks[0].keypoints.copy()
    keypoints[1, 2] = np.nan
    tracks = {0: type(labels.tracks[0])(labels.tracks[0].frames, keypoints)}
    file = tmp_path / "partial.json"
    write_labels(file, type(labels)(labels.skeleton, tracks, n_frames=N_FRAMES, video="clip.mp4"))
    there = {}
    for kind in ("unknown", "absent"):
        out = tmp_path / kind
        words = ("--labels", file, "--out", out, "--method", "linear", "--unlabelled", kind, "--quiet")
        assert command(capsys, "propagate", clip, *words)[0] == 0
        there[kind] = read_poses(out / "poses.json").tracks[0].at([10]).visibility.tolist()
        code, said, _ = command(capsys, "info", file, "--unlabelled", kind)
        assert code == 0 and "not looked at %" in said
        converted = tmp_path / f"{kind}.csv"
        words = (file, converted, "--to", "csv", "--unlabelled", kind)
        assert command(capsys, "convert", *words)[0] == 0
        track = read_annotations(converted).tracks[0]
        assert (track.absent.sum(), track.not_looked_at.sum()) == ((1, 0) if kind == "absent" else (0, 1))
    assert there == {"unknown": [[2, 2, 2, 2]], "absent": [[2, 2, 0, 2]]}
    assert json.loads((tmp_path / "absent" / "run.json").read_text())["config"]["extend"] is False
    code, _, err = command(capsys, "propagate", clip, "--labels", file, "--unlabelled", "gone")
    assert code == 2 and "gone" in err and "absent" in err
