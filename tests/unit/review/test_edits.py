"""Operations, undo and redo, and the log from which everything can be redone."""

from __future__ import annotations

import errno
import json
import os
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posewarper.errors import OutputError
from posewarper.review.edits import EditLog, History, Refused, apply, make_edit, stamped
from posewarper.review.labelling import GONE, Labelling
from posewarper.skeletons import Skeleton

SKELETON = Skeleton(("nose", "left_paw", "right_paw"), ((0, 1),))
N_FRAMES = 40


def nothing(track: int, frame: int):
    return [None] * 3


def something(track: int, frame: int):
    return [(10.0 * track + frame, 1.0), (20.0, 2.0), (30.0, 3.0)]


class Desk:
    """A labelling with its history, as a session has them."""

    def __init__(self, shown=nothing) -> None:
        self.labelling, self.history, self.shown = Labelling(SKELETON, names={0: "", 1: ""}), History(), shown

    def make(self, op: str, **values):
        return make_edit(self.labelling, [{"op": op, **values}], self.shown, N_FRAMES)

    def do(self, op: str, **values):
        return self.take(self.make(op, **values))

    def take(self, edit):
        apply(self.labelling, edit)
        self.history.add(edit)
        return edit

    def row(self, track: int, frame: int):
        return self.labelling.row(track, frame)


def test_a_keypoint_is_placed_alone():
    desk = Desk(something)
    edit = desk.do("place", track=0, frame=5, keypoint=1, xy=[3, 4.25])
    assert desk.row(0, 5) == (None, (3.0, 4.25, 2), None)
    assert edit.origin == "placed"
    desk.do("place", track=0, frame=5, keypoint=0, xy=[1, 1], state="hidden")
    assert desk.row(0, 5) == ((1.0, 1.0, 1), (3.0, 4.25, 2), None)


def test_states_go_all_the_way_round():
    desk = Desk(something)
    assert desk.do("state", track=0, frame=5, keypoint=1, state="hidden").origin == "accepted"
    assert desk.row(0, 5) == (None, (20.0, 2.0, 1), None)
    desk.do("state", track=0, frame=5, keypoint=1, state="absent")
    assert desk.row(0, 5) == (None, 0, None)
    desk.do("state", track=0, frame=5, keypoint=1, state="unseen")
    assert desk.row(0, 5) is None


def test_what_has_no_place_cannot_become_visible():
    with pytest.raises(Refused, match="no place"):
        Desk().do("state", track=0, frame=5, keypoint=1, state="visible")


def test_accepting_keeps_what_is_labelled():
    desk = Desk(something)
    desk.do("place", track=0, frame=5, keypoint=0, xy=[0, 0])
    desk.do("state", track=0, frame=5, keypoint=2, state="absent")
    assert desk.do("accept", track=0, frame=5).origin == "accepted"
    assert desk.row(0, 5) == ((0.0, 0.0, 2), (20.0, 2.0, 2), 0)


def test_a_track_is_deleted_on_a_frame_and_comes_back():
    desk = Desk(something)
    desk.do("delete", track=0, frame=5)
    assert desk.row(0, 5) == GONE
    desk.do("place", track=0, frame=5, keypoint=0, xy=[0, 0])
    assert desk.row(0, 5) == ((0.0, 0.0, 2), None, None)
    desk.do("forget", track=0, frame=5)
    assert desk.row(0, 5) is None


def test_sides_are_exchanged_over_a_window():
    desk = Desk(something)
    desk.do("place", track=0, frame=13, keypoint=1, xy=[7, 7])
    desk.do("exchange_sides", track=0, first=30, last=10)
    rows = dict(sorted(desk.labelling.rows[0].items()))
    assert min(rows) == 10 and max(rows) == 30
    assert max(b - a for a, b in pairwise(rows)) <= 8
    assert rows[10] == (None, (30.0, 3.0, 2), (20.0, 2.0, 2)), "the nose has no mirror image and stays open"
    assert rows[13] == (None, (30.0, 3.0, 2), (7.0, 7.0, 2)), "what is labelled goes with it"
    desk.take(desk.history.undo())
    assert list(desk.labelling.rows[0]) == [13]


def test_exchanging_twice_changes_nothing():
    desk = Desk(something)
    desk.do("accept", track=0, frame=10)
    before = json.dumps(desk.labelling.rows)
    for _ in range(2):
        desk.do("exchange_sides", track=0, first=10, last=10)
    assert json.dumps(desk.labelling.rows) == before


