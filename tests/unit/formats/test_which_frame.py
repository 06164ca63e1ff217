"""Which number in the name of an image is the frame's: exports add hashes, copies, exposures and times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from label_documents import FakeVideo, write_coco

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.labels import read_labels
from posewarper.formats.records import LabelFile

FRAMES = [3, 12, 20]


def a_hash(frame: int) -> str:
    return hashlib.md5(b"%d" % frame).hexdigest()


def a_uuid(frame: int) -> str:
    h = a_hash(frame)
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


@pytest.mark.parametrize(
    "name",
    [
        lambda f: f"clip_mp4-{f}_jpg.rf.{a_hash(f)}.jpg",
        lambda f: f"frame_{f:06d}_PNG.rf.a1{f}Zz9{f}Q.png",
        lambda f: f"frame_{f:04d} ({f % 7 + 1}).png",
        lambda f: f"frame ({f}).png",
        lambda f: f"clip2 ({f}).png",
        lambda f: f"vid_frame_{f:04d}_exp{f % 5 + 10}.png",
        lambda f: f"vid_frame_{f:04d}_exp{f + 1}.png",
        lambda f: f"img{f:04d}_t-{f / 8 + 0.1:.1f}ms.png",
        lambda f: f"{f:04d}_{40 * f}ms.png",
        lambda f: f"{a_uuid(f)}_{f:04d}.png",
        lambda f: f"frame{f:04d}_{a_hash(f)[:10]}.png",
        lambda f: f"{a_hash(f)[:8]}-frame_{f:04d}.png",
        lambda f: f"2024-01-31_cam2_{f:04d}.png",
        lambda f: f"{f:04d}_640x480.png",
        lambda f: f"{f:04d}_aug{f + 2}.png",
        lambda f: f"clip.mp4_{f:05d}.png",
        lambda f: f"{f:04d}_{'running' if f % 2 else 'sitting'}.png",
    ],
)
def test_the_number_that_varies_as_an_index_is_the_frame(tmp_path: Path, name: Callable[[int], str]) -> None:
    labels = read_labels(write_coco(tmp_path / "labels.json", [name(f) for f in FRAMES]))
    assert labels.labelled_frames.tolist() == FRAMES


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("img0012.png", 12),
        ("img0012_exp13.png", 12),
        ("cam2_0012.png", 12),
        ("2024-01-31_0012.png", 12),
        ("7_0012.png", 12),
    ],
)
def test_of_a_single_image_the_words_tell(tmp_path: Path, name: str, frame: int) -> None:
    assert read_labels(write_coco(tmp_path / "labels.json", [name])).labelled_frames.tolist() == [frame]


@pytest.mark.parametrize(
    "names",
    [
        [f"{f}_{f + 5}.png" for f in FRAMES],
        [f"img{n}_t{f:04d}.png" for n, f in enumerate(FRAMES)],
        ["img0020_a1.png", "img0012_a2.png", "img0003_a3.png"],
        ["frame_0012_1.png", "frame_0012_2.png", "frame_0020_3.png"],
        [f"frame_00-0{n}-{f:02d}.png" for n, f in enumerate(FRAMES)],
        ["12_48.png"],
    ],
)
def test_two_readings_are_asked_about_and_the_answer_counts(tmp_path: Path, names: list[str]) -> None:
    path = write_coco(tmp_path / "labels.json", names)
    with pytest.raises(
        LabelsError, match=r"(?s)several numbers.*\(--frame-number [12]\) or .*fix:.*-1 for the last"
    ):
        read_labels(path)
    last = [int(name.rpartition(".")[0][-2:].lstrip("_-at")) for name in names]
    assert read_labels(LabelFile(path, frame_number=-1)).labelled_frames.tolist() == sorted(last)


def test_the_length_of_the_video_decides_between_frames_and_times(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "labels.json", [f"{f:04d}_{40 * f}.png" for f in FRAMES])
    with pytest.raises(LabelsError, match="several numbers"):
        read_labels(path)
    assert read_labels(path, video=FakeVideo(n_frames=24)).labelled_frames.tolist() == FRAMES
    # What is called a frame is not passed over because the video is too short: it is another video.
    path = write_coco(tmp_path / "labels.json", [f"frame_{100 * f}_{f}.png" for f in FRAMES])
    with pytest.raises(LabelsError, match="several numbers"):
        read_labels(path, video=FakeVideo(n_frames=24))


@pytest.mark.parametrize(
    "names",
    [
        ["clip.mp4#t=0.12.jpg", "clip.mp4#t=0.48.jpg", "clip.mp4#t=0.8.jpg"],
        ["a.png", "b.png", "c.png"],
    ],
)
def test_names_without_an_index_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(LabelsError, match=r"(?s)cannot tell which frame.*loose_images\.yaml"):
        read_labels(write_coco(tmp_path / "labels.json", names))


@pytest.mark.parametrize(
    "names",
    [
        ["frame_0012_jpg.rf.a1b2.jpg", "frame_0012_jpg.rf.c3d4.jpg", "frame_0020_jpg.rf.e5.jpg"],
        ["frame_0012 (1).png", "frame_0012 (2).png", "frame_0020 (3).png"],
    ],
)
def test_copies_of_one_frame_are_no_frames_of_their_own(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(LabelsError, match="same frame as another"):
        read_labels(write_coco(tmp_path / "labels.json", names))


@pytest.mark.parametrize("number", [0, 3, -3])
def test_a_number_that_is_not_there_is_refused(tmp_path: Path, number: int) -> None:
    with pytest.raises(LabelsError, match=f"has no number {number}\n.*1 to 2"):
        read_labels(LabelFile(write_coco(tmp_path / "labels.json", ["1_2.png"]), frame_number=number))


def test_places_in_a_folder_of_some_frames_are_told_where_the_video_is_opened(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "labels.json", [f"img{f:04d}.png" for f in FRAMES])
    document = json.loads(path.read_text())
    for place, image in enumerate(document["images"]):
        image["frame_id"] = place
    path.write_text(json.dumps(document))
    with pytest.warns(PosewarperWarning, match="img0003.png is frame 0"):
        read_labels(path, video=FakeVideo(24))
    # Names may count from 1.
    for place, image in enumerate(document["images"]):
        image["frame_id"] = FRAMES[place] - 1
    path.write_text(json.dumps(document))
    assert read_labels(path, video=FakeVideo(24)).labelled_frames.tolist() == [2, 11, 19]


def test_a_very_long_name_takes_no_time(tmp_path: Path) -> None:
    names = ["1a" * 100_000 + f"_{f:04d}.png" for f in FRAMES]
    assert read_labels(write_coco(tmp_path / "labels.json", names)).labelled_frames.tolist() == FRAMES
