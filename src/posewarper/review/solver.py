"""The thread that goes again: what labels change is solved anew in the background, and frames are suggested.

What it needs takes seconds to import, so it does that itself: the page is there before.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from posewarper.errors import PosewarperError, first_sentence
from posewarper.propagation.suggestion import Suggestion, choose_order, suggest_frames
from posewarper.runs import describe_inputs
from posewarper.structures import Labels, Poses, Track
from posewarper.video.source import Video, open_video

if TYPE_CHECKING:
    from posewarper.motion.flow import FlowStore
    from posewarper.review.kept import Kept, Solved

_SUGGESTED = 10


class Solver:
    """The thread that solves anew.

    Args:
        video: path of the clip.
        folder: where the flow is kept from one start to the next.
        parts: folder of a run that goes on, which has the flow as soon as there are poses.
        device: where the network runs.
        ask: returns the labels as they are, and the poses so far.
        done: is told what was solved, with the number of the request that it answers.
        suggested: is told which frames are worth a label.
        say: is told in words what keeps it from solving, None where nothing does.
    """

    def __init__(
        self,
        video: Path,
        folder: Path,
        parts: Path,
        device: str,
        ask: Callable[[], tuple[Labels | None, Mapping[int, Track]]],
        done: Callable[[list[Solved], int], None],
        suggested: Callable[[list[Suggestion]], None],
        say: Callable[[str | None], None],
    ) -> None:
        self._path, self._folder, self._parts, self._device = video, folder, parts, device
        self._ask, self._done, self._suggested, self._say = ask, done, suggested, say
        self._condition = threading.Condition()
        self._touched: dict[int, set[int]] = {}
        self._number = 0
        self._renew: tuple[Path | None, bool] | None = None
        self._closing = self._suggests = False
        self.kept: Kept | None = None
        self.rests = False  # whether there is nothing to do
        self._thread = threading.Thread(target=self._work, name="solver", daemon=True)
        self._thread.start()

    def renew(self, model: Path | None, *, extend: bool) -> None:
        """Begin anew: there are other poses, of a run with or without a network.

        What labels had changed before is part of them, or is asked for again.
        """
        with self._condition:
            self._renew = model, extend
            self._touched = {}
            self._condition.notify()

    @property
    def is_renewed(self) -> bool:
        """Whether what is solved right now belongs to poses that are shown no more."""
        return self._renew is not None

    def touch(self, frames: Mapping[int, list[int]], number: int) -> None:
        """Ask to solve anew what labels on some frames of tracks change."""
        with self._condition:
            for track, own in frames.items():
                self._touched.setdefault(track, set()).update(own)
            self._number = number
            self._condition.notify()

    def suggest(self) -> None:
        """Ask which frames to label next."""
        with self._condition:
            self._suggests = True
            self._condition.notify()

    def close(self) -> None:
        """End the thread as soon as it can."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(5.0)  # it is a daemon: what it does is lost at no cost

    def _work(self) -> None:
        ahead: Iterator[None] = iter(())
        with suppress(PosewarperError), open_video(self._path) as video:
            while True:
                with self._condition:
                    while self.rests and not (
                        self._closing or self._suggests or self._renew is not None or self._is_asked()
                    ):
                        self._condition.wait()
                    if self._closing:
                        return
                    renew, self._renew = self._renew, None
                    asked = self._is_asked()
                    suggests = self._suggests and renew is None and not asked
                    self._suggests = self._suggests and not suggests
                    touched: dict[int, set[int]] = {}
                    if renew is None and asked:
                        touched, self._touched = self._touched, {}
                    number = self._number
                try:
                    if renew is not None:
                        # Its file has to be closed before another one can take its place.
                        ahead = iter(())
                        if self.kept is not None:
                            self.kept.close()
                        self.kept = None
                        self.kept = self._prepare(video, *renew)
                        ahead = iter(()) if self.kept is None else self.kept.look_ahead()
                        self._say(None)
                    elif touched:
                        self._solve(touched, number)
                    elif suggests:
                        self._suggest(video)
                    else:
                        self.rests = next(ahead, self) is self
                        continue
                    self.rests = False
                except Exception as error:  # whatever it is, the page goes on without
                    self.kept = None
                    why = first_sentence(error)
                    self._say(f"Labels cannot be solved anew at once; Propagate takes them in. ({why})")

    def _is_asked(self) -> bool:
        return self.kept is not None and bool(self._touched)

    def _solve(self, touched: Mapping[int, set[int]], number: int) -> None:
        labels, poses = self._ask()
        if labels is None or self.kept is None:
            return
        frames = {i: np.array(sorted(own), np.int64) for i, own in touched.items()}
        self._done(self.kept.solve(labels, frames, poses), number)

    def _suggest(self, video: Video) -> None:
        labels, tracks = self._ask()
        poses = None
        if labels is not None and tracks:
            names = labels.skeleton, tracks, video.image_size, video.n_frames, labels.labelled_frames
            poses = Poses(*names)
        by = choose_order(labels, poses)
        self._suggested(suggest_frames(video, labels, poses, count=_SUGGESTED, by=by, progress=self._halt))

    def _halt(self, what: str, done: int, total: int) -> None:
        if self._closing:
            raise ValueError("the page is closing")

    def _prepare(self, video: Video, model: Path | None, extend: bool) -> Kept | None:
        labels, _ = self._ask()
        if labels is None:
            return None
        self._say("Making ready to go again ...")
        from posewarper.fitting import FLOW, FLOW_DATA
        from posewarper.motion.flow import write_chains
        from posewarper.motion.kept_flow import find_flow
        from posewarper.propagation.clip import prepare_again, prepare_clip
        from posewarper.review.kept import Kept

        store = self._known_flow()
        if store is not None:
            clip = prepare_again(video, labels, store, extend=extend)
        else:
            data = self._folder / FLOW_DATA
            (self._folder / FLOW).unlink(missing_ok=True)
            data.unlink(missing_ok=True)
            known = find_flow(describe_inputs(video=Path(video.path))["video"]["sha256"])
            clip = prepare_clip(video, labels, extend=extend, kept=data, known=known, progress=self._tell)
            write_chains(self._folder / FLOW, clip.chains)
        return Kept(clip, model, extend=extend, device=self._device)

    def _tell(self, what: str, done: int, total: int) -> None:
        self._halt(what, done, total)
        self._say(f"Making ready to go again: {what} {done} of {total}")

    def _known_flow(self) -> FlowStore | None:
        """Return flow that is there: that of the run that goes on, or what is kept of an earlier one."""
        from posewarper.fitting import FLOW, FLOW_DATA
        from posewarper.motion.flow import read_chains

        if (self._parts / FLOW).is_file():
            with suppress(OSError):
                # The list of what is in the data goes first and comes last: it never lies beside other data.
                for name in (FLOW, FLOW_DATA):
                    (self._folder / name).unlink(missing_ok=True)
                for name in (FLOW_DATA, FLOW):
                    _link(self._parts / name, self._folder / name)
        with suppress(OSError, ValueError, KeyError):
            chains = read_chains(self._folder / FLOW, self._folder / FLOW_DATA)
            flow = next(iter(chains.values())).flow
            return None if flow is None else flow.store
        return None


def _link(source: Path, target: Path) -> None:
    """Make a file appear in another place, too, at once if the system can do that."""
    with suppress(OSError):
        # On Windows the run could not remove its own file as long as the other place is read from.
        if sys.platform != "win32":
            os.link(source, target)
            return
    shutil.copyfile(source, target)