def test_tracks_are_exchanged_over_a_window():
    desk = Desk(something)
    desk.do("delete", track=1, frame=12)
    desk.do("exchange_tracks", track=0, other=1, first=10, last=12)
    assert desk.row(0, 10) == ((20.0, 1.0, 2), (20.0, 2.0, 2), (30.0, 3.0, 2))
    assert desk.row(1, 10) == ((10.0, 1.0, 2), (20.0, 2.0, 2), (30.0, 3.0, 2))
    assert desk.row(0, 12) == GONE


def test_tracks_come_and_go():
    desk = Desk()
    desk.do("add", name="second  mouse")
    assert desk.labelling.names == {0: "", 1: "", 2: "second mouse"}
    desk.do("place", track=2, frame=1, keypoint=0, xy=[1, 1])
    desk.do("remove_track", track=2)
    assert desk.labelling.names == {0: "", 1: ""} and not list(desk.labelling.placed())
    desk.take(desk.history.undo())
    assert desk.labelling.names[2] == "second mouse" and list(desk.labelling.placed()) == [(2, 1)]


def test_the_skeleton_grows_only_while_nothing_is_labelled():
    desk = Desk()
    four = {"names": ["a", "b", "c", "d"]}
    desk.do("skeleton", skeleton=four)
    desk.take(desk.history.undo())
    desk.do("place", track=0, frame=1, keypoint=0, xy=[1, 1])
    with pytest.raises(Refused, match="labels already"):
        desk.do("skeleton", skeleton=four)
    desk.do("skeleton", skeleton={"names": ["nose", "left_paw", "right_paw"], "edges": [[0, 2]]})
    assert desk.labelling.skeleton is not None and desk.labelling.skeleton.edges == ((0, 2),)


PLACE = {"op": "place", "track": 0, "frame": 1, "keypoint": 0, "xy": [1, 1]}


