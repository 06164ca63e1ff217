"""A labelling on disk: begun, gone on with, kept from others, and never lost."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from page_samples import HEIGHT, N_FRAMES, SKELETON, WIDTH

from posewarper.errors import LabelsError, OutputError
from posewarper.files import sha256_of
from posewarper.formats.labels import read_labels, write_labels, write_poses
from posewarper.formats.records import LabelFile
from posewarper.review.edits import Refused
from posewarper.review.session import Session, Stale
from posewarper.review.shown import PREDICTED
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track

PLACE = {"op": "place", "track": 0, "frame": 3, "keypoint": 0, "xy": [1.5, 2.5]}


def edit(session, *operations):
    return session.edit(list(operations), "", session.history.revision)


def wait_for(path, seconds=3.0):
    until = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    return path.exists()


def some_poses(labelled=(2, 8)) -> Poses:
    frames = np.arange(N_FRAMES)
    keypoints = 10 + frames[:, None, None] + np.arange(6, dtype=float).reshape(3, 2)
    track = Track(
        frames,
        keypoints,
        labelled=np.repeat(np.isin(frames, labelled)[:, None], 3, 1),
        keypoint_scores=np.full((N_FRAMES, 3), 0.9),
        expected_error=np.where(frames == 5, 30.0, 1.0)[:, None].repeat(3, 1),
    )
    return Poses(SKELETON, {0: track}, (HEIGHT, WIDTH), N_FRAMES, np.array(labelled))


@pytest.mark.filterwarnings("ignore:.*never labelled")
def test_every_edit_is_on_disk_before_it_is_told_and_labels_follow(session):
    edit(session, PLACE)
    entry = json.loads(session.log.path.read_text().splitlines()[-1])
    assert entry["operation"] == "place" and entry["origin"] == "placed"
    assert entry["video"] == session.sha256 and entry["time"]
    assert entry["changes"] == [
        {"track": 0, "frame": 3, "before": None, "after": [[1.5, 2.5, 2], None, None]}
    ]
    assert wait_for(session.labels_path, 1.0)
    labels = read_labels(session.labels_path)
    assert labels.labelled_frames.tolist() == [3]
    assert labels.tracks[0].labelled.tolist() == [[True, False, False]]


def test_labels_go_when_the_last_of_them_is_undone(session):
    edit(session, PLACE)
    assert wait_for(session.labels_path)
    edit(session, {"op": "undo"})
    until = time.monotonic() + 3
    while session.labels_path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not session.labels_path.exists()


def test_a_second_page_is_refused(session, clip):
    with pytest.raises(OutputError, match="another page"):
        Session(clip, session.out)


def test_what_was_done_is_there_again(clip, tmp_path):
    first = Session(clip, tmp_path / "out", skeleton=SKELETON)
    edit(first, PLACE)
    edit(first, PLACE | {"xy": [9, 9]})
    edit(first, {"op": "undo"})
    first.close()
    again = Session(clip, tmp_path / "out")
    try:
        assert again.labelling == first.labelling
        assert again.history.to_redo is not None
        edit(again, {"op": "redo"})
        assert again.labelling.marks(0, 3)[0] == (9.0, 9.0, 2)
    finally:
        again.close()


def test_given_labels_are_copied_and_never_touched(clip, labels, tmp_path):
    before = sha256_of(labels), labels.stat().st_mtime_ns
    opened = Session(clip, tmp_path / "out", labels=labels)
    assert opened.labelling.labelled_frames == [2, 8]
    edit(opened, PLACE)
    opened.close()
    assert (sha256_of(labels), labels.stat().st_mtime_ns) == before
    made = read_labels(opened.labels_path)
    assert made.labelled_frames.tolist() == [2, 3, 8]
    given = read_labels(labels)
    for row, frame in enumerate((2, 8)):
        at = made.tracks[0].frames.tolist().index(frame)
        assert made.tracks[0].keypoints[at].tobytes() == given.tracks[0].keypoints[row].tobytes()
    labels.unlink()  # the copy is enough
    again = Session(clip, tmp_path / "out")
    assert again.labelling.labelled_frames == [2, 3, 8]
    again.close()


def test_another_label_file_or_skeleton_does_not_fit_a_labelling_that_is_there(clip, labels, tmp_path):
    opened = Session(clip, tmp_path / "out", labels=labels)
    own = opened.labels_path
    opened.close()
    for fine in (labels, own):
        Session(clip, tmp_path / "out", labels=fine).close()
    given = read_labels(labels)
    write_labels(tmp_path / "other.json", replace(given, tracks={0: given.tracks[0].at([2])}))
    with pytest.raises(OutputError, match="other labels"):
        Session(clip, tmp_path / "out", labels=tmp_path / "other.json")
    with pytest.raises(LabelsError, match="other keypoints"):
        Session(clip, tmp_path / "out", skeleton=Skeleton(("x",)))
    (tmp_path / "out" / "label" / "given.json").write_text("{}")
    with pytest.raises(OutputError, match="copy of the labels"):
        Session(clip, tmp_path / "out")


def test_edits_of_another_video_are_refused(session, tmp_path, clip):
    edit(session, PLACE)
    session.log.close()
    text = session.log.path.read_text().replace(session.sha256, "0" * 64)
    session.close()
    session.log.path.write_text(text)
    with pytest.raises(OutputError, match="another video"):
        Session(clip, session.out)
    session.log.path.unlink()


def test_labels_of_another_size_are_refused(clip, tmp_path):
    wrong = Labels(SKELETON, {0: Track([1], np.ones((1, 3, 2)))}, image_size=(10, 10), n_frames=N_FRAMES)
    write_labels(tmp_path / "wrong.json", wrong)
    with pytest.raises(LabelsError, match="another size"):
        Session(clip, tmp_path / "out", labels=tmp_path / "wrong.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:.*never labelled")
@pytest.mark.parametrize("left", [None, b"", b'{"operation":"beg'])
def test_labels_whose_log_is_lost_are_begun_from_and_never_removed(clip, labels, tmp_path, left):
    opened = Session(clip, tmp_path / "out", labels=labels)
    edit(opened, PLACE)
    opened.close()
    if left is None:
        opened.log.path.unlink()
    else:
        opened.log.path.write_bytes(left)
    with pytest.raises(OutputError, match="log of edits is not there"):
        Session(clip, tmp_path / "out", labels=labels)
    again = Session(clip, tmp_path / "out")
    assert again.labelling.labelled_frames == [2, 3, 8]
    again.close()
    assert read_labels(again.labels_path).labelled_frames.tolist() == [2, 3, 8]


def test_how_the_labels_are_read_is_kept(clip, tmp_path):
    keypoints = np.arange(12, dtype=float).reshape(2, 3, 2) + 10
    keypoints[1, 2] = np.nan
    made = Labels(SKELETON, {0: Track([2, 8], keypoints)}, image_size=(HEIGHT, WIDTH))
    write_labels(tmp_path / "some.json", made, format="coco")
    absent = LabelFile(tmp_path / "some.json", unlabelled="absent")
    opened = Session(clip, tmp_path / "out", labels=absent)
    assert opened.labelling.marks(0, 8)[2] == 0
    opened.close()
    again = Session(clip, tmp_path / "out", labels=absent)
    assert again.labelling.marks(0, 8)[2] == 0
    again.close()
    with pytest.raises(OutputError, match="other labels"):
        Session(clip, tmp_path / "out", labels=tmp_path / "some.json")
    other = Session(clip, tmp_path / "other", labels=tmp_path / "some.json")
    assert other.labelling.marks(0, 8)[2] is None
    other.close()


@pytest.mark.parametrize("damaged", [b"", b"[]", b"\xff", b'{"status": 5}'])
def test_a_damaged_list_of_doubts_does_not_keep_anybody_from_labelling(clip, tmp_path, damaged):
    (tmp_path / "out" / "label").mkdir(parents=True)
    (tmp_path / "out" / "label" / "doubts.json").write_bytes(damaged)
    opened = Session(clip, tmp_path / "out", skeleton=SKELETON)
    assert all(each["status"] == "open" for each in opened.doubts())
    opened.close()


@pytest.mark.filterwarnings("ignore:.*never labelled")
def test_labels_of_a_folder_of_frames_name_its_files(tmp_path):
    (tmp_path / "frames").mkdir()
    for n in range(3):
        image = np.full((HEIGHT, WIDTH, 3), 20 * n, np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"img{10 + 2 * n}.png"), image)
    opened = Session(tmp_path / "frames", tmp_path / "out", skeleton=SKELETON)
    edit(opened, {**PLACE, "frame": 1})
    opened.close()
    image = json.loads(opened.labels_path.read_text())["images"][0]
    assert image["frame_id"] == 1 and image["file_name"] == "img12.png"
    again = Session(tmp_path / "frames", tmp_path / "other", labels=opened.labels_path)
    assert again.labelling.labelled_frames == [1]
    again.close()


def test_a_folder_of_results_shows_its_poses_labels_and_doubts(clip, tmp_path):
    write_poses(tmp_path / "poses.json", some_poses())
    opened = Session(clip, tmp_path)
    try:
        assert opened.labelling.labelled_frames == [2, 8]
        block = np.frombuffer(opened.block(0, N_FRAMES - 1), np.float32).reshape(N_FRAMES, 1, 3, -1)
        assert block[5, 0, :, 0].tolist() == [15, 17, 19] and (block[5, 0, :, -1] == PREDICTED).all()
        assert block[5, 0, 0, 3] == 30
        doubts = opened.doubts()
        assert doubts[0]["frame"] == 5 and "off by 30 pixels" in doubts[0]["reasons"][0]
        x, y, width, height = doubts[0]["box"]
        assert x >= 0 and x + width <= WIDTH and y >= 0 and y + height <= HEIGHT
        opened.set_status(doubts[0]["id"], "skipped")
        assert edit(opened, {"op": "accept", "track": 0, "frame": 5})["frames"] == [5]
        assert opened.labelling.marks(0, 5)[0] == (15.0, 16.0, 2)
    finally:
        opened.close()
    again = Session(clip, tmp_path)
    assert again.doubts()[0]["status"] == "skipped"
    again.close()


def test_a_doubt_is_done_when_its_frame_is_labelled_and_open_again_after_undo(clip, tmp_path):
    write_poses(tmp_path / "poses.json", some_poses())
    opened = Session(clip, tmp_path)
    edit(opened, PLACE | {"frame": 5})
    assert opened.doubts()[0]["status"] == "done"
    edit(opened, {"op": "undo"})
    assert opened.doubts()[0]["status"] == "open"
    opened.close()


def test_what_is_behind_or_makes_no_sense_changes_nothing(session):
    with pytest.raises(Stale):
        session.edit([PLACE], "", 0)
    with pytest.raises(Refused):
        edit(session, {"op": "undo"}, {"op": "undo"})
    with pytest.raises(Refused):
        session.run("quick")
    with pytest.raises(Refused):
        session.run("fast", model=True)
    assert session.history.revision == 1


def test_a_disk_that_is_full_for_labels_is_said_and_tried_again(session, monkeypatch):
    from posewarper.review import session as module

    told = []
    session.listen(lambda event, values: told.append((event, values.get("save_error"))))

    def full(*arguments, **named):
        raise OSError(28, "No space left on device", "labels.json")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_labels", full)
        edit(session, PLACE)
        until = time.monotonic() + 3
        while session.save_error is None and time.monotonic() < until:
            time.sleep(0.02)
        assert "No space left" in (session.save_error or "")
    assert any(event == "state" and problem for event, problem in told)
    assert wait_for(session.labels_path, 5.0)
    assert session.history.revision == 2


@pytest.mark.filterwarnings("ignore:.*never labelled")
def test_labels_are_written_by_one_at_a_time(session):
    edit(session, PLACE)
    failed: list[Exception] = []

    def save() -> None:
        try:
            for _ in range(30):
                session.save()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=save) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and read_labels(session.labels_path).labelled_frames.tolist() == [3]


def test_frames_to_label_are_suggested_before_any_label_and_after(session):
    def suggested():
        return [each for each in session.doubts() if each["kind"] == "suggestion"]

    def wait(holds):
        until = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < until
            time.sleep(0.05)

    wait(suggested)
    first = suggested()[0]
    assert first["track"] is None and first["reasons"][0].endswith(".") and first["status"] == "open"
    edit(session, PLACE | {"frame": first["frame"]})
    assert suggested()[0]["status"] == "done"
    session.suggest()
    wait(lambda: suggested() and first["frame"] not in [each["frame"] for each in suggested()])
    assert "gap" in suggested()[0]["reasons"][0] or "frames" in suggested()[0]["reasons"][0]
    session.set_status(suggested()[0]["id"], "skipped")
    assert suggested()[0]["status"] == "skipped"


def test_predictions_without_any_label_begin_a_labelling(clip, tmp_path):
    poses = some_poses(labelled=())
    write_poses(tmp_path / "poses.json", replace(poses, tracks={0: poses.tracks[0], 4: poses.tracks[0]}))
    opened = Session(clip, tmp_path)
    try:
        assert opened.labelling.skeleton == SKELETON and opened.tracks == [0, 4]
        assert opened.labelling.labelled_frames == [] and opened.labels() is None
        block = np.frombuffer(opened.block(5, 5), np.float32).reshape(2, 3, -1)
        assert (block[..., -1] == PREDICTED).all()
        edit(opened, {"op": "accept", "track": 4, "frame": 5})
        edit(opened, {"op": "remove_track", "track": 0})
        assert opened.tracks == [4]
    finally:
        opened.close()


def test_the_command_is_that_of_the_command_line(session):
    words = session.command("normal", model=False, extend=True, further=False)
    assert words[:2] == ["propagate", str(session.video)]
    assert words[words.index("--labels") + 1] == str(session.labels_path)
    assert "--extend" in words and "--no-keep-training" in words
    assert "--no-keep-training" not in session.command("fast", model=False, extend=False, further=False)
    again = session.command("best", model=True, extend=False, further=False)
    assert again[again.index("--model") + 1] == str(session.out / "model.pt")
    assert "--learn" not in again and "--no-keep-training" not in again
    # A model that is replaced is trained further from a copy of it.
    words = session.command("normal", model=True, extend=False, further=False, learn=True)
    assert words[words.index("--model") + 1] == str(session.labels_path.with_name("model.pt"))
    assert "--learn" in words and "--no-keep-training" in words
