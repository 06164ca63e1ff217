"""From the names of image files to frame indices, and from the names of videos to the one that is meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from posewarper.errors import LabelsError, few_of
from posewarper.formats.clips import VideoFacts
from posewarper.formats.records import LARGEST_INDEX, PathLike, warn


def base_name(name: str) -> str:
    """Return a path's last part; both kinds of slash separate, since labels travel between systems."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def folder_name(name: str) -> str | None:
    """Return the name of the folder that a path's last part lies in, or None."""
    parts = name.replace("\\", "/").split("/")
    return parts[-2] or None if len(parts) > 1 else None


def frame_name(name: str) -> str:
    """Return the name of an image as tables hold it: ``/`` between folders, no leading ``images/``."""
    return name.replace("\\", "/").removeprefix("./").removeprefix("images/")


def without_upload(name: str) -> str:
    """Return a path's last part without what Label Studio puts before the names of uploaded files.

    That is ``1a2b3c4d-`` in ``/data/upload/3/1a2b3c4d-frame_0012.png``.
    """
    return re.sub(r"^(\?d=)?([0-9a-f]{8}-)?", "", base_name(name))


def stem_of(name: str) -> str:
    """Return a path's last part without its suffix."""
    base = base_name(name)
    return base.rsplit(".", 1)[0] or base


def video_stem(video: str | None) -> str:
    """Return what to call the video in the names of files, also where it has no name."""
    return stem_of(video) if video else "video"


def number_in(name: str) -> int | None:
    """Return the last number in a file's name, 12 of ``clip2/img0012.png``, or None."""
    runs = re.findall("[0-9]+", stem_of(without_upload(name)))
    digits = runs[-1].lstrip("0") or "0" if runs else ""
    return int(digits) if digits and len(digits) <= 10 and int(digits) <= LARGEST_INDEX else None


def warn_of_numbers(path: PathLike, names: Mapping[int, str]) -> None:
    """Warn if the names of the frames' images (frame -> name) bear other numbers than the frames."""
    if any(number_in(name) != frame for frame, name in names.items()):
        warn(path, "the images are numbered otherwise than the frames; read it with the folder of frames")


def find_frame_indices(
    path: PathLike,
    places: Sequence[str],
    names: Sequence[str | None],
    given: Sequence[int | None],
    video: VideoFacts | None,
) -> list[int]:
    """Return the frame index of each image of a label file.

    The files of a folder of frames count first, where all ``names`` are found there; then the index that the
    label file has ``given``; then the number in the file's name. ``places`` name the images in messages.

    Raises:
        LabelsError: if an image is not in the folder, has no number, or two have the same index.
    """
    found = _find_in_folder(names, video)
    if names and all(index is not None for index in found):
        if any(g not in (None, f) for g, f in zip(given, found, strict=True)):
            warn(path, "frame_id differs from the image's place in the folder of frames; the place counts")
        indices = found
    elif any(index is not None for index in found) and any(g is None for g in given):
        i = found.index(None)
        raise LabelsError(
            f"{places[i]}: this image is not in the folder of frames, although others are",
            path=path,
            got=names[i],
            fix="use the folder that the labels were made on, or remove the image from the labels",
        )
    else:
        pairs = zip(given, names, strict=True)
        indices = [number_in(name) if index is None and name else index for index, name in pairs]
    seen: dict[int, str] = {}
    for place, name, index in zip(places, names, indices, strict=True):
        if index is None:
            raise LabelsError(
                f"{place}: cannot tell which frame of the video this image is",
                path=path,
                expected="a file name with the frame's number, like img0012.png for the 13th frame",
                got=name if name else "no file_name",
                fix="number the file names from 0, add frame_id, or give the folder of frames as video",
            )
        if index in seen:
            raise LabelsError(
                f"{place}: this image is the same frame as another",
                path=path,
                expected="one image a frame",
                got=f"frame {index} for {seen[index]} and {place}",
                fix="remove one of the two, or correct its frame number",
            )
        seen[index] = place
    return list(seen)


def _find_in_folder(names: Sequence[str | None], video: VideoFacts | None) -> list[int | None]:
    """Return the place of each name among the frames of a folder, None for those not found.

    Where no name is found as it is, the suffix is left out (labels made on .png, frames kept as .jpg), or
    what Label Studio puts before the names of uploaded files, or both.
    """
    frame_names = video.frame_names if video is not None else ()
    # How to shorten the names in the labels, and then both kinds of names.
    ways = (
        (base_name, base_name),
        (base_name, stem_of),
        (without_upload, base_name),
        (without_upload, stem_of),
    )
    for strip, simplify in ways:
        place = {simplify(name): i for i, name in enumerate(frame_names)}
        found = [place.get(simplify(strip(name))) if name else None for name in names]
        if len(place) == len(frame_names) and any(index is not None for index in found):
            return found
    return [None] * len(names)


def choose_video(
    path: PathLike,
    names: Mapping[str, Iterable[str]],
    video: VideoFacts | None,
    labelled: Collection[str] | None = None,
) -> str:
    """Return the key of the video that is meant, of those that a label file or a project is about.

    ``names`` gives for each key the names that this video goes by in the file; the name of the opened video
    picks one. ``labelled`` are the keys of those with labels or predictions, None for all.

    Raises:
        LabelsError: if none has labels, several have and none is picked, or the one picked has none.
    """
    opened = Path(video.path).absolute() if video is not None else None
    wanted = {opened.name, opened.stem} if opened is not None else set()
    meant = [key for key, others in names.items() if wanted & {key, *others}]
    if labelled is not None:
        if not labelled:
            fix = "label some frames and save"
            raise LabelsError("no video of the project has labels", path=path, fix=fix)
        if opened is not None and meant and not set(meant) & set(labelled):
            raise LabelsError(
                "this video of the project has no labels",
                path=path,
                expected=f"labels of {opened.name}",
                got=f"labels of {', '.join(sorted(labelled)[:10])}",
                fix="label some frames of it and save, or give a video that has labels",
            )
        names = {key: names[key] for key in names if key in labelled}
    chosen = list(names) if len(names) == 1 else [key for key in meant if key in names]
    if len(chosen) == 1:
        return chosen[0]
    listed = few_of(sorted({"/".join(sorted({key, *others})) for key, others in names.items()}), 10)
    raise LabelsError(
        f"the file holds labels of {len(names)} videos",
        path=path,
        expected="labels of one video, or a video whose name is one of them",
        got=f"{listed}; " + (f"the video opened is {opened.name}" if opened else "no video opened"),
        fix="give the video, named like one of them, or keep the labels of one video in a file of their own",
    )
