"""Operations of the labelling page, the edits that they make, and the log from which all can be redone.

An operation is what the page asks for (place a keypoint, exchange left and right). It becomes an
:class:`Edit`: the rows that change, before and after. Every edit is one line of ``edits.jsonl``, synced to
disk before anyone is told that it is saved; nothing is ever taken out of the file. Undoing is an edit, too:
the inverse of another.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from posewarper.errors import LabelsError, OutputError
from posewarper.files import naming
from posewarper.review.labelling import (
    GONE,
    Labelling,
    Mark,
    Row,
    row_from_json,
    skeleton_from_json,
    skeleton_to_json,
    tidy,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import ABSENT, HIDDEN, VISIBLE

PLACED, ACCEPTED = "placed", "accepted"
STATES = {"visible": VISIBLE, "hidden": HIDDEN, "absent": ABSENT, "unseen": None}
# Where tracks or sides are exchanged over a window, what is shown becomes a label at least so often.
EXCHANGE_EVERY = 8
_CONTROLS = re.compile("[\x00-\x1f\x7f]")  # which tables and other files cannot hold
_LONGEST_NAME, _MOST_KEYPOINTS, _MOST_TRACKS, _FURTHEST = 200, 1000, 10**6, 1e6

# (track, frame) -> (x, y) of each keypoint that is shown there, None for those that are not.
Shown = Callable[[int, int], Sequence[tuple[float, float] | None]]


class Refused(ValueError):
    """An operation that makes no sense now; the text says why."""


@dataclass(frozen=True)
class Change:
    """One thing that an edit changes: a row; with ``frame`` None the name of a track, with ``track`` None the
    skeleton. A track that is not there has no name: None."""

    track: int | None
    frame: int | None
    before: Any
    after: Any

    @property
    def inverse(self) -> Change:
        """The change that takes this one back."""
        return Change(self.track, self.frame, self.after, self.before)


@dataclass(frozen=True)
class Edit:
    """A line of the log.

    Args:
        operation: what was asked for; ``undo`` and ``redo`` name the edit in ``of``.
        text: what it did, in words.
        changes: rows before and after.
        origin: whether a person has placed the keypoints or accepted what was shown; None for others.
        id: by which the page names the edit, so that it counts once if it is sent twice.
        of: number of the edit that is undone or redone.
        when: when it was made.
    """

    operation: str
    text: str
    changes: tuple[Change, ...]
    origin: str | None = None
    id: str = ""
    of: int | None = None
    when: str = ""

    def touched(self) -> dict[int, list[int]]:
        """Return track -> rising frames whose rows change."""
        found: dict[int, set[int]] = {}
        for change in self.changes:
            if change.track is not None and change.frame is not None:
                found.setdefault(change.track, set()).add(change.frame)
        return {track: sorted(frames) for track, frames in found.items()}


def make_edit(
    labelling: Labelling, operations: Sequence[Mapping[str, Any]], shown: Shown, n_frames: int
) -> Edit:
    """Return the edit that some operations make together; nothing is changed yet.

    Args:
        labelling: what is labelled now.
        operations: plain values as the page sends them, each with ``op``, see :data:`OPERATIONS`.
        shown: the poses that the page shows.
        n_frames: frames of the video.

    Raises:
        Refused: if an operation is unknown, incomplete or impossible now.
    """
    if not operations:
        raise Refused("there is nothing to do")
    draft = _Draft(labelling, shown, n_frames)
    for operation in operations:
        values = dict(operation)
        name = values.pop("op", None)
        if not isinstance(name, str) or name not in OPERATIONS:
            raise Refused(f"there is no operation {name!r:.40}")
        try:
            OPERATIONS[name](draft, **values)
        except TypeError as error:
            raise Refused(f"{name}: {str(error).partition('() ')[2] or error}") from error
    changes = draft.changes()
    if not changes:
        raise Refused("that changes nothing")
    first = str(operations[0]["op"])
    return Edit(first, draft.text, changes, draft.origin)


class _Draft:
    """Rows as they will be; the methods are the operations."""

    def __init__(self, labelling: Labelling, shown: Shown, n_frames: int) -> None:
        self.now, self.shown, self.n_frames = labelling, shown, n_frames
        self.rows: dict[tuple[int, int], Row] = {}
        self.names: dict[int, str | None] = {}
        self.skeleton_after: Skeleton | None = None
        self.text, self.origin = "", None

    def changes(self) -> tuple[Change, ...]:
        found = []
        if self.skeleton_after is not None and self.skeleton_after != self.now.skeleton:
            before, after = skeleton_to_json(self.now.skeleton), skeleton_to_json(self.skeleton_after)
            found.append(Change(None, None, before, after))
        for track, name in self.names.items():
            if self.now.names.get(track) != name:
                found.append(Change(track, None, self.now.names.get(track), name))
        for (track, frame), row in sorted(self.rows.items()):
            before, after = self.now.row(track, frame), tidy(row)
            if before != after:
                found.append(Change(track, frame, before, after))
        return tuple(found)

    # --- what operations ask and do ---

    def _say(self, text: str, origin: str | None = None) -> None:
        self.text = self.text or text
        self.origin = self.origin or origin

    def _skeleton(self) -> Skeleton:
        skeleton = self.skeleton_after or self.now.skeleton
        if skeleton is None:
            raise Refused("there are no keypoints yet: choose a skeleton first")
        return skeleton

    def _frame(self, frame: Any) -> int:
        if not isinstance(frame, int) or isinstance(frame, bool) or not 0 <= frame < self.n_frames:
            raise Refused(f"there is no frame {frame!r:.40}")
        return frame

    def _track(self, track: Any) -> int:
        if not isinstance(track, int) or isinstance(track, bool) or self._name_of(track) is None:
            raise Refused(f"there is no track {track!r:.40}")
        return track

    def _name_of(self, track: int) -> str | None:
        return self.names[track] if track in self.names else self.now.names.get(track)

    def _keypoint(self, keypoint: Any) -> int:
        count = len(self._skeleton())
        if not isinstance(keypoint, int) or isinstance(keypoint, bool) or not 0 <= keypoint < count:
            raise Refused(f"there is no keypoint {keypoint!r:.40}")
        return keypoint

    def _window(self, first: Any, last: Any) -> range:
        first, last = sorted((self._frame(first), self._frame(last)))
        return range(first, last + 1)

    def _row(self, track: int, frame: int) -> Row:
        key = track, frame
        return self.rows[key] if key in self.rows else self.now.row(track, frame)

    def _marks(self, track: int, frame: int) -> list[Mark]:
        row = self._row(track, frame)
        return list(row) if isinstance(row, tuple) else [None] * len(self._skeleton())

    def _put(self, track: int, frame: int, marks: Sequence[Mark]) -> None:
        self.rows[track, frame] = tidy(tuple(marks))

    def _accepted(self, track: int, frame: int) -> list[Mark]:
        """Return the marks of a row, with labels in place of the predictions that are shown."""
        if self._row(track, frame) == GONE:
            return [None] * len(self._skeleton())
        places = self.shown(track, frame)
        marks = self._marks(track, frame)
        return [
            (*place, VISIBLE) if mark is None and place is not None else mark
            for mark, place in zip(marks, places, strict=True)
        ]

    # --- operations ---

    def place(self, track: Any, frame: Any, keypoint: Any, xy: Any, state: Any = "visible") -> None:
        """Say where a keypoint is."""
        track, frame, keypoint = self._track(track), self._frame(frame), self._keypoint(keypoint)
        if state not in ["visible", "hidden"]:
            raise Refused("a place is that of a visible or of a hidden keypoint")
        numbers = isinstance(xy, list) and len(xy) == 2 and all(type(v) in (int, float) for v in xy)
        if not numbers or not all(abs(value) <= _FURTHEST for value in xy):
            raise Refused("a place is two numbers, x and y in pixels")
        marks = self._marks(track, frame)
        marks[keypoint] = (float(xy[0]), float(xy[1]), STATES[state])
        self._put(track, frame, marks)
        self._say(f"place {self._skeleton().names[keypoint]} on frame {frame}", PLACED)

    def state(self, track: Any, frame: Any, keypoint: Any, state: Any) -> None:
        """Say that a keypoint is visible or hidden (where it is shown), absent, or not looked at."""
        track, frame, keypoint = self._track(track), self._frame(frame), self._keypoint(keypoint)
        if not isinstance(state, str) or state not in STATES:
            raise Refused(f"there is no state {state!r:.40}")
        marks, value, origin = self._marks(track, frame), STATES[state], PLACED
        mark = marks[keypoint]
        name = self._skeleton().names[keypoint]
        if value in (VISIBLE, HIDDEN):
            if isinstance(mark, tuple):
                marks[keypoint] = (mark[0], mark[1], value)
            else:
                place = self.shown(track, frame)[keypoint]
                if place is None:
                    raise Refused(f"{name} has no place on frame {frame}: click where it is")
                marks[keypoint], origin = (*place, value), ACCEPTED
        else:
            marks[keypoint] = value
        self._put(track, frame, marks)
        said = "not looked at" if state == "unseen" else state
        self._say(f"{name} {said} on frame {frame}", origin)

    def accept(self, track: Any, frame: Any, keypoint: Any = None) -> None:
        """Take the shown places of an instance, or of one keypoint, for labels."""
        track, frame = self._track(track), self._frame(frame)
        marks = self._accepted(track, frame)
        if keypoint is not None:
            own, keypoint = self._marks(track, frame), self._keypoint(keypoint)
            own[keypoint], marks = marks[keypoint], own
        self._put(track, frame, marks)
        self._say(f"accept track {track} on frame {frame}", ACCEPTED)

    def add(self, name: Any = "", track: Any = None) -> None:
        """Begin a new track."""
        self._skeleton()
        known = [i for i in {*self.now.names, *self.names} if self._name_of(i) is not None]
        wanted = max(known, default=-1) + 1 if track is None else track
        if type(wanted) is not int or wanted < 0 or wanted in known or wanted > _MOST_TRACKS:
            raise Refused(f"there can be no new track {wanted!r:.40}")
        self.names[wanted] = _clean_name(name)
        self._say(f"add track {wanted}")

    def rename(self, track: Any, name: Any) -> None:
        """Give a track a name."""
        track = self._track(track)
        self.names[track] = _clean_name(name)
        self._say(f"name track {track}")

    def remove_track(self, track: Any) -> None:
        """Take a track and all of its labels away."""
        track = self._track(track)
        for frame in self.now.rows.get(track, {}):
            self.rows[track, frame] = None
        self.names[track] = None
        self._say(f"remove track {track}")

    def delete(self, track: Any, frame: Any) -> None:
        """Say that a track is not there on a frame."""
        track, frame = self._track(track), self._frame(frame)
        self.rows[track, frame] = GONE
        self._say(f"track {track} is not there on frame {frame}", PLACED)

    def forget(self, track: Any, frame: Any) -> None:
        """Take back all that was said of a track on a frame."""
        track, frame = self._track(track), self._frame(frame)
        self.rows[track, frame] = None
        self._say(f"forget the labels of track {track} on frame {frame}")

    def exchange_sides(self, track: Any, first: Any, last: Any, keypoint: Any = None) -> None:
        """Exchange left and right in a window of frames: all mirror pairs, or the one of a keypoint.

        What is shown becomes a label at both ends of the window and some frames apart in between.
        """
        track, window = self._track(track), self._window(first, last)
        pairs = self._skeleton().flip_pairs
        if keypoint is not None:
            pairs = tuple(pair for pair in pairs if self._keypoint(keypoint) in pair)
        if not pairs:
            raise Refused("no keypoint has a mirror image here: give the skeleton mirror pairs")
        wanted = {k for pair in pairs for k in pair}
        for frame in self._spots((track,), window):
            own, shown = self._marks(track, frame), self._accepted(track, frame)
            marks = [shown[k] if k in wanted else mark for k, mark in enumerate(own)]
            for a, b in pairs:
                marks[a], marks[b] = marks[b], marks[a]
            if any(marks[k] is not None for k in wanted):
                self._put(track, frame, marks)
        self._say(f"exchange left and right of track {track} on {_span(window)}", ACCEPTED)

    def exchange_tracks(self, track: Any, other: Any, first: Any, last: Any) -> None:
        """Exchange two tracks in a window of frames; what is shown becomes a label as for the sides."""
        track, other, window = self._track(track), self._track(other), self._window(first, last)
        if track == other:
            raise Refused("two tracks are needed")
        for frame in self._spots((track, other), window):
            rows = []
            for i in (track, other):
                gone = self._row(i, frame) == GONE
                rows.append(GONE if gone else tidy(tuple(self._accepted(i, frame))))
            if rows != [None, None]:
                # One of whom nothing is shown is not there: else the next run would find both in one place.
                rows = [GONE if row is None else row for row in rows]
                self.rows[track, frame], self.rows[other, frame] = rows[1], rows[0]
        self._say(f"exchange the tracks {track} and {other} on {_span(window)}", ACCEPTED)

    def _spots(self, tracks: Sequence[int], window: range) -> list[int]:
        said = {f for i in tracks for f in self.now.rows.get(i, {}) if f in window}
        spread = -(-(len(window) - 1) // EXCHANGE_EVERY)
        step = max(1, (len(window) - 1) / max(spread, 1))
        ends = {window[0], window[-1], *(window[round(n * step)] for n in range(spread))}
        return sorted(said | ends)

    def skeleton(self, skeleton: Any) -> None:
        """Set the keypoints; once something is labelled only edges and mirror pairs can change."""
        try:
            wanted = skeleton_from_json(skeleton)
        except (LabelsError, ValueError) as error:
            raise Refused(str(error)) from error
        if wanted is None:
            raise Refused("a skeleton has keypoints")
        check_skeleton(wanted)
        old = self.now.skeleton
        if old is not None and len(old) != len(wanted) and self.now.labelled_frames:
            raise Refused("there are labels already: keypoints can be renamed, not added or taken away")
        self.skeleton_after = wanted
        if not any(name is not None for name in self.now.names.values()):
            self.names[0] = ""
        self._say(f"set the skeleton of {len(wanted)} keypoints")


def check_skeleton(skeleton: Skeleton) -> None:
    """Refuse a skeleton that the page cannot show.

    Raises:
        Refused: if it has too many keypoints, or a name is too long.
    """
    if len(skeleton) > _MOST_KEYPOINTS:
        raise Refused(f"a skeleton has 1 to {_MOST_KEYPOINTS} keypoints, and this one {len(skeleton)}")
    if max(map(len, skeleton.names)) > _LONGEST_NAME:
        raise Refused(f"the name of a keypoint has at most {_LONGEST_NAME} letters")


OPERATIONS: dict[str, Callable[..., None]] = {
    name: getattr(_Draft, name)
    for name in (
        "place",
        "state",
        "accept",
        "add",
        "rename",
        "remove_track",
        "delete",
        "forget",
        "exchange_sides",
        "exchange_tracks",
        "skeleton",
    )
}
"""What the page can ask for, by name; the arguments are those of the methods of a draft."""


def _clean_name(name: Any) -> str:
    if not isinstance(name, str | None):
        raise Refused("a name is a text")
    text = " ".join(_CONTROLS.sub(" ", name or "").split())
    if len(text) > _LONGEST_NAME:
        raise Refused(f"a name has at most {_LONGEST_NAME} letters")
    return text


def _span(window: range) -> str:
    return f"frame {window[0]}" if len(window) == 1 else f"frames {window[0]} to {window[-1]}"


def apply(labelling: Labelling, edit: Edit) -> None:
    """Change what is labelled.

    Raises:
        ValueError: if it is not as the edit says that it was before; nothing is changed then.
    """
    for change in edit.changes:
        if _now(labelling, change) != change.before:
            raise ValueError(f"{edit.operation} does not fit what is labelled")
    for change in edit.changes:
        if change.track is None:
            labelling.skeleton = skeleton_from_json(change.after)
        elif change.frame is not None:
            labelling.put(change.track, change.frame, change.after)
        elif change.after is None:
            labelling.names.pop(change.track, None)
        else:
            labelling.names[change.track] = change.after


def _now(labelling: Labelling, change: Change) -> Any:
    if change.track is None:
        return skeleton_to_json(labelling.skeleton)
    if change.frame is None:
        return labelling.names.get(change.track)
    return labelling.row(change.track, change.frame)


class History:
    """The edits in their order, and which of them can be undone and redone."""

    def __init__(self) -> None:
        self.edits: list[Edit] = []
        self._done: list[int] = []
        self._undone: list[int] = []
        self.ids: dict[str, int] = {}

    @property
    def revision(self) -> int:
        """The number of edits so far."""
        return len(self.edits)

    @property
    def to_undo(self) -> Edit | None:
        """The edit that would be undone."""
        return self.edits[self._done[-1]] if self._done else None

    @property
    def to_redo(self) -> Edit | None:
        """The edit that would be redone."""
        return self.edits[self._undone[-1]] if self._undone else None

    def undo(self) -> Edit:
        """Return the edit that undoes the last one that is not undone.

        Raises:
            Refused: if there is none.
        """
        if not self._done:
            raise Refused("there is nothing to undo")
        edit = self.edits[self._done[-1]]
        changes = tuple(change.inverse for change in reversed(edit.changes))
        return Edit("undo", f"undo: {edit.text}", changes, None, of=self._done[-1])

    def redo(self) -> Edit:
        """Return the edit that does again what was undone last.

        Raises:
            Refused: if there is none.
        """
        if not self._undone:
            raise Refused("there is nothing to redo")
        edit = self.edits[self._undone[-1]]
        return Edit("redo", f"redo: {edit.text}", edit.changes, None, of=self._undone[-1])

    def add(self, edit: Edit) -> None:
        """Take an edit in, which was applied.

        Raises:
            ValueError: if it undoes or redoes another one than the last.
        """
        number = len(self.edits)
        if edit.operation == "undo":
            if not self._done or self._done[-1] != edit.of:
                raise ValueError(f"edit {number} undoes another one than the last")
            self._undone.append(self._done.pop())
        elif edit.operation == "redo":
            if not self._undone or self._undone[-1] != edit.of:
                raise ValueError(f"edit {number} redoes another one than the last")
            self._done.append(self._undone.pop())
        else:
            self._done.append(number)
            self._undone.clear()
        self.edits.append(edit)
        if edit.id:
            self.ids[edit.id] = number


class EditLog:
    """The file of edits: JSON lines, added to and never changed.

    Args:
        path: the file, made if need be.
        video: hash of the video, with which every line is marked.
        n_frames: frames of the video.

    Raises:
        OutputError: if a line is damaged, or belongs to another video.
    """

    def __init__(self, path: str | os.PathLike[str], video: str, n_frames: int) -> None:
        self.path, self._video, self._n_frames = Path(path), video, n_frames
        with naming(self.path):
            self._file: BinaryIO = self.path.open("a+b")
            self._file.seek(0)
            content = self._file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):  # the machine or the process stopped while it was written
                self._file.truncate(whole)
                os.fsync(self._file.fileno())
        self._lines = content[:whole].splitlines()
        self.size = whole

    def close(self) -> None:
        """Close the file; it goes again if nothing stands in it."""
        self._file.close()
        if not self.size:
            with suppress(OSError):
                self.path.unlink()

    def first(self) -> dict[str, Any] | None:
        """Return what the first line says, with which the labelling began; None where the file is new.

        Raises:
            OutputError: if it is damaged, or belongs to another video.
        """
        return self._parse(0, self._lines[0]) if self._lines else None

    def read(self, labelling: Labelling) -> History:
        """Redo all edits that are in the file.

        Raises:
            OutputError: if a line is damaged, or belongs to another video.
        """
        history = History()
        for number, line in enumerate(self._lines[1:], start=1):
            entry = self._parse(number, line)
            try:
                edit = _edit_from_json(entry, labelling, self._n_frames)
                apply(labelling, edit)
                history.add(edit)
            except (ValueError, KeyError, TypeError, LabelsError) as error:
                raise self._damaged(number, error) from error
        return history

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line)
            video = entry["video"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(number, error) from error
        if video != self._video:
            raise OutputError(
                "the edits in this folder were made on another video, or the video has changed since",
                path=self.path,
                expected=f"a video whose SHA-256 is {video!s:.16}...",
                got=f"one whose SHA-256 is {self._video:.16}...",
                fix="name the video that they were made on, or another folder with --out",
            )
        return entry

    def _damaged(self, number: int, error: Exception) -> OutputError:
        return OutputError(
            "this log of edits is damaged",
            path=self.path,
            got=f"line {number + 1}: {error}",
            fix="keep a copy of it, and take the damaged line and those after it out",
        )

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write the first line."""
        self._append({"operation": "begin", "time": _now_in_words(), "video": self._video, **facts})

    def append(self, edit: Edit) -> None:
        """Write an edit and wait until it lies on the disk; on failure the file is as before.

        Raises:
            OSError: if the disk is full or fails.
        """
        self._append(_edit_to_json(edit) | {"video": self._video})

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with naming(self.path):
            try:
                self._file.write(line)
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError:
                self._restore()
                raise
        self.size += len(line)

    def _restore(self) -> None:
        """Throw away what could not be written in whole; what is left is cut off when the log is read."""
        old = self._file
        self._file = self.path.open("a+b")
        with suppress(OSError):  # it tries again to write what the disk has no room for
            old.close()
        self._file.truncate(self.size)


