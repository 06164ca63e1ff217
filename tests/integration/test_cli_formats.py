"""``posewarper convert`` between formats, as a user runs it: folders, times, scores, real files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from moving_clip import N_FRAMES, command, some_labels, write_clip

from posewarper.formats.catalogue import FORMATS
from posewarper.formats.labels import read_annotations, read_labels, write_labels
from posewarper.skeletons import PRESETS
from posewarper.structures import Labels, Track


@pytest.fixture
def scored(tmp_path) -> Path:
    """Labels of a network on every frame of the clip: scores fall from 0.9 to 0.6, the tail's are 0.2."""
    labels = some_labels(range(N_FRAMES))
    scores = np.linspace(0.9, 0.6, N_FRAMES)[:, None] * np.ones((1, 4))
    scores[:, 3] = 0.2
    track = labels.tracks[0]
    scored = Track(track.frames, track.keypoints, visibility=track.visibility, keypoint_scores=scores)
    path = tmp_path / "scored.json"
    write_labels(path, Labels(labels.skeleton, {0: scored}, n_frames=N_FRAMES, video="clip.mp4"))
    return path


def test_the_help_names_every_format_and_skeleton(capsys):
    code, out, _ = command(capsys, "convert", "--help")
    said = " ".join(out.replace("\u2502", " ").split())
    assert code == 0
    said_of = ("{}:", "{} the", "{} (")
    assert all(any(how.format(name) in said for how in said_of) for name in FORMATS)
    assert all(name in said for name in PRESETS)


def test_low_scores_are_dropped_and_labels_thinned(capsys, scored, tmp_path):
    out = tmp_path / "out.json"
    code, said, err = command(capsys, "convert", scored, out, "--min-score", 0.7, "--every", 5)
    assert (code, err) == (0, "")
    assert said == f"wrote {out}: 4 labelled frames, 1 track, 4 keypoints (posetrack)\n"
    kept = read_annotations(out)
    assert kept.labelled_frames.tolist() == [2, 7, 12, 17]  # on the last the network is too unsure
    assert kept.tracks[0].frames.tolist() == [2, 7, 12]
    np.testing.assert_array_equal(kept.tracks[0].visibility, [[2, 2, 2, 0]] * 3)
    assert np.isnan(kept.tracks[0].keypoint_scores[:, 3]).all()
    code, _, err = command(capsys, "convert", scored, out, "--min-score", 0.95, "--overwrite")
    assert code == 2 and "0.9, the highest score" in err and "--min-score" in err
    # Labels by a person have no scores, and stay.
    write_labels(tmp_path / "human.json", some_labels())
    assert command(capsys, "convert", tmp_path / "human.json", out, "--min-score", 0.9, "--overwrite")[0] == 0
    assert read_labels(out).tracks[0].frames.tolist() == [3, 10, 16]


def test_there_and_back_through_a_folder(capsys, scored, tmp_path):
    folder = tmp_path / "json"
    code, said, err = command(capsys, "convert", scored, folder, "--to", "openpose")
    assert code == 0 and "(openpose)" in said and "cannot hold" in err
    assert len(list(folder.iterdir())) == N_FRAMES
    code, _, err = command(capsys, "convert", scored, folder, "--to", "openpose")
    assert code == 2 and "--overwrite" in err
    assert command(capsys, "convert", scored, folder, "--to", "openpose", "--overwrite")[0] == 0
    code, said, err = command(capsys, "info", folder)
    assert code == 0 and "openpose" in said and "keypoint_3" in said
    code, _, err = command(capsys, "convert", folder, tmp_path / "back.json")
    assert code == 0 and "keypoint_0" in err
    before, after = (read_annotations(path).tracks[0] for path in (scored, tmp_path / "back.json"))
    np.testing.assert_array_equal(before.keypoints, after.keypoints)
    np.testing.assert_array_equal(before.keypoint_scores, after.keypoint_scores)


def test_times_come_from_the_video_and_lead_back_to_the_frames(capsys, scored, tmp_path):
    clip = write_clip(tmp_path)
    table, times = tmp_path / "table.csv", tmp_path / "times.csv"
    assert command(capsys, "convert", scored, table, "--to", "csv", "--video", clip)[0] == 0
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert rows[0][:2] == ["frame", "time"]
    assert float(rows[-1][1]) == pytest.approx((N_FRAMES - 1) / 25)
    times.write_text("\n".join(",".join(row[1:]) for row in rows))
    code, _, err = command(capsys, "convert", times, tmp_path / "back.json")
    assert code == 2 and "--video" in err
    assert command(capsys, "convert", times, tmp_path / "back.json", "--video", clip)[0] == 0
    before, after = (read_annotations(path).tracks[0] for path in (scored, tmp_path / "back.json"))
    np.testing.assert_array_equal(before.frames, after.frames)
    np.testing.assert_array_equal(before.keypoints, after.keypoints)


