"""What every label format is read into before it becomes :class:`Labels`, and what formats have in common.

Other tools call tracks by names alone, some instances may have none, and no format holds everything that
labels hold: :data:`PIECES` lists what that is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

from posewarper.crops import Image
from posewarper.errors import LabelsError, OutputError, few_of, unknown_name
from posewarper.formats.records import LARGEST_COORDINATE, LARGEST_INDEX, PathLike, warn
from posewarper.skeletons import PRESETS, Skeleton
from posewarper.structures import Floats, Ints, Labels, Track

# Instances of two labelled frames are taken for the same one only if they lie closer than this many times
# their size, and this many more for each frame in between: sparse labels are far apart in time, so a runner
# may have moved by more than its own length.
_FARTHEST_LINK, _FASTEST_LINK = 1.5, 0.25
# Of what a format writes for each frame: so much always, and beyond it so many times what there is to write.
_MOST_FRAMES, _MOST_ROOM, _MOST_GAPS = 10_000_000, 20_000_000, 100


class VideoFacts(Protocol):
    """What reading labels asks of an opened video; ``frame_names`` is empty unless it is a folder."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        ...

    @property
    def frame_names(self) -> Sequence[str]:
        """File names of the frames of a folder, in order."""
        ...

    @property
    def path(self) -> str | os.PathLike[str]:
        """The video file or the folder."""
        ...

    @property
    def times(self) -> Floats:
        """(n_frames,) seconds from the first frame to each; of a folder they are made up."""
        ...

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """Yield (index, frame (H, W, 3) uint8 RGB) in the order given."""
        ...


@dataclass
class Instance:
    """One annotation: keypoints (K, 2) xy in pixels, NaN where visibility (K,) is 0; boxes (4,) xywh.

    ``labelled`` (K,) is None where the file does not tell it: labelled is then what is there.
    """

    frame: int
    track: int | None
    keypoints: Floats
    visibility: np.ndarray
    where: str
    box: Floats | None = None
    head_box: Floats | None = None
    scores: Floats | None = None
    expected_error: Floats | None = None
    labelled: np.ndarray | None = None


@dataclass
class Clip:
    """The content of a label file for one video. The fields are those of :class:`Labels`.

    ``another_video`` is what the file calls the video, where the opened one is called otherwise.
    """

    skeleton: Skeleton
    instances: list[Instance]
    labelled_frames: set[int]
    image_size: tuple[int, int] | None = None
    n_frames: int | None = None
    video: str | None = None
    frame_names: dict[int, str] = field(default_factory=dict)
    ignore_regions: dict[int, tuple[Floats, ...]] = field(default_factory=dict)
    track_names: dict[int, str] = field(default_factory=dict)
    another_video: str | None = None


def group_by_track(instances: Sequence[Instance], path: PathLike) -> dict[int, list[Instance]]:
    """Return the instances of each track, by rising frame; missing track ids are made up by linking.

    Raises:
        LabelsError: if a track is in a frame twice, or only some instances name their track.
    """
    ordered = sorted(instances, key=lambda instance: instance.frame)
    nameless = [instance for instance in ordered if instance.track is None]
    if nameless and len(nameless) < len(ordered):
        raise LabelsError(
            f"{nameless[0].where}: track_id is missing, while others have one",
            path=path,
            fix="give every annotation a track_id, or none",
        )
    if nameless:
        _link(ordered, path)
    tracks: dict[int, list[Instance]] = {}
    for instance in ordered:
        assert instance.track is not None
        track = tracks.setdefault(instance.track, [])
        if track and track[-1].frame == instance.frame:
            raise LabelsError(
                f"{instance.where}: track {instance.track} is in frame {instance.frame} twice",
                path=path,
                expected="one instance of a track in a frame",
                got=f"{track[-1].where} and {instance.where}",
                fix="give the two instances different track ids, or remove one",
            )
        track.append(instance)
    return tracks


def _link(instances: Sequence[Instance], path: PathLike) -> None:
    """Set the track of instances that name none: nearest to nearest over the labelled frames, in place."""
    frames: dict[int, list[Instance]] = {}
    for instance in instances:
        frames.setdefault(instance.frame, []).append(instance)
        instance.track = 0
    if len(frames) == len(instances):
        return
    last: list[Instance] = []  # of each track, its newest instance
    for group in frames.values():
        free = list(group)
        if last:
            # Capped, so that a pair out of reach does not bend the others.
            costs = np.array([[min(_nearness(a, b), 1.0) for b in group] for a in last])
            for i, j in zip(*linear_sum_assignment(costs), strict=True):
                if costs[i, j] < 1:
                    group[j].track, last[i] = int(i), group[j]
                    free = [instance for instance in free if instance is not group[j]]
        for instance in free:
            instance.track = len(last)
            last.append(instance)
    text = "the annotations have no track_id; instances were linked over time by their distance into"
    warn(path, f"{text} {len(last)} tracks. Give track ids if that is wrong.")


