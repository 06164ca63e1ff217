"""Result files and submissions: what is listed, whose tracks, all or nothing, the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from table_samples import EARS, assert_same, sample_table

from posewarper.errors import ConfigError, LabelsError, OutputError
from posewarper.posetrack.results import (
    on_frames,
    paper_scores,
    result_document,
    submission_tracks,
    write_results,
    write_submission,
)
from posewarper.posetrack.tables import read_tables
from posewarper.structures import NO_TRACK, InstanceTable

NOBODY = [
    {
        "annopoints": [{"point": [{"id": [0], "x": [0], "y": [0], "score": [-100.0]}]}],
        "score": [0],
        "track_id": [0],
    }
]


def _crowd(rows: list[int], tracks: list[int] | None = None) -> InstanceTable:
    keypoints = np.zeros((len(rows), 17, 2))
    keypoints[:, EARS] = np.nan
    scores = np.where(np.isnan(keypoints[..., 0]), np.nan, 0.5)
    return sample_table(
        rows=rows,
        keypoints=keypoints,
        keypoint_scores=scores,
        scores=np.full(len(rows), 0.75),
        tracks=tracks,
        boxes=None,
        head_boxes=None,
        ignore_regions={},
    )


def test_scores_are_multiplied() -> None:
    table = sample_table()
    ours = paper_scores(table)
    assert ours.keypoint_scores[0, 5] == 5 / 64 * 0.5 and ours.keypoint_scores[1, 1] == 18 / 64 * 0.25
    # Without a box score, as an annotated box is, the heatmap's maximum stays.
    assert ours.keypoint_scores[2, 2] == table.keypoint_scores[2, 2] and ours.scores.tolist() == [
        0.5,
        0.25,
        1,
    ]


def test_the_original_lists_the_frames_of_the_ground_truth() -> None:
    predicted = _crowd([0, 2, 2, 3])
    # The ground truth lacks frame 2, numbers from 1 and has a frame that nobody predicted on.
    names = (predicted.frame_names[3], "val/000342_mpii_test/000099.jpg", *predicted.frame_names[:2])
    truth = sample_table(frame_names=names, frame_numbers=[4, 100, 1, 2], is_labelled=[0, 0, 0, 1]).take([])
    frames = result_document(predicted, truth)["annolist"]
    assert [frame["image"] for frame in frames] == [{"name": name} for name in names]
    assert [frame["imgnum"] for frame in frames] == [[4], [100], [1], [2]]
    assert [frame["annorect"] == NOBODY for frame in frames] == [False, True, False, True]
    person = frames[0]["annorect"][0]
    assert person["score"] == [0.75] and person["track_id"] == [1]
    assert [len(frame["annorect"]) for frame in frames] == [1, 1, 1, 1]
    assert [f["imgnum"] for f in result_document(predicted)["annolist"]] == [[0], [1], [2], [3]]


def test_predictions_on_strange_frames_are_told() -> None:
    elsewhere = sample_table(frame_names=("a/0.jpg", "a/1.jpg", "a/2.jpg", "a/3.jpg"))
    with pytest.raises(
        LabelsError, match=r"names like a/0\.jpg(.|\n)*names like val/000342_mpii_test/000000"
    ):
        result_document(sample_table(), elsewhere)
    assert on_frames(sample_table().take([]), elsewhere).frame_names == elsewhere.frame_names
    assert_same(on_frames(sample_table(), sample_table()), sample_table())


@pytest.mark.parametrize(
    ("rows", "tracks", "expected"),
    [
        ([0, 2, 2, 0, 3], None, [0, 0, 1, 1, 0]),  # numbered within the frame
        ([0, 0, 1], [5, 999, 0], [5, 999, 0]),
        ([0, 0, 1], [5, 7000, 5], [0, 1, 0]),  # too large: numbered anew
        ([0, 0, 1], [5, NO_TRACK, NO_TRACK], [5, 6, 7]),
        ([], None, []),
    ],
)
def test_tracks_of_submissions(rows: list[int], tracks: list[int] | None, expected: list[int]) -> None:
    assert submission_tracks(_crowd(rows, tracks)).tolist() == expected


def test_tracks_that_a_server_would_refuse() -> None:
    with pytest.raises(LabelsError, match=r"track 4 is twice in frame val/000342_mpii_test/000002\.jpg"):
        submission_tracks(_crowd([0, 2, 2], [4, 4, 4]))
    assert submission_tracks(_crowd([1] * 1000)).max() == 999
    with pytest.raises(LabelsError, match=r"0 to 999(.|\n)*1001"):
        submission_tracks(_crowd([1] * 1001))
    with pytest.raises(LabelsError, match="1001 tracks"):
        submission_tracks(_crowd([0] * 501 + [1] * 500, list(range(1001))))


@pytest.mark.parametrize("kind", ["posetrack17", "posetrack18", "posetrack21"])
def test_a_submission_is_the_same_bytes_again(tmp_path: Path, kind: str) -> None:
    tables = {"b": _crowd([0, 2, 2]), "a": _crowd([1])}
    write_submission(tmp_path / "s.zip", tables, kind=kind)
    write_submission(tmp_path / "t.zip", dict(reversed(tables.items())), kind=kind)
    assert (tmp_path / "s.zip").read_bytes() == (tmp_path / "t.zip").read_bytes()
    read = read_tables(tmp_path / "s.zip")
    assert list(read) == ["a", "b"]
    assert read["b"].tracks.tolist() == [0, 0, 1]
    but = ("tracks", "image_ids", "n_frames", "image_size")
    if kind == "posetrack17":
        assert_same(read["b"], tables["b"], but=but)
        assert read["b"].n_frames is None
    else:
        assert_same(read["b"], tables["b"], but=("tracks",))


def test_a_submission_holds_no_boxes_and_needs_scores(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="nose without a score"):
        write_submission(tmp_path / "s.zip", {"a": sample_table(keypoint_scores=None)}, kind="posetrack17")
    write_submission(tmp_path / "s.zip", {"a": sample_table()}, kind="posetrack18")
    table = read_tables(tmp_path / "s.zip")["a"]
    assert np.isnan(table.boxes).all() and np.isnan(table.head_boxes).all() and not table.ignore_regions
    with pytest.raises(ConfigError, match="do not take the original's"):
        write_submission(tmp_path / "s.zip", {"a": sample_table()}, kind="paper")
    with pytest.raises(ConfigError, match="posetrack17, posetrack18"):
        write_submission(tmp_path / "s.zip", {"a": sample_table()}, kind="coco")


def test_results_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "results"
    truth = {"a": sample_table(), "b": sample_table()}
    write_results(out, {"a": _crowd([0])}, ground_truth=truth)
    assert sorted(p.name for p in out.iterdir()) == ["a.json", "b.json"]
    frames = json.loads((out / "b.json").read_text())["annolist"]
    assert [frame["annorect"] for frame in frames] == [NOBODY] * 4
    before = (out / "a.json").read_bytes()
    with pytest.raises(LabelsError, match="track 1 is twice"):
        write_results(out, {"a": _crowd([0]), "b": _crowd([0, 0], [1, 1])}, kind="posetrack17")
    assert (out / "a.json").read_bytes() == before
    write_results(out, {"a": _crowd([0]), "b": _crowd([3])}, kind="posetrack18")
    assert read_tables(out)["b"].rows.tolist() == [3]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        write_results(out, {"a": _crowd([0]), "b": _crowd([3])})
    assert list(tmp_path.iterdir()) == [out]


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"expected: a, b(.|\n)*got:      c"):
        write_results(tmp_path / "x", {"c": _crowd([0])}, ground_truth={"a": _crowd([]), "b": _crowd([])})
    for name in ("bonn/000001", "", "..", "a\\b"):
        with pytest.raises(LabelsError, match="no file name"):
            write_results(tmp_path / "x", {name: _crowd([0])})
    assert not list(tmp_path.iterdir())