@pytest.mark.parametrize(
    "operation",
    [
        PLACE | {"frame": 40},
        PLACE | {"frame": -1},
        PLACE | {"frame": True},
        PLACE | {"frame": 1.0},
        PLACE | {"track": 7},
        PLACE | {"keypoint": 3},
        PLACE | {"xy": [1, 1e300]},
        PLACE | {"xy": "11"},
        PLACE | {"xy": [1, float("nan")]},
        PLACE | {"xy": [1, True]},
        PLACE | {"state": "absent"},
        PLACE | {"path": "/etc/passwd"},
        {"op": "place", "track": 0},
        {"op": "state", "track": 0, "frame": 1, "keypoint": 0, "state": "lost"},
        {"op": "state", "track": 0, "frame": 1, "keypoint": 0, "state": []},
        {"op": "exchange_tracks", "track": 0, "other": 0, "first": 1, "last": 2},
        {"op": "skeleton", "skeleton": {"names": []}},
        {"op": "skeleton", "skeleton": {"names": ["a", "a"]}},
        {"op": "skeleton", "skeleton": {"names": ["a"], "edges": [[0, 5]]}},
        {"op": "skeleton", "skeleton": {"names": ["a"], "edges": 5}},
        {"op": "rename", "track": 0, "name": {"a": 1}},
        {"op": "rename", "track": 0, "name": "x" * 201},
        {"op": "changes"},
        {"op": "_put", "track": 0, "frame": 1, "marks": []},
        {"op": []},
        {"op": "accept", "track": 0, "frame": 1},
        {},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(operation):
    desk = Desk()
    with pytest.raises(Refused):
        make_edit(desk.labelling, [operation], nothing, N_FRAMES)
    assert desk.labelling.rows == {}


_frames = st.integers(0, N_FRAMES - 1)
_operations = st.one_of(
    st.builds(
        lambda track, frame, keypoint, xy: (
            PLACE | {"track": track, "frame": frame, "keypoint": keypoint, "xy": list(xy)}
        ),
        st.integers(0, 1),
        _frames,
        st.integers(0, 2),
        st.tuples(st.integers(-9, 99), st.floats(-9, 99)),
    ),
    st.builds(
        lambda op, frame: {"op": op, "track": 0, "frame": frame},
        st.sampled_from(["delete", "forget", "accept"]),
        _frames,
    ),
    st.sampled_from(
        [
            {"op": "exchange_sides", "track": 0, "first": 3, "last": 25},
            {"op": "exchange_tracks", "track": 0, "other": 1, "first": 3, "last": 25},
            {"op": "add"},
            {"op": "undo"},
            {"op": "redo"},
        ]
    ),
)


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(_operations, max_size=25))
def test_the_log_redoes_everything_and_undo_goes_back_to_the_start(wanted, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "edits.jsonl"
    desk, log = Desk(something), EditLog(path, "abc", N_FRAMES)
    log.begin({})
    for n, operation in enumerate(wanted):
        try:
            if operation["op"] in ("undo", "redo"):
                edit = getattr(desk.history, operation["op"])()
            else:
                edit = make_edit(desk.labelling, [operation], something, N_FRAMES)
        except Refused:
            continue
        edit = stamped(edit, f"e{n}")
        log.append(edit)
        desk.take(edit)
    log.close()

    again, other = Desk(), EditLog(path, "abc", N_FRAMES)
    assert other.first() is not None
    history = other.read(again.labelling)
    other.close()
    assert again.labelling == desk.labelling
    assert (history.to_undo, history.to_redo) == (desk.history.to_undo, desk.history.to_redo)
    while history.to_undo:
        edit = history.undo()
        apply(again.labelling, edit)
        history.add(edit)
    assert not any(again.labelling.rows.values())
    assert again.labelling.names == {0: "", 1: ""}


def written(path, places=((0, 0), (1, 1), (2, 2))) -> Desk:
    """A log with an edit for each (frame, x)."""
    desk, log = Desk(), EditLog(path, "abc", N_FRAMES)
    log.begin({})
    for frame, x in places:
        edit = desk.make("place", track=0, frame=frame, keypoint=0, xy=[x, x])
        log.append(stamped(edit, f"e{x}"))
        desk.take(edit)
    log.close()
    return desk


def read_back(path) -> Labelling:
    desk, log = Desk(), EditLog(path, "abc", N_FRAMES)
    log.read(desk.labelling)
    log.close()
    return desk.labelling


def test_a_line_that_was_not_finished_is_cut_off(tmp_path):
    path = tmp_path / "edits.jsonl"
    desk = written(path)
    whole = path.read_bytes()
    for end in range(len(whole) - 20, len(whole)):
        path.write_bytes(whole[:end])
        assert sorted(read_back(path).rows[0]) == [0, 1]
    path.write_bytes(whole)
    assert read_back(path) == desk.labelling


@pytest.mark.parametrize("damage", ["{}", "null", "not json", '{"video": "abc"}', "[]"])
def test_a_damaged_line_in_the_middle_is_refused(tmp_path, damage):
    path = tmp_path / "edits.jsonl"
    written(path)
    lines = path.read_text().splitlines()
    lines[2] = damage
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(OutputError, match="damaged") as caught:
        read_back(path)
    assert "line 3" in str(caught.value)


@pytest.mark.parametrize(
    "place", [{"frame": -4}, {"frame": 40}, {"frame": 0.5}, {"track": "x"}, {"track": -1}]
)
def test_a_line_of_what_is_not_there_is_refused(tmp_path, place):
    path = tmp_path / "edits.jsonl"
    written(path)
    lines = path.read_text().splitlines()
    entry = json.loads(lines[2])
    entry["changes"][0] |= place
    lines[2] = json.dumps(entry)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(OutputError, match=r"damaged\n.*line 3: there is no (frame|track)"):
        read_back(path)


def test_a_log_in_which_nothing_stands_goes_again(tmp_path):
    EditLog(tmp_path / "edits.jsonl", "abc", N_FRAMES).close()
    assert not (tmp_path / "edits.jsonl").exists()


def test_a_line_that_is_missing_is_noticed(tmp_path):
    path = tmp_path / "edits.jsonl"
    written(path, ((1, 0), (1, 1), (1, 2)))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(OutputError, match="damaged"):
        read_back(path)


def test_edits_of_another_video_are_refused(tmp_path):
    written(tmp_path / "edits.jsonl")
    with pytest.raises(OutputError, match="another video"):
        EditLog(tmp_path / "edits.jsonl", "xyz", N_FRAMES).first()


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "edits.jsonl"
    desk = written(path)
    whole = path.read_bytes()
    log = EditLog(path, "abc", N_FRAMES)
    log.read(Desk().labelling)
    edit = stamped(desk.make("place", track=0, frame=9, keypoint=0, xy=[1, 1]), "late")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            log.append(edit)
    assert path.read_bytes() == whole
    log.append(edit)  # there is room again
    log.close()
    assert 9 in read_back(path).rows[0]
