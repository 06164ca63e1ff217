"""Recordings of Rerun: what they hold by Rerun's own reader, and what is refused before the work."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from posewarper import open_video
from posewarper.cli.videos import VideoJob, check_rerun
from posewarper.errors import ConfigError, LabelsError, OutputError
from posewarper.reporting.rerun import check_recording, write_recording
from posewarper.skeletons import Skeleton
from posewarper.structures import Poses, Track

SIZE = 24, 32
NAN = np.nan


def poses(image_size: tuple[int, int] = SIZE) -> Poses:
    first = Track(
        np.arange(4),
        np.arange(24, dtype=float).reshape(4, 3, 2),
        keypoint_scores=np.full((4, 3), 0.5),
        expected_error=np.arange(12, dtype=float).reshape(4, 3),
    )
    second = Track(np.array([1, 3]), np.array([[[5.0, 6], [NAN, NAN], [7, 8]]] * 2))
    skeleton = Skeleton(("nose", "ear", "tail"), ((0, 1), (0, 2)), name="mouse")
    return Poses(skeleton, {0: first, 7: second}, image_size, 4, np.array([2]), "clip.mp4")


@pytest.fixture
def frames() -> Any:
    pictures = np.zeros((4, *SIZE, 3), np.uint8)
    pictures[..., 0] = 60 * np.arange(4)[:, None, None]
    with open_video(pictures) as video:
        yield video


def test_a_recording_holds_frames_skeletons_and_expected_errors(tmp_path: Path, frames: Any) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk (the extra rerun) is not installed")
    reader = pytest.importorskip("rerun.chunk", reason="this rerun-sdk has no reader of recordings")
    write_recording(tmp_path / "r.rrd", frames, poses(), span=range(1, 4))
    rows: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for chunk in reader.RrdReader(tmp_path / "r.rrd").stream().to_chunks():
        table = chunk.to_record_batch().to_pydict()
        at = table.get("frame", [-1] * chunk.num_rows)
        for name, values in table.items():
            known = [(frame, value) for frame, value in zip(at, values, strict=True) if value is not None]
            rows.setdefault((str(chunk.entity_path), name), []).extend(known)
    positions = dict(rows["/frame/track_0", "Points2D:positions"])
    assert sorted(positions) == [1, 2, 3]
    np.testing.assert_array_equal(positions[2], np.arange(12, 18).reshape(3, 2) + 0.5)  # Rerun's corner is 0
    other = dict(rows["/frame/track_7", "Points2D:positions"])
    np.testing.assert_array_equal(other[1], [[5.5, 6.5], [7.5, 8.5]])
    assert dict(rows["/frame/track_7", "Points2D:keypoint_ids"])[1] == [0, 2]
    assert [frame for frame, _ in rows["/frame/track_7", "Clear:is_recursive"]] == [2]
    assert dict(rows["/expected_error/track_0", "Scalars:scalars"])[3] == [9, 10, 11]
    assert dict(rows["/score/track_0", "Scalars:scalars"])[1] == [0.5] * 3
    assert ("/expected_error/track_7", "Scalars:scalars") not in rows  # nobody knows them
    assert rows["/expected_error/track_0", "SeriesLines:names"] == [(-1, ["nose", "ear", "tail"])]
    assert dict(rows["/labelled", "Scalars:scalars"]) == {1: [0], 2: [1], 3: [0]}
    (context,) = (value for _, value in rows["/", "AnnotationContext:context"])
    assert "tail" in str(context)
    blob = dict(rows["/frame", "EncodedImage:blob"])[3]
    blob = blob[0] if isinstance(blob, list) and isinstance(blob[0], list | bytes) else blob
    picture = np.asarray(PIL.Image.open(io.BytesIO(bytes(blob))))
    assert picture.shape == (*SIZE, 3) and abs(int(picture[0, 0, 0]) - 180) < 8


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigError, match=r"ends in \.rrd"):
        check_recording(tmp_path / "r.mp4", overwrite=False)
    with pytest.raises(ConfigError, match="not installed") as raised:
        check_recording(tmp_path / "r.rrd", overwrite=False)
    assert "posewarper[rerun]" in str(raised.value)
    (tmp_path / "r.rrd").write_text("mine")
    with pytest.raises(OutputError, match="already"):
        check_recording(tmp_path / "r.rrd", overwrite=False)
    with pytest.raises(ConfigError, match="many videos"):
        check_rerun(tmp_path / "r.rrd", [VideoJob("a.mp4")], tmp_path / "out", overwrite=False)
    check_rerun(None, [VideoJob("a.mp4")], tmp_path / "out", overwrite=False)


def test_a_resumed_run_writes_its_recording_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", sys)  # as if it were installed
    (tmp_path / "r.rrd").write_text("of the stopped run")
    (tmp_path / "out" / "parts").mkdir(parents=True)
    check_rerun(tmp_path / "r.rrd", None, tmp_path / "out", overwrite=False)
    check_rerun(tmp_path / "r.rrd", None, tmp_path / "new", overwrite=True)


def test_poses_of_another_size_are_refused(tmp_path: Path, frames: Any, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", sys)
    with pytest.raises(LabelsError, match="another size"):
        write_recording(tmp_path / "r.rrd", frames, poses((10, 10)))
    assert not list(tmp_path.iterdir())