def _nearness(a: Instance, b: Instance) -> float:
    """Return how far apart two instances are, as a share of how far one may move between their frames.

    That is the mean distance of the keypoints that both have, in sizes of the larger instance. Where neither
    has a size, being a single point without a box, any distance is near.
    """
    both = (a.visibility > 0) & (b.visibility > 0)
    points = [i.keypoints[i.visibility > 0] for i in (a, b)]
    sides = [np.ptp(xy, axis=0).max() for xy in points]
    sides += [i.box[2:].max() for i in (a, b) if i.box is not None and np.isfinite(i.box).all()]
    apart = points[0].mean(0) - points[1].mean(0)
    if both.any():
        apart = a.keypoints[both] - b.keypoints[both]
    distance = float(np.linalg.norm(apart, axis=-1).mean())
    reach = max(sides) * (_FARTHEST_LINK + _FASTEST_LINK * abs(b.frame - a.frame))
    return distance / reach if reach >= 1 else min(distance / LARGEST_COORDINATE, 0.5)


def doubt_tracks(clip: Clip, path: PathLike, *, forget: bool) -> None:
    """Warn of track ids that seem to number the instances, because no two frames share a track.

    With ``forget`` such ids are removed, in place, and the instances will be linked by distance; names that
    people give are believed. Instances without ids that cannot be one individual are then warned of as well.
    """
    ids = [instance.track for instance in clip.instances]
    n_frames = len({instance.frame for instance in clip.instances})
    names = [clip.track_names.get(track) for track in ids if track is not None]
    # "ann" and "bob" are names, "det_1" and "det_2" are numbers.
    by_people = all(names) and len({re.sub("[0-9]+", "", str(name)) for name in names}) > 1
    # A few may share an id by chance.
    if n_frames > 1 and None not in ids and len(set(ids)) > 0.9 * len(ids) and not by_people:
        then = "the tracks are kept"
        if forget:
            then = "they are not used, and instances are linked over time by their distance"
            clip.track_names = {}
            for instance in clip.instances:
                instance.track = None
        warn(
            path,
            f"tracks have a single instance each ({len(set(ids))} tracks on {n_frames} frames), as where ids "
            f"number rows or detections; {then}. Give an individual the same id in every frame.",
        )
    if forget and n_frames == len(ids) and all(i.track is None for i in clip.instances):
        ordered = sorted(clip.instances, key=lambda instance: instance.frame)
        far = [(a.frame, b.frame) for a, b in pairwise(ordered) if _nearness(a, b) >= 1]
        if far:
            warn(
                path,
                "each frame has one instance and no track id, so all are taken for one track, but those of "
                f"frames {far[0][0]} and {far[0][1]} are far apart ({len(far)} such steps). Give track ids "
                "if they are not the same individual.",
            )


def read_edges(
    pairs: Sequence[object], names: Sequence[str], first: int, path: PathLike, where: str
) -> tuple[tuple[int, int], ...]:
    """Return the edges of a file as pairs of indices from 0, whether it counts from 0 or from 1.

    ``first`` is what the format counts from. The file counts from the other of the two if its pairs fit that
    way alone, or if only that way the edges of the left are those of the right. Names stand for themselves.

    Warns:
        PosewarperWarning: if it does, and about pairs that are left out because they are no edges.
    """
    k, index = len(names), {name: i for i, name in enumerate(names)}
    good = [p for p in pairs if isinstance(p, list | tuple) and len(p) == 2 and p[0] != p[1]]
    numbers = [(p[0], p[1]) for p in good if type(p[0]) is int and type(p[1]) is int]
    named = [(index[p[0]], index[p[1]]) for p in good if isinstance(p[0], str) and set(p) <= index.keys()]
    order = Skeleton(tuple(names)).flip_order

    def count(base: int) -> tuple[list[tuple[int, int]], float]:
        edges = [(a - base, b - base) for a, b in numbers if 0 <= a - base < k and 0 <= b - base < k]
        sides = {frozenset(edge) for edge in edges}
        alike = sum({order[a], order[b]} in sides for a, b in edges)
        return edges, alike / max(len(edges), 1) if order != tuple(range(k)) else 0.0

    (usual, alike), (other, alike_other) = count(first), count(1 - first)
    found, ends = {number for pair in numbers for number in pair}, (0, k)
    if ends[1 - first] in found and ends[first] in found:
        usual = []  # neither way
    elif ends[1 - first] in found or (len(usual) == len(other) > 3 and alike < 0.8 and alike_other > 0.95):
        warn(path, f"{where}: the edges of the skeleton are counted from {1 - first}, and are read so")
        usual = other
    edges = (*named, *usual)
    if len(edges) < len(pairs):
        warn(
            path,
            f"{where}: edges of the skeleton are left out that are no pairs of keypoint numbers from "
            f"{first} to {k - 1 + first}",
        )
    return edges


