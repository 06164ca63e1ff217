"""One labelling: the video, what is labelled, the poses that are shown, the doubts, and the run that goes on.

Everything that changes goes through a :class:`Session`, under one lock. Files in ``OUT/label``:
``edits.jsonl`` (the truth, see :mod:`posewarper.review.edits`), ``given.json`` (a copy of the labels with
which it began), ``labels.json`` (what is labelled now, written whole or not at all), ``doubts.json`` (which
doubts are done or skipped). The label file that was given is never written to.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posewarper.errors import LabelsError, OutputError, PosewarperError
from posewarper.files import remove_leftovers, replacing, write_json
from posewarper.formats.labels import read_labels, read_poses, write_labels
from posewarper.formats.records import LabelFile
from posewarper.options import EFFORTS
from posewarper.propagation.suggestion import POSES, Suggestion
from posewarper.reporting.checking import frames_to_check
from posewarper.review.edits import Edit, EditLog, Refused, apply, make_edit, stamped
from posewarper.review.frames import Frames
from posewarper.review.job import Ended, Job
from posewarper.review.labelling import Labelling, skeleton_to_json
from posewarper.review.shown import ShownPoses
from posewarper.review.solver import Solver
from posewarper.runs import FACTS, RECORDS, REQUEST, describe_inputs, sole_writer
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, is_there
from posewarper.video.track_crops import instance_sizes

FOLDER = "label"
_LOG, _GIVEN, _LABELS, _DOUBTS = "edits.jsonl", "given.json", "labels.json", "doubts.json"
_MODEL = "model.pt"
_SAVE_AFTER, _SAVE_AGAIN = 0.3, 2.0  # seconds from an edit to labels.json, and to the next try
_MOST_DOUBTS = 24
_LEAST_BOX = 32.0  # pixels of a thumbnail
OPEN, DONE, SKIPPED = "open", "done", "skipped"

if TYPE_CHECKING:  # which takes seconds to import
    from posewarper.review.kept import Solved

PathLike = str | os.PathLike[str]
Listener = Callable[[str, Mapping[str, Any]], None]


class Stale(Exception):
    """The page is behind: something has changed since the revision that it knows."""


class Session:
    """One labelling, which lasts until :meth:`close`.

    Args:
        video: a video file or a folder of frames.
        out: folder of the results; what is labelled lies in ``label`` in it.
        labels: labels to begin with; a :class:`~posewarper.formats.records.LabelFile` tells how to read them.
        skeleton: the keypoints, where nothing is labelled yet.
        device: where the network runs.

    Raises:
        PosewarperError: if the input cannot be used, or another page holds the folder.
    """

    def __init__(
        self,
        video: PathLike,
        out: PathLike,
        *,
        labels: PathLike | None = None,
        skeleton: Skeleton | None = None,
        device: str = "auto",
    ) -> None:
        self.video, self.out, self.device = Path(video), Path(out), device
        self.folder = self.out / FOLDER
        # Who needs both takes the one for saving first.
        self._lock, self._saving = threading.RLock(), threading.RLock()
        self._listeners: list[Listener] = []
        self._job: Job | None = None
        self._run_looks = self._run_extends = False  # of the run that goes on
        self.run_state: dict[str, Any] = {"state": "idle"}
        self._statuses: dict[str, str] = {}
        self._suspicions: list[dict[str, Any]] = []
        self._suggestions: list[dict[str, Any]] = []
        self._poses_seen: Any = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self.shown = ShownPoses()
        self.save_error: str | None = None
        self.ready: str | None = None  # what keeps labels from being solved anew at once, in words
        with ExitStack() as held:
            self.frames = Frames(self.video)
            held.callback(self.frames.close)
            self.sha256 = describe_inputs(video=self.video)["video"]["sha256"]
            if not os.path.lexists(self.out):
                held.callback(_remove_if_empty, self.out)  # where nothing comes of it
            try:
                held.enter_context(sole_writer(self.folder))
            except OutputError as error:
                if "another run" not in error.what:
                    raise
                raise OutputError(
                    "another page is labelling in this folder",
                    path=self.folder,
                    fix="use that page, end it where it was started, or name another folder with --out",
                ) from error
            for name in (_LABELS, _GIVEN, _DOUBTS):
                remove_leftovers(self.folder / name)
            self.log = EditLog(self.folder / _LOG, self.sha256, self.frames.n_frames)
            held.callback(self.log.close)
            begin = self._begin(labels, self.log.first())
            self.labelling = Labelling() if self.given is None else Labelling.of(self.given)
            self.history = self.log.read(self.labelling)
            if begin is not None:
                self.log.begin(begin)
            self._choose_skeleton(skeleton)
            if begin is not None and self.given is None:
                self._take_predictions()
            with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
                known = json.loads((self.folder / _DOUBTS).read_text(encoding="utf-8"))
                self._statuses = {str(k): str(v) for k, v in known["status"].items()}
            self.solver = Solver(
                self.video,
                self.folder,
                self.out / RECORDS,
                device,
                ask=lambda: (self.labels(), dict(self.shown.tracks)),
                done=self._on_solved,
                suggested=self._on_suggested,
                say=self._on_ready,
            )
            self._load_poses()
            self.solver.suggest()
            self._saver = threading.Thread(target=self._keep_saving, name="saver", daemon=True)
            self._wake.set()
            self._saver.start()
            self._held = held.pop_all()

    def close(self) -> None:
        """Stop what runs, write what is to be written, and let go of the folder."""
        with self._lock:
            job = self._job
        if job is not None:
            job.close()
        self.solver.close()
        self._closing.set()
        self._wake.set()
        self._saver.join()
        self._held.close()

    # --- the start ---

    def _begin(self, labels: PathLike | None, first: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Read the labels to begin with, and return what the log is to say of them if it is new."""
        kept = self.folder / _GIVEN
        self.given: Labels | None = None
        if first is None:
            # The log has gone, or its first line was never finished: what it made is not to go, too.
            if self.labels_path.exists():
                if labels is not None and not self.labels_path.samefile(labels):
                    raise OutputError(
                        "this folder holds labels of an earlier page, whose log of edits is not there",
                        path=self.labels_path,
                        fix="leave --labels out to begin from them, or name another folder with --out",
                    )
                labels = self.labels_path
            # A folder of results: its labelled frames are the labels, if it has any.
            if labels is None and (self.out / POSES).is_file():
                found = read_poses(self.out / POSES).as_labels().only_labelled()
                labels = self.out / POSES if len(found.tracks) else None
            if labels is not None:
                self.given = read_labels(labels, video=self.frames.facts)
                write_labels(kept, self.given, format="posetrack")
            return {"labels": _name_and_hash(labels), "given": _name_and_hash(kept if labels else None)}
        begun = first["labels"] if isinstance(first.get("labels"), dict) else {}
        own = [path for path in (kept, self.folder / _LABELS) if path.exists()]
        known = labels is None or any(path.samefile(labels) for path in own)
        asked = {key: value for key, value in (_name_and_hash(labels) or {}).items() if key != "name"}
        if not known and asked != {key: value for key, value in begun.items() if key != "name"}:
            raise OutputError(
                "this folder holds a labelling that began from other labels",
                path=self.folder,
                expected=begun.get("name") or "no labels",
                got=labels,
                fix="leave --labels out to go on with it, or name another folder with --out",
            )
        if first.get("given"):
            if _name_and_hash(kept) != first["given"]:
                what = "the copy of the labels with which this labelling began is not what it was"
                fix = "bring it back, or begin in another folder with --out"
                raise OutputError(what, path=kept, fix=fix)
            self.given = read_labels(kept, video=self.frames.facts)
        return None

    def _choose_skeleton(self, skeleton: Skeleton | None) -> None:
        """Set the skeleton that the command line gives, unless the labels have one."""
        old = self.labelling.skeleton
        if skeleton is None or (old is not None and old.names == skeleton.names):
            return
        if old is not None:
            raise LabelsError(
                "the labelling in this folder has other keypoints than --skeleton",
                path=self.folder,
                expected=", ".join(old.names),
                got=", ".join(skeleton.names),
                fix="leave --skeleton out, or name another folder with --out",
            )
        self.edit([{"op": "skeleton", "skeleton": skeleton_to_json(skeleton)}], "", self.history.revision)

    def _take_predictions(self) -> None:
        """Begin with the keypoints and tracks of poses of which no frame is labelled, if there are any."""
        path = self.out / POSES
        if self.labelling.skeleton is not None or not path.is_file():
            return
        poses = read_poses(path)
        operations: list[dict[str, Any]] = [
            {"op": "skeleton", "skeleton": skeleton_to_json(poses.skeleton)},
            *({"op": "add", "track": i} for i in poses.tracks if i),
        ]
        self.edit(operations, "", self.history.revision)

    # --- who listens ---

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call a listener with (event, values) from any thread; returns what ends that."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, event: str, **values: Any) -> None:
        """Tell all who listen."""
        for listener in list(self._listeners):
            listener(event, values)

    # --- what is shown ---

    @property
    def tracks(self) -> list[int]:
        """The ids of the tracks that the page shows."""
        return sorted(self.labelling.names)

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know before it asks for frames and poses."""
        with self._lock:
            frames, labelling = self.frames, self.labelling
            sizes = [size for track in self.shown.tracks.values() for size in instance_sizes(track)]
            known = [float(size) for size in sizes if np.isfinite(size)]
            return {
                "video": frames.name,
                "version": (self.sha256 or "")[:16],
                "n_frames": frames.n_frames,
                "fps": frames.fps,
                "image_size": list(frames.image_size),
                "shown_size": list(frames.shown_size),
                "skeleton": skeleton_to_json(labelling.skeleton),
                "flip_order": list(labelling.skeleton.flip_order) if labelling.skeleton else [],
                "tracks": [{"id": i, "name": labelling.names.get(i, "")} for i in self.tracks],
                "subject": float(np.median(known)) if known else None,
                "folder": os.fspath(self.out),
                **self.describe_state(),
            }

    def describe_state(self) -> dict[str, Any]:
        """Return what changes with every edit."""
        with self._lock:
            history = self.history
            undo, redo = history.to_undo, history.to_redo
            return {
                "revision": history.revision,
                "undo": undo and undo.text,
                "redo": redo and redo.text,
                "labelled": self.labelling.labelled_frames,
                "has_poses": self.shown.run is not None,
                "has_model": (self.out / _MODEL).is_file(),
                "save_error": self.save_error,
                "run": self.run_state,
                "ready": self.ready,
            }

    def block(self, first: int, last: int) -> bytes:
        """Return the poses of some frames, see :meth:`~posewarper.review.shown.ShownPoses.block`."""
        with self._lock:
            return self.shown.block(self.labelling, self.tracks, first, last).tobytes()

    def timeline(self) -> dict[str, Any]:
        """Return what the timeline shows, see :meth:`~posewarper.review.shown.ShownPoses.summary`."""
        with self._lock:
            summary = self.shown.summary(self.labelling, self.tracks, self.frames.n_frames)
        errors = summary.pop("errors")
        rounded = [[None if e != e else round(e, 1) for e in row] for row in errors.tolist()]
        return {"tracks": self.tracks, "errors": rounded, **summary}

    # --- edits ---

    def edit(self, operations: Sequence[Mapping[str, Any]], name: str, base: int) -> dict[str, Any]:
        """Make an edit, and return what has changed once it lies on the disk.

        Args:
            operations: see :data:`posewarper.review.edits.OPERATIONS`; ``[{"op": "undo"}]`` and
                ``[{"op": "redo"}]`` take back and do again.
            name: by which the page calls the edit: sent again, it counts once.
            base: the revision that the page knows.

        Raises:
            Stale: if there is a newer one.
            Refused: if it makes no sense.
            OSError: if it cannot be written; nothing is changed then.
        """
        with self._lock:
            if name and name in self.history.ids:
                return self._changed(self.history.edits[self.history.ids[name]])
            if base != self.history.revision:
                raise Stale(f"the page knows revision {base}, this is {self.history.revision}")
            whole = [dict(operation) for operation in operations]
            if whole == [{"op": "undo"}]:
                edit = self.history.undo()
            elif whole == [{"op": "redo"}]:
                edit = self.history.redo()
            else:
                edit = make_edit(self.labelling, whole, self._places, self.frames.n_frames)
            edit = stamped(edit, name)
            self.log.append(edit)
            apply(self.labelling, edit)
            self.history.add(edit)
            for track in set(self.shown.tracks) - set(self.labelling.names):
                self.shown.drop(track)
            changed = self._changed(edit)
            if self.shown.run is not None:
                self.solver.touch(edit.touched(), self.history.revision)
        self._wake.set()
        self.tell("edit", **changed)
        return changed

    def _places(self, track: int, frame: int) -> list[tuple[float, float] | None]:
        """Return where the page shows each keypoint of a track."""
        count = len(self.labelling.skeleton or ())
        places = self.shown.at(track, frame)
        return places if len(places) == count else [None] * count

    def _changed(self, edit: Edit) -> dict[str, Any]:
        anew = any(change.frame is None for change in edit.changes)
        frames = sorted({frame for frames in edit.touched().values() for frame in frames})
        told = {"id": edit.id, "text": edit.text, "anew": anew, "frames": frames}
        return {**told, **self.describe_state()}

    # --- files ---

    def labels(self) -> Labels | None:
        """Return what is labelled now; None where no keypoint is placed."""
        with self._lock:
            facts = self.frames.image_size, self.frames.n_frames, Path(self.frames.name).stem
            return self.labelling.to_labels(self.given, *facts, self.frames.facts.frame_names)

    @property
    def labels_path(self) -> Path:
        """Where the labels are written."""
        return self.folder / _LABELS

    def save(self) -> None:
        """Write labels.json, if there are labels.

        Raises:
            OSError: if the disk is full or fails.
            OutputError: if the place cannot be written.
        """
        with self._saving:
            labels = self.labels()
            if labels is not None:
                write_labels(self.labels_path, labels, format="posetrack")
            else:
                self.labels_path.unlink(missing_ok=True)

    def _keep_saving(self) -> None:
        wait = None
        while True:
            self._wake.wait(wait)
            last = self._closing.is_set()
            if not last:
                self._closing.wait(_SAVE_AFTER)
            self._wake.clear()
            problem = None
            try:
                self.save()
            except Exception as error:  # whatever it is: whoever labels must hear of it
                problem = str(error)
            if problem != self.save_error:
                self.save_error = problem
                self.tell("state", **self.describe_state())
            if last or self._closing.is_set():
                return
            wait = None if problem is None else _SAVE_AGAIN

    # --- doubts ---

    def doubts(self) -> list[dict[str, Any]]:
        """Return what is worth a look, and then what is worth a label, each with its status."""
        with self._lock:
            both = *self._suspicions, *self._suggestions
            return [{**each, "status": self._status_of(each)} for each in both]

    def _status_of(self, doubt: Mapping[str, Any]) -> str:
        status = self._statuses.get(doubt["id"], OPEN)
        tracks = self.tracks if doubt["track"] is None else [doubt["track"]]
        if status == OPEN and any(self.labelling.row(i, doubt["frame"]) is not None for i in tracks):
            return DONE
        return status

    def set_status(self, doubt: str, status: str) -> None:
        """Tick a doubt off, skip it, or open it again.

        Raises:
            Refused: if there is no such doubt or status.
            OSError: if that cannot be written.
        """
        with self._lock:
            known = {each["id"] for each in (*self._suspicions, *self._suggestions)}
            if status not in (OPEN, DONE, SKIPPED) or doubt not in known:
                raise Refused("there is no such doubt")
            wanted = {**self._statuses, doubt: status}
            write_json(self.folder / _DOUBTS, {"status": wanted})
            self._statuses = wanted
        self.tell("doubts")

    def _load_poses(self) -> None:
        """Take the poses of the last run, if there are any that fit, in the place of those shown."""
        path = self.out / POSES
        try:
            facts = path.stat()
        except OSError:
            return
        seen = facts.st_mtime_ns, facts.st_size, facts.st_ino
        if seen == self._poses_seen:
            return
        self._poses_seen = seen
        try:
            poses = read_poses(path)
        except PosewarperError as error:
            self.run_state = {**self.run_state, "note": str(error)}
            return
        fits = poses.n_frames == self.frames.n_frames and poses.image_size == self.frames.image_size
        with self._lock:
            skeleton = self.labelling.skeleton
            if not fits or skeleton is None or skeleton.names != poses.skeleton.names:
                return
            self.shown = ShownPoses(poses)
            for track in set(poses.tracks) - set(self.labelling.names):
                self.shown.drop(track)
            ran_on = poses.as_labels().only_labelled()
            model, extend = self._how_it_ran()
            self.solver.renew(model, extend=extend)
            self.solver.suggest()
            touched = _differences(Labelling.of(ran_on), self.labelling)
            if touched:  # labelled since that run began
                self.solver.touch(touched, self.history.revision)
            labels = self.labels() or ran_on
        found = frames_to_check(poses, labels, count=_MOST_DOUBTS)
        suspicions = [
            {
                "id": f"doubt-{each.track}-{each.frame}",
                "kind": "doubt",
                "frame": each.frame,
                "track": each.track,
                "keypoints": list(each.keypoints),
                "reasons": list(each.reasons),
                "severity": round(each.severity, 3),
                "box": self._box_around(poses, each.track, each.frame),
            }
            for each in found
        ]
        with self._lock:
            self._suspicions = suspicions
        self.tell("poses", **self.describe_state())

    def _how_it_ran(self) -> tuple[Path | None, bool]:
        """Return the network with which the last run found its poses, None for none, and its ``extend``."""
        if self._job is not None:
            return (self.out / _MODEL if self._run_looks else None), self._run_extends
        facts: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            facts = json.loads((self.out / FACTS).read_text(encoding="utf-8"))
        config = facts.get("config") or {}
        given = (facts.get("inputs") or {}).get("model")
        path = Path(given["path"]) if isinstance(given, dict) else self.out / _MODEL
        path = self.out / _MODEL if path == self._learns_from else path
        looks = isinstance(given, dict) or bool(config.get("pose_iterations"))
        return (path if looks and path.is_file() else None), bool(config.get("extend"))

    def _on_solved(self, solved: list[Solved], number: int) -> None:
        frames: set[int] = set()
        with self._lock:
            if self.solver.is_renewed:
                return
            for each in solved:
                if each.track in self.labelling.names:
                    self.shown.put(each.track, each.poses, each.gone)
                    frames |= {*each.poses.frames.tolist(), *each.gone.tolist()}
        seconds = round(sum(each.seconds for each in solved), 3)
        self.tell("solved", frames=sorted(frames), revision=number, seconds=seconds)

    def _on_suggested(self, found: list[Suggestion]) -> None:
        with self._lock:
            self._suggestions = [
                {
                    "id": f"suggestion-{each.frame}",
                    "kind": "suggestion",
                    "frame": each.frame,
                    "track": each.track,
                    "keypoints": [] if each.keypoint is None else [each.keypoint],
                    "reasons": [each.reason],
                    "severity": round(each.gain, 4),
                    "box": None,
                }
                for each in found
            ]
        self.tell("doubts")

    def suggest(self) -> None:
        """Ask which frames to label next, with all that is labelled and shown now."""
        self.solver.suggest()

    def _on_ready(self, text: str | None) -> None:
        if text != self.ready:
            self.ready = text
            self.tell("state", **self.describe_state())

    def _box_around(self, poses: Poses, track: int, frame: int) -> list[int] | None:
        """Return a square (x, y, width, height) around a pose that lies in the frame; None without one."""
        own = poses.tracks[track].at([frame]).keypoints.reshape(-1, 2)
        own = own[is_there(own)]
        if not len(own):
            return None
        height, width = self.frames.image_size
        low, high = own.min(0), own.max(0)
        side = min(float(max(*(high - low), _LEAST_BOX)) * 1.3, width, height)
        corner = np.clip((low + high - side) / 2, 0, [width - side, height - side])
        return [int(n) for n in (*corner, side, side)]

    # --- runs ---

    @property
    def _learns_from(self) -> Path:
        """The model that is trained further: a copy of the last run's, which is then replaced."""
        return self.folder / _MODEL

    def command(
        self, effort: str, *, model: bool, extend: bool, further: bool, learn: bool = False
    ) -> list[str]:
        """Return the arguments of the command that the page runs, without ``posewarper``."""
        words = ["propagate", os.fspath(self.video), "--labels", os.fspath(self.labels_path)]
        words += ["--effort", effort, "--out", os.fspath(self.out)]
        words += ["--model", os.fspath(self._learns_from if learn else self.out / _MODEL)] if model else []
        words += ["--learn"] if learn else []
        words += ["--extend"] if extend else []
        trains = effort != "fast" and (learn or not model)
        words += ["--no-keep-training"] if trains and not further else []
        return words + ([] if self.device == "auto" else ["--device", self.device])

    def run(
        self,
        effort: str,
        *,
        model: bool = False,
        extend: bool = False,
        further: bool = False,
        learn: bool = False,
    ) -> dict[str, Any]:
        """Begin to propagate the labels, as the command line does.

        Args:
            effort: one of :data:`EFFORTS`.
            model: take the model of the last run, and train none.
            learn: train that model further on the labels.
            extend: a pose on every frame.
            further: go on to train the model for new videos when the poses stand.

        Raises:
            Refused: if something runs already, or nothing is labelled.
            OSError: if the labels cannot be written.
        """
        with self._saving, self._lock:
            if self._job is not None:
                raise Refused("a run is going on already")
            if effort not in EFFORTS:
                raise Refused(f"there is no effort {effort!r:.40}")
            learn = learn and effort != "fast"
            if (model or learn) and not (self.out / _MODEL).is_file():
                raise Refused("there is no model yet: run once without it")
            if learn and not model:
                raise Refused("a model that learns further is that of the last run: take it, too")
            if self.labels() is None:
                raise Refused("nothing is labelled yet: label a few frames first")
            self.save()
            words = self.command(effort, model=model, extend=extend, further=further, learn=learn)
            shown = shlex.join(["posewarper", *words])
            resumes = self._may_resume()
            if learn and not (resumes and self._learns_from.is_file()):
                with replacing(self._learns_from) as temporary:
                    shutil.copyfile(self.out / _MODEL, temporary)
            if not resumes:
                words.append("--overwrite")
            state = {"state": "running", "stage": "starting", "done": 0, "total": 0, "left": None}
            self.run_state = {**state, "command": shown, "revision": self.history.revision}
            self._run_looks, self._run_extends = model or effort != "fast", extend
            self._job = Job(words, self._on_progress, self._on_end)
        self.tell("run", **self.run_state)
        return self.run_state

    def _may_resume(self) -> bool:
        """Tell whether a run of these labels was stopped in the folder, or nothing is in it."""
        if (self.out / FACTS).exists():
            return False
        try:
            request = json.loads((self.out / REQUEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return not (self.out / POSES).exists()
        return request.get("labels") == describe_inputs(labels=self.labels_path)["labels"]["sha256"]

    def cancel(self) -> None:
        """Stop the run that goes on; what it has done is kept, and the same run goes on there.

        Raises:
            Refused: if there is none.
        """
        with self._lock:
            if self._job is None:
                raise Refused("nothing is running")
            self._job.cancel()
            self.run_state = {**self.run_state, "state": "stopping"}
        self.tell("run", **self.run_state)

    def _on_progress(self, stage: str, done: int, total: int, left: float | None) -> None:
        with self._lock:
            self.run_state = {**self.run_state, "stage": stage, "done": done, "total": total, "left": left}
        self.tell("run", **self.run_state)
        self._load_poses()

    def _on_end(self, ended: Ended) -> None:
        state = {0: "done", 130: "cancelled"}.get(ended.code, "failed")
        with self._lock:
            self._job = None
            kept = {key: self.run_state[key] for key in ("command", "revision") if key in self.run_state}
            self.run_state = {"state": state, "said": ended.said, "code": ended.code, **kept}
        self._load_poses()
        self.tell("run", **self.run_state)
        self.tell("state", **self.describe_state())


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _name_and_hash(path: PathLike | None) -> dict[str, Any] | None:
    """Return what tells a file: its name, its hash, and how it is read where that is not as usual."""
    if path is None:
        return None
    facts = {"name": Path(path).name, "sha256": describe_inputs(file=path)["file"]["sha256"]}
    if not isinstance(path, LabelFile):
        return facts
    usual = LabelFile(path.path)
    choices = {name: getattr(path, name) for name in ("video", "frame_number", "unlabelled")}
    return facts | {name: value for name, value in choices.items() if value != getattr(usual, name)}


def _differences(one: Labelling, other: Labelling) -> dict[int, list[int]]:
    """Return track -> rising frames on which two labellings say different things of it."""
    found = {}
    for track in {*one.rows, *other.rows}:
        frames = {*one.rows.get(track, {}), *other.rows.get(track, {})}
        differ = sorted(frame for frame in frames if one.row(track, frame) != other.row(track, frame))
        if differ:
            found[track] = differ
    return found
