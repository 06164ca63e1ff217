"""What the projects of other tools share: several videos, and tracks that go by names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.clips import Instance, VideoFacts
from posewarper.formats.frame_names import choose_video
from posewarper.formats.records import LARGEST_INDEX, PathLike
from posewarper.structures import Labels


def choose_labelled(
    path: PathLike, names: Mapping[str, Iterable[str]], labelled: Collection[str], video: VideoFacts | None
) -> str:
    """Return the key of the video that is meant, of those of a project that have labels.

    Args:
        path: the project.
        names: key -> the names that this video goes by.
        labelled: keys of the videos that have labels or predictions.
        video: the opened video; its own name picks one.

    Raises:
        LabelsError: if none has labels, several have and none is picked, or the one picked has none.
    """
    if not labelled:
        raise LabelsError("no video of the project has labels", path=path, fix="label some frames and save")
    if video is not None:
        opened = Path(video.path).absolute()
        wanted = {opened.name, opened.stem}
        meant = [key for key, others in names.items() if wanted & {key, *others}]
        if meant and not set(meant) & set(labelled):
            raise LabelsError(
                "this video of the project has no labels",
                path=path,
                expected=f"labels of {opened.name}",
                got=f"labels of {', '.join(sorted(labelled)[:10])}",
                fix="label some frames of it and save, or give a video that has labels",
            )
    return choose_video(path, {key: names[key] for key in names if key in labelled}, video)


def default_track(track: int) -> str:
    """Return what a track without a name is called in tools whose tracks go by names alone."""
    return f"track_{track}"


def name_all_tracks(labels: Labels) -> dict[int, str]:
    """Return a name for each track, no two alike; :func:`identify_tracks` undoes it."""
    names: dict[int, str] = {}
    for track in labels.tracks:
        name = labels.track_names.get(track) or default_track(track)
        while name in names.values():
            name += "_"
        names[track] = name
    return names


def identify_tracks(names: Sequence[str]) -> tuple[list[int], dict[int, str]]:
    """Return the id of each track and the names of those that have one of their own.

    Names such as ``track_4``, as SLEAP's tracker and this program give them, tell the id, if all are such.
    """
    numbers = [int(m[1]) for name in names if (m := re.fullmatch("track_([0-9]{1,10})", name))]
    if len(set(numbers)) == len(names) and max(numbers, default=0) <= LARGEST_INDEX:
        return numbers, {}
    return list(range(len(names))), {i: n for i, n in enumerate(names) if n and n != default_track(i)}


def losses_of_names(labels: Labels) -> list[str]:
    """Return what is lost where tracks go by names alone; the words begin with a piece that labels hold."""
    names = name_all_tracks(labels)
    ids, _ = identify_tracks(list(names.values()))
    changed = [i for i, name in labels.track_names.items() if names.get(i, name) != name]
    return [
        *(["track ids where tracks have names"] if ids != list(labels.tracks) else []),
        *(["track names that two tracks have"] if changed else []),
    ]


def need_all_tracks(instances: Sequence[Instance], path: PathLike) -> None:
    """Forget the tracks, in place, if only some instances have one; they are then linked by distance.

    Warns:
        PosewarperWarning: if that is so.
    """
    nameless = sum(instance.track is None for instance in instances)
    if 0 < nameless < len(instances):
        warnings.warn(
            f"{path}: {nameless} of {len(instances)} instances have no track; the tracks of the others are "
            "not used",
            PosewarperWarning,
            stacklevel=2,
        )
        for instance in instances:
            instance.track = None