def test_an_offset_moves_what_networks_labelled_out_of_the_video(capsys, scored, tmp_path):
    clip = write_clip(tmp_path)
    out = tmp_path / "out.json"
    code, _, err = command(capsys, "convert", scored, out, "--frame-offset", 1, "--video", clip)
    assert code == 0 and "beyond the last one; they are left out: 1" in err
    assert read_labels(out).labelled_frames.tolist() == list(range(1, N_FRAMES))
    # What may come from a person is not left out.
    write_labels(tmp_path / "human.json", some_labels(range(N_FRAMES)))
    code, _, err = command(
        capsys, "convert", tmp_path / "human.json", out, "--frame-offset", 1, "--overwrite"
    )
    assert code == 2 and "beyond the last frame" in err


def test_the_real_files_of_openpose(capsys, shared_data, tmp_path):
    """They are what the labels of the clip were made of, one frame later."""
    balancing = shared_data / "balancing"
    with zipfile.ZipFile(balancing / "openpose" / "cam01_json.zip") as archive:
        archive.extractall(tmp_path)
    out = tmp_path / "labels.json"
    arguments = ("convert", tmp_path / "cam01_json", out, "--frame-offset", 1, "--skeleton", "body_25b")
    code, said, err = command(capsys, *arguments, "--video", balancing / "cam01.mp4")
    assert code == 0 and said.endswith("25 keypoints (posetrack)\n")
    # On file 37 OpenPose found the mover in two parts.
    assert "left out: 1" in err and "were joined: 1" in err and "into 2 tracks" in err
    ours, given = read_labels(out), read_labels(balancing / "cam01.json")
    assert ours.skeleton.names == given.skeleton.names
    assert ours.labelled_frames.tolist() == given.labelled_frames.tolist() == list(range(1, 100))
    ours, given = ours.tracks[0], given.tracks[0]
    assert ours.frames.tolist() == given.frames.tolist()
    seen = given.visibility == 2
    assert seen.mean() > 0.9
    # The labels were written with two digits behind the point.
    np.testing.assert_allclose(ours.keypoints[seen], given.keypoints[seen], rtol=0, atol=0.005 + 1e-9)
    np.testing.assert_allclose(
        ours.keypoint_scores[seen], given.keypoint_scores[seen], rtol=0, atol=0.0005 + 1e-9
    )
    assert (given.keypoint_scores[seen] > 0.3).all()


@pytest.mark.parametrize(
    ("name", "form", "wanted"),
    [
        ("out.csv", "sleap", ".slp"),
        ("clip.mp4", "coco", ".json"),
        ("project", "deeplabcut", ".csv or .h5"),
        ("labels", "posetrack", ".json"),
    ],
)
def test_a_file_gets_a_name_by_which_others_know_it(capsys, scored, tmp_path, name, form, wanted):
    code, _, err = command(capsys, "convert", scored, tmp_path / name, "--to", form)
    assert code == 2 and f"a name that ends in {wanted}" in err and not (tmp_path / name).exists()


def test_swapped_arguments_are_told(capsys, scored, tmp_path):
    clip = write_clip(tmp_path)
    for words in (("info", scored, "--labels", clip), ("propagate", scored, "--labels", clip)):
        code, _, err = command(capsys, *words)
        assert code == 2 and "as VIDEO" in err, err
    code, _, err = command(capsys, "convert", clip, tmp_path / "out.json")
    assert code == 2 and "this looks like a video" in err and str(clip) in err


def test_labels_that_name_another_video_are_told(capsys, scored, tmp_path):
    write_clip(tmp_path).rename(tmp_path / "other.mp4")
    code, _, err = command(capsys, "info", tmp_path / "other.mp4", "--labels", scored)
    assert code == 0 and "the labels name the video clip.mp4, and this is other.mp4" in err
    (tmp_path / "other.mp4").rename(tmp_path / "clip.mp4")
    code, _, err = command(capsys, "info", tmp_path / "clip.mp4", "--labels", scored)
    assert code == 0 and "name the video" not in err
