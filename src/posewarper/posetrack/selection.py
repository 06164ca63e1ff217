"""Which frames count as labelled: V videos and N frames of each, and the paper's every seventh of a run.

The original lists the frames of each experiment in a file of its own (``posetrack_train_N1_per_video``,
``..._V100_videos``, the same with ``_wPseudoGT``). Where there is no such file they are drawn. Draws are
nested: the videos of a smaller V are among those of a larger, the frames of a smaller N among those of a
larger, and what is drawn in one video depends on the seed and the video's name alone.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.errors import ConfigError, LabelsError
from posewarper.posetrack.annolist import require_posetrack
from posewarper.posetrack.dataset import Dataset, DatasetVideo
from posewarper.posetrack.samples import samples_from_labels
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK
from posewarper.structures import Floats, Ints

REACH = 3  # how many frames to either side a labelled frame stands for


class Step(NamedTuple):
    """One frame to fill: its number, that of its labelled frame, and the first minus the second."""

    number: int
    labelled: int
    delta: int


def longest_run(numbers: ArrayLike) -> Ints:
    """Return the longest stretch of consecutive numbers, rising; the first one on a tie."""
    numbers = np.unique(np.asarray(numbers, np.int64))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return max(runs, key=len)


def labelled_numbers(run: ArrayLike) -> list[int]:
    """Return which frames of a run of consecutive numbers count as labelled.

    Raises:
        LabelsError: if the run is too short for one.
    """
    run = np.asarray(run, np.int64)
    if len(run) <= REACH:
        raise LabelsError(
            "a video's longest run of consecutive frames is too short to choose labelled frames from",
            expected=f"{REACH + 1} frames or more",
            got=run.tolist(),
            fix="leave the video out, or list more of its frames",
        )
    chosen = run[REACH :: 2 * REACH + 1].tolist()
    last = int(run[-1])
    return [*chosen, last] if last - chosen[-1] > REACH else chosen


def propagation_plan(numbers: ArrayLike) -> list[Step]:
    """Return how the longest run of a video's frame numbers is filled from its labelled frames.

    There is one step a frame, the labelled ones with a delta of 0, in the original's order: each labelled
    frame first, then its neighbours.

    Raises:
        LabelsError: if the longest run has three frames or fewer.
    """
    run = longest_run(numbers)
    return nearest_steps(labelled_numbers(run), run.tolist(), REACH)


def nearest_steps(labelled: Iterable[int], frames: Iterable[int], reach: int) -> list[Step]:
    """Return how frames within ``reach`` of labelled ones are filled: from the nearer, or the earlier."""
    there = set(frames)
    steps: dict[int, Step] = {}
    for source in labelled:
        for delta in (0, *range(-reach, 0), *range(1, reach + 1)):
            known = steps.get(source + delta)
            if source + delta in there and (known is None or abs(delta) < abs(known.delta)):
                steps[source + delta] = Step(source + delta, source, delta)
    return list(steps.values())


def _draws(seed: int, video: str) -> NDArray[np.float64]:
    """Return two numbers from 0 to 1 that decide the video's place in the queue and its first frame."""
    return np.random.default_rng((seed, zlib.crc32(video.encode()))).random(2)


def draw_videos(names: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """Draw ``count`` of the videos, all subsets of that size being equally likely; in the order given.

    Raises:
        ConfigError: if there are fewer videos.
    """
    if count > len(names):
        raise ConfigError(
            "there are fewer labelled videos than should be drawn",
            expected=f"at most {len(names)}",
            got=count,
            fix="ask for fewer videos",
        )
    chosen = set(sorted(names, key=lambda name: (_draws(seed, name)[0], name))[:count])
    return tuple(name for name in names if name in chosen)


def draw_frames(numbers: ArrayLike, count: int, seed: int, video: str) -> Ints:
    """Draw some of a video's labelled frames, spread over them.

    The first is drawn, by the seed and the video's name. Each next one lies a golden section of all labelled
    frames further, and starts again at the beginning after the end; where that frame is already taken, the
    nearest other one is. Returns ``count`` of the numbers, or all where there are no more, rising.
    """
    rest = np.unique(np.asarray(numbers, np.int64)).tolist()
    every, start = np.array(rest), _draws(seed, video)[1]
    golden = (np.sqrt(5) - 1) / 2
    drawn: list[int] = []
    for n in range(min(count, len(every))):
        wanted = every[int((start + n * golden) % 1 * len(every))]
        drawn.append(min(rest, key=lambda number: (abs(number - wanted), number)))
        rest.remove(drawn[-1])
    return np.sort(np.array(drawn, np.int64))


def find_selection(dataset: Dataset, split: str, videos: int | None, labelled: int | None) -> str | None:
    """Return the stem of the original's file for V videos (None for all) and N labelled frames, if any."""
    if labelled is None:
        return None
    stem = f"posetrack_{split}_N{labelled}_per_video"
    stems = [f"{stem}_V{videos}_videos"]  # of None there is no file
    if videos is None or videos == len(dataset.of_split(split)):
        stems.append(stem)
    return next((one for one in stems if one in dataset.selections), None)


@dataclass(frozen=True)
class SelectedLabels:
    """The n instances of a file of the original."""

    frame_names: tuple[str, ...]  # n, without leading ``images/``
    keypoints: Floats  # (n, 17, 2) xy in pixels, NaN where there is none
    boxes: Floats  # (n, 4) xywh in pixels, cut to the image as the original does


def read_selection(dataset: Dataset, selection: str | os.PathLike[str]) -> SelectedLabels:
    """Read labelled frames from a file of the original, by its path or stem in ``dataset.selections``.

    Instances of which the original makes no samples are left out.

    Raises:
        LabelsError: if there is no such file, or it is not of this kind.
    """
    path = dataset.selections.get(os.fspath(selection), Path(selection))
    if not path.is_file():
        raise LabelsError(
            "there is no such selection of labelled frames",
            path=path,
            expected=", ".join(dataset.selections) or "the path of a file; the dataset has none of its own",
            got=os.fspath(selection),
            fix="name one of these, or a file; or leave it out and give the numbers of videos and frames",
        )
    names: list[str] = []
    keypoints, boxes = [np.zeros((0, len(POSETRACK), 2))], [np.zeros((0, 4))]
    for table in read_tables(path).values():
        require_posetrack(table)
        samples = samples_from_labels(table, aspect_ratio=1.0)  # for the choice of instances and their boxes
        names += [table.frame_names[row] for row in samples.rows]
        keypoints.append(table.keypoints[samples.instances])
        boxes.append(samples.boxes)
    return SelectedLabels(tuple(names), np.concatenate(keypoints), np.concatenate(boxes))


def find_frames(
    dataset: Dataset, videos: Sequence[DatasetVideo], names: Sequence[str]
) -> list[tuple[int, int] | None]:
    """Return for each frame name the position of its video and its number, None where there is no such frame.

    Names have no leading ``images/``, and are regular ones (the original's) or the download's.
    """
    at = {video.folder: v for v, video in enumerate(videos)}
    files: dict[int, dict[str, int]] = {}

    def find(name: str) -> tuple[int, int] | None:
        folder, _, base = name.rpartition("/")
        v, stem = at.get(folder), base.rsplit(".", 1)[0]
        if v is None:
            return None
        if v not in files and not stem.isdecimal():
            files[v] = {dataset.frame_path(videos[v], n).name: n for n in videos[v].numbers}
        number = int(stem) if stem.isdecimal() else files[v].get(base)
        return (v, number) if number is not None and number in videos[v].numbers else None

    return [find(name) for name in names]