def choose_skeleton(path: PathLike, skeletons: Sequence[Skeleton], wanted: Skeleton | str | None) -> Skeleton:
    """Return the skeleton of a file, or the one that is wanted of several: by its name, or by its keypoints.

    Raises:
        LabelsError: if there are several and none is wanted, or none is as wanted.
    """
    different: list[Skeleton] = []
    for skeleton in skeletons:
        if all(skeleton.names != known.names for known in different):
            different.append(skeleton)
    chosen = different
    if isinstance(wanted, str):
        chosen = [s for n, s in enumerate(different, start=1) if wanted in (s.name, str(n))]
    elif wanted is not None and len(different) > 1:
        chosen = [skeleton for skeleton in different if skeleton.names == wanted.names]
    if len(chosen) == 1:
        return chosen[0]
    if isinstance(wanted, str) and not chosen:
        known = [*(s.name for s in different), *PRESETS]
        raise unknown_name("unknown skeleton", wanted, known, path=path, error=LabelsError)
    listed = [f"{n}: {s.name} ({len(s)} keypoints)" for n, s in enumerate(different, start=1)]
    raise LabelsError(
        "the file has labels of several skeletons",
        path=path,
        expected="labels of one" if wanted is None else f"{getattr(wanted, 'name', wanted)} among them",
        got=few_of(listed, 10),
        fix="choose one by its name or number: posewarper convert IN OUT.json --skeleton 1",
    )


def need_same_keypoints(first: Skeleton, other: Skeleton, path: PathLike) -> None:
    """Raise LabelsError unless labels have the keypoints of the ``first`` ones, in their order."""
    if other.names != first.names:
        raise LabelsError(
            "the labels have other keypoints than those of the first video",
            path=path,
            expected=", ".join(first.names),
            got=", ".join(other.names),
            fix="give labels of one skeleton, with its keypoints in one order",
        )


def join_loose(clips: Sequence[Clip], path: PathLike) -> Clip:
    """Return the loose images of several videos as one, numbered on; their tracks keep their ids.

    Raises:
        LabelsError: if there are none, or their skeletons differ.
    """
    first, frames = 0, []
    for clip in clips:
        need_same_keypoints(clips[0].skeleton, clip.skeleton, path)
        for instance in clip.instances:
            instance.frame += first
        frames += [{frame + first: name for frame, name in clip.frame_names.items()}]
        clip.labelled_frames = {frame + first for frame in clip.labelled_frames}
        first += len(clip.frame_names)
    if not clips:
        raise LabelsError("no video of the project has labels", path=path, fix="label some frames and save")
    return Clip(
        clips[0].skeleton,
        [instance for clip in clips for instance in clip.instances],
        set().union(*(clip.labelled_frames for clip in clips)),
        frame_names={frame: name for own in frames for frame, name in own.items()},
    )


def need_all_tracks(instances: Sequence[Instance], path: PathLike) -> None:
    """Forget the tracks, in place, if only some instances have one; they are then linked by distance.

    Warns:
        PosewarperWarning: if that is so.
    """
    nameless = sum(instance.track is None for instance in instances)
    if 0 < nameless < len(instances):
        count = len(instances)
        warn(path, f"{nameless} of {count} instances have no track; the tracks of the others are not used")
        for instance in instances:
            instance.track = None


