"""What a label changes is solved anew in the background, close to what a run makes of the same labels."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from posewarper.fitting import propagate
from posewarper.formats.labels import read_labels, write_labels, write_poses
from posewarper.review.session import Session
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.writing import write_video

PLACES = np.array([[40.0, 40.0], [62.5, 30.25], [50.0, 48.0]])
SKELETON = Skeleton(("nose", "left_ear", "right_ear"), ((0, 1), (0, 2)))


class Page:
    """A session that has poses of a run, and waits for what is solved anew."""

    def __init__(self, clip: Path, out: Path) -> None:
        self.session = Session(clip, out)
        self.changed = threading.Condition()
        self.solved: list[list[int]] = []
        self.session.listen(self._hear)
        self.until(lambda: self.session.solver.kept is not None)

    def _hear(self, event, values) -> None:
        with self.changed:
            if event == "solved":
                self.solved.append(values["frames"])
            self.changed.notify_all()

    def until(self, holds) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, 60), (self.session.ready, self.solved)

    def edit(self, *operations) -> list[int]:
        before = len(self.solved)
        self.session.edit(list(operations), "", self.session.history.revision)
        self.until(lambda: len(self.solved) > before)
        return self.solved[-1]


@pytest.fixture
def labelled(picture, tmp_path):
    """A clip with exact labels on the frames 1, 8 and 14; returns (clip, labels)."""
    frames = [1, 8, 14]
    write_video(tmp_path / "clip.mp4", (picture.image(n) for n in range(picture.n_frames)), fps=25)
    track = Track(frames, picture.keypoints(PLACES, frames))
    labels = Labels(SKELETON, {0: track}, image_size=picture.size, n_frames=picture.n_frames)
    write_labels(tmp_path / "labels.json", labels)
    return tmp_path / "clip.mp4", tmp_path / "labels.json"


@pytest.fixture
def page(labelled, tmp_path):
    clip, labels = labelled
    result = propagate(clip, labels, effort="fast")
    (tmp_path / "out").mkdir()
    write_poses(tmp_path / "out" / "poses.json", result.poses)
    opened = Page(clip, tmp_path / "out")
    yield opened
    opened.session.close()


def place(frame, xy, keypoint=0, track=0):
    return {
        "op": "place",
        "track": track,
        "frame": frame,
        "keypoint": keypoint,
        "xy": [float(value) for value in xy],
    }


def points(page, track=0):
    return page.session.shown.tracks[track].keypoints


def test_neighbours_follow_a_label_and_the_others_stay(page, picture):
    before = points(page).copy()
    target = before[4, 0] + (6.0, -4.0)
    assert page.edit(place(4, target)) == list(range(1, 8))
    after = points(page)
    assert_array_equal(after[4, 0], target)
    moved = np.linalg.norm(after[:, 0] - before[:, 0], axis=-1)
    assert moved[3] > 1 and moved[5] > 1
    assert_array_equal(after[8:], before[8:])
    assert_array_equal(after[1], before[1])
    assert page.session.shown.provisional[0] == set(range(1, 8))
    # Where it was in the last run is told beside it, for the page to show.
    block = np.frombuffer(page.session.block(4, 4), np.float32).reshape(3, -1)
    assert_allclose(block[0, :2], target, rtol=1e-6)
    assert_allclose(block[0, 4:6], before[4, 0], rtol=1e-6)


def test_what_is_shown_is_close_to_what_a_run_makes(page, labelled):
    page.edit(place(4, points(page)[4, 0] + (5.0, 3.0)))
    page.edit(place(11, points(page)[11, 2] + (-4.0, 3.0), keypoint=2))
    page.edit({"op": "accept", "track": 0, "frame": 12})
    page.session.save()
    final = propagate(labelled[0], read_labels(page.session.labels_path), effort="fast").poses.tracks[0]
    shown = page.session.shown.tracks[0]
    assert_array_equal(shown.frames, final.frames)
    assert_array_equal(shown.labelled, final.labelled)
    assert np.linalg.norm(shown.keypoints - final.keypoints, axis=-1).max() < 1


def test_undo_brings_the_poses_back(page):
    before = points(page).copy()
    page.edit(place(4, before[4, 0] + (8.0, 8.0)))
    page.edit({"op": "undo"})
    assert_allclose(points(page), before, atol=0.05)


def test_a_track_that_is_not_there_has_no_poses_around(page):
    assert set(range(1, 15)) <= set(page.session.shown.tracks[0].frames.tolist())
    page.edit({"op": "delete", "track": 0, "frame": 4})
    assert not set(page.session.shown.tracks[0].frames.tolist()) & set(range(2, 8))
    page.edit({"op": "undo"})
    assert set(range(1, 15)) <= set(page.session.shown.tracks[0].frames.tolist())


def test_a_new_track_gets_poses_too(page, picture):
    page.session.edit([{"op": "add"}], "", page.session.history.revision)
    wanted = picture.keypoints(PLACES + np.array([9.0, 4.0]), [8])[0]
    page.edit(*(place(8, xy, keypoint=k, track=1) for k, xy in enumerate(wanted)))
    track = page.session.shown.tracks[1]
    exact = picture.keypoints(PLACES + np.array([9.0, 4.0]), track.frames)
    assert len(track.frames) > 10
    assert np.linalg.norm(track.keypoints - exact, axis=-1).max() < 1


def test_flow_is_kept_from_one_start_to_the_next(page, labelled, monkeypatch):
    page.edit(place(4, points(page)[4, 0] + (6.0, -4.0)))
    out = page.session.out
    page.session.close()
    from posewarper.propagation import clip

    monkeypatch.setattr(clip, "prepare_clip", None)
    again = Page(labelled[0], out)
    try:
        again.until(lambda: again.solved)  # what was labelled since the run is solved at once
        assert 4 in again.solved[0]
        assert again.session.shown.provisional[0]
    finally:
        again.session.close()


def test_what_was_solved_for_poses_of_an_earlier_run_is_not_shown(page, picture, monkeypatch):
    kept = page.session.solver.kept
    solve, begun, goes_on = type(kept).solve, threading.Event(), threading.Event()

    def slow(self, *arguments):
        begun.set()
        assert goes_on.wait(30)
        return solve(self, *arguments)

    monkeypatch.setattr(type(kept), "solve", slow)
    xy = (picture.keypoints(PLACES, [5])[0, 0] + 3).tolist()
    place = {"op": "place", "track": 0, "frame": 5, "keypoint": 0, "xy": xy}
    page.session.edit([place], "", page.session.history.revision)
    assert begun.wait(30)
    page.session.solver.renew(None, extend=False)  # a run has ended
    goes_on.set()
    page.until(lambda: page.session.solver.kept not in (None, kept))
    assert not kept.clip.chains[0].flow.store.close.alive  # Windows replaces no file that is open
    assert page.solved == [] and not page.session.shown.provisional