def stamped(edit: Edit, name: str) -> Edit:
    """Return an edit with the id that the page gave it, and the time."""
    return replace(edit, id=name, when=_now_in_words())


def _now_in_words() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")


def _edit_to_json(edit: Edit) -> dict[str, Any]:
    keys = ("track", "frame", "before", "after")
    changes = [{key: getattr(change, key) for key in keys} for change in edit.changes]
    entry: dict[str, Any] = {"time": edit.when, "operation": edit.operation, "text": edit.text}
    more = {"origin": edit.origin, "id": edit.id or None, "of": edit.of}
    return entry | {key: value for key, value in more.items() if value is not None} | {"changes": changes}


def _edit_from_json(entry: Mapping[str, Any], labelling: Labelling, n_frames: int) -> Edit:
    changes = []
    count = len(labelling.skeleton or ())
    for change in entry["changes"]:
        track, frame, before, after = (change[key] for key in ("track", "frame", "before", "after"))
        if track is not None and not (type(track) is int and 0 <= track <= _MOST_TRACKS):
            raise ValueError(f"there is no track {track!r:.40}")
        if frame is not None and not (type(frame) is int and 0 <= frame < n_frames):
            raise ValueError(f"there is no frame {frame!r:.40}")
        if track is None:
            after = skeleton_to_json(skeleton_from_json(after))
            count = len(after["names"]) if after else 0
        elif frame is not None:
            before, after = row_from_json(before, count), row_from_json(after, count)
        changes.append(Change(track, frame, before, after))
    more = {name: entry.get(name) for name in ("origin", "of")}
    told = entry["operation"], entry["text"], tuple(changes)
    return Edit(*told, id=entry.get("id") or "", when=entry["time"], **more)