def settle(clip: Clip, path: PathLike, fix: str) -> Clip:
    """Return what a project holds with its numbers checked, and with the names of tracks that it uses.

    Raises:
        LabelsError: if a coordinate or a frame is out of reach; ``fix`` says what to do.

    Warns:
        PosewarperWarning: as :func:`need_all_tracks`.
    """
    for instance in clip.instances:
        far = (np.abs(instance.keypoints) > LARGEST_COORDINATE).any(-1)
        if instance.frame > LARGEST_INDEX or far.any():
            raise LabelsError(
                f"{instance.where}: a coordinate is wrong",
                path=path,
                expected="coordinates in pixels",
                got=instance.keypoints[np.argmax(far)],
                fix=fix,
            )
    need_all_tracks(clip.instances, path)
    doubt_tracks(clip, path, forget=False)
    used = {instance.track for instance in clip.instances}
    clip.track_names = {i: name for i, name in clip.track_names.items() if i in used}
    return clip


def _default_track(track: int) -> str:
    return f"track_{track}"


def has_one_nameless_track(labels: Labels) -> bool:
    """Return whether a single track need not be told from others: it is written without a name."""
    return list(labels.tracks) == [0] and 0 not in labels.track_names


def name_all_tracks(labels: Labels, default: Callable[[int], str] = _default_track) -> dict[int, str]:
    """Return a name for each track, no two alike; ``default`` gives that of a track (by id) that has none.

    :func:`identify_tracks` undoes it.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    for track in labels.tracks:
        name = labels.track_names.get(track) or default(track)
        while name in taken:
            name += "_"
        names[track] = name
        taken.add(name)
    return names


def identify_tracks(names: Sequence[str]) -> tuple[list[int], dict[int, str]]:
    """Return the id of each track and the names of those that have one of their own.

    Names such as ``track_4``, as SLEAP's tracker and this program give them, tell the id, if all are such.
    """
    numbers = [int(m[1]) for name in names if (m := re.fullmatch("track_([0-9]{1,10})", name))]
    if len(set(numbers)) == len(names) and max(numbers, default=0) <= LARGEST_INDEX:
        return numbers, {}
    return list(range(len(names))), {i: n for i, n in enumerate(names) if n and n != _default_track(i)}


def each_instance(labels: Labels, *, empty: bool = False) -> Iterator[tuple[int, int, Track, int]]:
    """Yield the frame, the track's id, the track and the row in it of every instance that shows something.

    With ``empty`` also those of labelled frames without keypoints, which say something by that.
    """
    for track_id, track in labels.tracks.items():
        wanted = (track.visibility > 0).any(1)
        wanted |= np.isin(track.frames, labels.labelled_frames) & empty
        for row in np.flatnonzero(wanted).tolist():
            yield int(track.frames[row]), track_id, track, row


def losses_of_projects(labels: Labels) -> list[str]:
    """Return which :data:`PIECES` are lost where tracks go by names and only predictions have scores."""
    names = name_all_tracks(labels)
    ids, _ = identify_tracks(list(names.values()))
    lost = ["track ids where tracks have names"] if ids != list(labels.tracks) else []
    if any(names.get(i, name) != name for i, name in labels.track_names.items()):
        lost.append("track names that two tracks have")
    scores = [track.at(labels.labelled_frames).keypoint_scores for track in labels.tracks.values()]
    return lost + (["scores of labels"] if any(np.isfinite(s).any() for s in scores) else [])


def _in_a_track(test: Callable[[Track], np.ndarray]) -> Callable[[Labels], bool]:
    return lambda labels: any(bool(test(track).any()) for track in labels.tracks.values())


def _in_labelled_rows(test: Callable[[Track], np.ndarray]) -> Callable[[Labels], bool]:
    return lambda labels: _in_a_track(test)(labels.at(labels.labelled_frames))


def _count_frames(labels: Labels) -> int:
    """Return the number of frames of the video, or up to the last one that holds something."""
    frames = np.union1d(labels.labelled_frames, labels.instance_frames)
    return labels.n_frames or (int(frames[-1]) + 1 if frames.size else 0)


# Piece -> whether some labels hold it. The names are the words of warnings and of the table of formats.
PIECES: Mapping[str, Callable[[Labels], bool]] = {
    "the keypoints' names": lambda labels: True,
    "what an instance is called": lambda labels: labels.skeleton.name not in ("person", "animal"),
    "which keypoints are hidden": _in_a_track(lambda track: track.visibility == 1),
    "which keypoints are absent": _in_labelled_rows(lambda track: track.absent),
    "which keypoints of labelled frames are predictions": _in_labelled_rows(lambda track: track.predicted),
    "which tracks nobody has looked at": _in_labelled_rows(
        lambda track: np.asarray(track.not_looked_at.all(1))
    ),
    "boxes": _in_a_track(lambda track: np.isfinite(track.boxes)),
    "head boxes": _in_a_track(lambda track: np.isfinite(track.head_boxes)),
    "scores": _in_a_track(lambda track: np.isfinite(track.keypoint_scores)),
    "scores of 0 and below": _in_a_track(lambda track: (track.visibility > 0) & (track.keypoint_scores <= 0)),
    "which keypoints have no score": _in_a_track(
        lambda track: (track.visibility > 0) & np.isnan(track.keypoint_scores)
    ),
    "expected errors": _in_a_track(lambda track: np.isfinite(track.expected_error)),
    "which poses are predictions": lambda labels: bool(
        np.setdiff1d(labels.instance_frames, labels.labelled_frames).size
    ),
    "which frames nobody has labelled": lambda labels: (
        len(np.union1d(labels.labelled_frames, labels.instance_frames)) < _count_frames(labels)
    ),
    "labelled frames that show nobody": lambda labels: bool(
        np.setdiff1d(labels.labelled_frames, labels.instance_frames).size
    ),
    "track ids": lambda labels: list(labels.tracks) != list(range(len(labels.tracks))),
    "track names": lambda labels: bool(labels.track_names),
    "edges": lambda labels: bool(labels.skeleton.edges),
    "mirror pairs": lambda labels: labels.skeleton.flip_pairs != Skeleton(labels.skeleton.names).flip_pairs,
    "ignore regions": lambda labels: bool(labels.ignore_regions),
    "the image size": lambda labels: labels.image_size is not None,
    "the number of frames": lambda labels: labels.n_frames is not None,
    "the video's name": lambda labels: labels.video is not None,
    "the names of the frames' files": lambda labels: bool(labels.frame_names),
}


def frames_of_times(
    known: Floats, path: PathLike, *, own: Floats | None = None, start: float = 0.0, rate: float | None = None
) -> Ints:
    """Return the frame index of each time (n,) at which a file has predictions.

    Args:
        known: times in seconds, rising, no two alike.
        path: the file, for messages.
        own: the times of all frames of the video, where they are known; the nearest one counts.
        start: the time of the first frame, and
        rate: frames a second, where they are known instead. Without either, times that are whole numbers are
            frame indices, and others are counted from the first one in their usual step.

    Raises:
        LabelsError: if two times belong to the same frame, or a frame lies out of reach.

    Warns:
        PosewarperWarning: if frames are counted by the usual step, and times are missing.
    """
    if own is not None:
        frames = np.searchsorted((own[1:] + own[:-1]) / 2, known)
    elif rate is not None:
        frames = np.round((known - start) * rate)
    elif (known == np.round(known)).all():
        frames = known
    else:
        steps = np.diff(known)
        frames = np.arange(len(known))
        if steps.max(initial=0) > 1.5 * np.median(steps):
            frames = np.round((known - known[0]) / np.median(steps))
            warn(
                path,
                "the times of the predictions have gaps; frames were counted from the first time, "
                f"{np.median(steps):.4g} s each",
            )
    if known.size and not (
        frames.min() >= 0 and frames.max() <= LARGEST_INDEX and (np.diff(frames) > 0).all()
    ):
        raise LabelsError(
            "the times of the predictions do not tell the frames",
            path=path,
            expected="a time of its own for each frame, in seconds from the first",
            got=f"{len(known)} times from {known[0]:g} to {known[-1]:g} s",
            fix="export it again with the times of the video's frames",
        )
    return frames.astype(np.int64)


def frames_to_write(path: PathLike, labels: Labels, what: str, room: int = 1) -> int:
    """Return how many frames a format has that writes something (``what``) for each frame of the video.

    ``room`` is the number of values that a frame takes, whether there are any or not.

    Raises:
        OutputError: if there are more than in days of video, or next to nothing in many of them, as a wrong
            frame index makes them.
    """
    count = _count_frames(labels)
    held = labels.labelled_frames.size + sum(len(track.frames) for track in labels.tracks.values())
    if count > _MOST_FRAMES or count * room > max(_MOST_ROOM, _MOST_GAPS * held * room):
        raise OutputError(
            f"too many {what}, one for each frame",
            path=path,
            expected=f"{_MOST_FRAMES} frames at most, and something in more than every {_MOST_GAPS}th",
            got=f"{count} by the number of frames or the last labelled one, and {held} instances",
            fix="correct the frame indices, or write a format that lists labelled frames alone",
        )
    return count
