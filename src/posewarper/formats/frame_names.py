"""From the names of image files to frame indices, and from the names of videos to the one that is meant."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from posewarper.crops import Image
from posewarper.errors import LabelsError, VideoError, few_of, unknown_name
from posewarper.formats.clips import Clip, VideoFacts
from posewarper.formats.records import LARGEST_INDEX, VIDEO_SUFFIXES, LabelFile, PathLike, warn
from posewarper.video.comparison import show_the_same
from posewarper.video.images import read_image


def base_name(name: str) -> str:
    """Return a path's last part; both kinds of slash separate, since labels travel between systems."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def leads_out(name: str) -> bool:
    """Return whether a path that a file names leads out of the folder in which it begins."""
    path = name.replace("\\", "/")
    return path.startswith("/") or path[1:2] == ":" or ".." in path.split("/")


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
    return _as_index(runs[-1]) if runs else None


def _as_index(digits: str) -> int | None:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 10 and int(digits) <= LARGEST_INDEX else None


# --- which number in a name is the frame's ----------------------------------------------------------------

# Parts of names whose digits are no frame: Roboflow's hash at the end, what Label Studio puts before, other
# hashes, the suffix of the video or of the image within the name, dates, and decimals, as seconds are.
_NO_NUMBER = re.compile(
    r"\.rf\..*$|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|^(\?d=)?[0-9a-f]{8}-(?=.)"
    r"|(?<![0-9a-z])(?=[0-9a-f]*[0-9][a-f])(?=[0-9a-f]*[a-f][0-9])[0-9a-f]{8,}(?![0-9a-z])"
    r"|[._-](mp4|m4v|3gp|h26[45]|m2ts|jp2)(?![0-9a-z])"
    r"|(?<![0-9])(19|20)[0-9]{2}[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12][0-9]|3[01])(?![0-9])"
    r"|(?<![a-z0-9.])[0-9]{1,4}[.,][0-9]{1,3}(?![0-9.])"
    r"|[0-9]+[.,][0-9]+ ?(ms|us|ns|s|sec|hz|fps|mm|um|deg)(?![a-z])",
    re.IGNORECASE,
)
_FRAME_BEFORE = re.compile(r"(^|[^a-z])(frames?|fr?m?|img|image|im|idx|index)[ _.#-]*$", re.IGNORECASE)
# What else numbers count, by the word before them or the unit after them.
_OTHER_BEFORE = re.compile(
    r"\($|(^|[^a-z])(exp|exposure|copy|iso|gain|cam|camera|view|ch|channel|trial|session|take|rep|ver|v|crop|aug"
    r"|mouse|rat|animal|subject|fps|tile)[ _.#-]*$",
    re.IGNORECASE,
)
_VIDEO_AFTER = re.compile(
    "(cam|camera|view|session|trial|video|vid|clip|mouse|rat|animal|subject)[ _-]?[0-9]+"
)
_OTHER_AFTER = re.compile(r"^ ?(ms|us|ns|s|sec|hz|fps|mm|um|deg|px|p|x[0-9]+)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class _Number:
    """A number in a name: its place among all (from 1), the index that it would be, and what it counts."""

    place: int
    index: int | None
    before: str  # the name up to it, without hashes
    video: str  # what else than that seems to tell the video: cam2
    is_frame: bool
    is_other: bool
    is_padded: bool


def _numbers_in(name: str) -> list[_Number]:
    """Return the numbers in the name of an image that may be a frame's."""
    stem = stem_of(name)[-255:]  # no file system has longer ones
    blank = _NO_NUMBER.sub(lambda match: "\0" * len(match[0]), stem)
    found = []
    for place, match in enumerate(re.finditer("[0-9]+", stem), 1):
        if blank[match.start()] != "\0":
            before, after = blank[: match.start()].replace("\0", ""), stem[match.end() :]
            is_other = bool(_OTHER_BEFORE.search(before) or _OTHER_AFTER.search(after))
            is_frame, is_padded = bool(_FRAME_BEFORE.search(before)), bool(re.match("0[0-9]{2}", match[0]))
            cam = _VIDEO_AFTER.search(after.casefold())
            tells = before, cam[0] if cam else ""
            found.append(_Number(place, _as_index(match[0]), *tells, is_frame, is_other, is_padded))
    return found


def _read_numbers(
    path: PathLike, places: Sequence[str], names: Sequence[str], n_frames: int | None
) -> list[_Number | None]:
    """Return the number in each name that is the frame's, None where there is none.

    It is the one that varies from name to name; of several it is that which the words around them, the order
    of the names and the length of the video tell.

    Raises:
        LabelsError: if several are left, or the one that the user named is not there.
    """
    if not names:
        return []
    asked = path.frame_number if isinstance(path, LabelFile) else None
    if asked is not None:
        chosen: list[_Number | None] = []
        for where, name in zip(places, names, strict=True):
            runs = re.findall("[0-9]+", stem_of(name))
            if asked == 0 or not -len(runs) <= asked <= len(runs):
                raise LabelsError(
                    f"{where}: this name has no number {asked}",
                    path=path,
                    expected=f"1 to {len(runs)}, or -1 for the last" if runs else "numbers in the name",
                    got=base_name(name),
                    fix="name another one (--frame-number), or leave the option out",
                )
            place = asked if asked > 0 else len(runs) + 1 + asked
            chosen.append(_Number(place, _as_index(runs[place - 1]), "", "", True, False, True))
        return chosen
    found = [_numbers_in(name) for name in names]
    counts = set(map(len, found))
    if 0 in counts:  # the caller says which name lacks a number
        return [numbers[-1] if numbers else None for numbers in found]
    if len(counts) == 1:
        columns = [list(column) for column in zip(*found, strict=True)]
    else:  # hashes of an unknown kind, or words with numbers in some names alone
        columns = [[numbers[0] for numbers in found], [numbers[-1] for numbers in found]]
    kept = _frame_columns(columns, n_frames)
    readings = {tuple(number.index for number in column): column for column in kept}
    if len(readings) == 1:
        return list(next(iter(readings.values())))
    shown = [f"{column[0].index} (--frame-number {column[0].place})" for column in readings.values()]
    raise LabelsError(
        f"{places[0]}: several numbers in the names of the images may be the frame's",
        path=path,
        expected="one number that varies as an index does, in names like img0012.png",
        got=f"{base_name(names[0])}: {' or '.join(shown)}",
        fix="say which one it is: --frame-number 1 for the first in the name, -1 for the last; or give the "
        "folder of frames as video",
    )


def _frame_columns(columns: list[list[_Number]], n_frames: int | None) -> list[list[_Number]]:
    """Return those of the numbers in all names (column by column) that may be the frames'."""
    if len(columns[0]) == 1:
        # A single name, in which nothing varies: words and letters before a number say what it counts.
        plain = [c for c in columns if not c[0].is_other and not c[0].before[-1:].isalpha()]
        plain = [c for c in plain if n_frames is None or (c[0].index or 0) <= n_frames] or plain
        plain = [c for c in plain if c[0].is_padded] or plain
        return [c for c in columns if c[0].is_frame][-1:] or plain or columns[-1:]
    indices = [[number.index for number in column] for column in columns]
    varying = [c for c, own in enumerate(indices) if len(set(own)) > 1]
    varying = [c for c in varying if not any(number.is_other for number in columns[c])] or varying
    distinct = [c for c in varying if len(set(indices[c])) == len(indices[c]) and None not in indices[c]]
    # What is called a frame is not passed over, although one comes twice or lies beyond the video.
    kept = (
        [c for c in varying if c in distinct or columns[c][0].is_frame] or varying[-1:] or [len(columns) - 1]
    )
    if n_frames is not None:  # names may count from 1
        near = [c for c in kept if max(index or 0 for index in indices[c]) <= n_frames]
        kept = [c for c in kept if c in near or columns[c][0].is_frame] if near else kept
    rising = [c for c in kept if c in distinct and indices[c] == sorted(indices[c], key=lambda i: i or 0)]
    return [columns[c] for c in kept if c in rising or columns[c][0].is_frame] or [columns[c] for c in kept]


def warn_of_numbers(path: PathLike, names: Mapping[int, str]) -> None:
    """Warn if the names of the frames' images (frame -> name) bear other numbers than the frames."""
    try:
        numbers = _read_numbers(path, ["" for _ in names], list(names.values()), None)
    except LabelsError:
        numbers = [None]
    if [number and number.index for number in numbers] != list(names):
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
    label file has ``given``; then the number in the file's name that varies as an index does. ``places`` name
    the images in messages. Of loose images each is a frame of its own, in the order of the file.

    Raises:
        LabelsError: if an image is not in the folder, has no number or two that may be the frame's, or two
            have the same index.

    Warns:
        PosewarperWarning: if the given indices are places in a list, by the numbers in the names.
    """
    if isinstance(path, LabelFile) and path.loose:
        return list(range(len(names)))
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
        indices = list(given)
        open_ones = [i for i, name in enumerate(names) if given[i] is None and name]
        parts = [places[i] for i in open_ones], [names[i] or "" for i in open_ones]
        n_frames = None if video is None or video.frame_names else video.n_frames
        for i, number in zip(open_ones, _read_numbers(path, *parts, n_frames), strict=True):
            indices[i] = number and number.index
        if n_frames is not None and not open_ones:
            _warn_of_places(path, places, names, indices)
    seen: dict[int, str] = {}
    for place, name, index in zip(places, names, indices, strict=True):
        if index is None:
            raise LabelsError(
                f"{place}: cannot tell which frame of the video this image is",
                path=path,
                expected="a file name with the frame's number, like img0012.png for the 13th frame",
                got=name if name else "no file_name",
                fix=f"number the file names from 0, add frame_id, or give the folder of frames as video"
                f"{'' if Path(path).suffix == '.slp' else or_train_on(path)}",
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


def _warn_of_places(
    path: PathLike, places: Sequence[str], names: Sequence[str | None], given: Sequence[int | None]
) -> None:
    """Warn where indices run behind the numbers in the names, as places in a folder with gaps do."""
    try:
        numbers = _read_numbers(path, places, [name or "" for name in names], None)
    except LabelsError:
        return
    ahead = [
        n.index - g
        for n, g in zip(numbers, given, strict=True)
        if n and n.index is not None and g is not None
    ]
    if len(ahead) == len(names) and min(ahead, default=0) >= 0 and len(set(ahead)) > 1:
        warn(
            path,
            f"frame_id counts, although the images are numbered otherwise ({base_name(names[0] or '')} is "
            f"frame {given[0]}): if the labels were made on a folder of some frames alone, give that folder",
        )


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


# --- which video is meant -----------------------------------------------------------------------------------

# Folders that are called so say nothing about the video.
_ANY_FOLDER = re.compile(
    r"(extracted|raw|video|labell?ed|selected)?[ _-]?(videos?|frames?|images?|imgs?|pics|pictures|data"
    r"|dataset|train|val|valid|validation|test|default|jpe?g|png|uploads?|raw|rgb|color|out|output|export|annotations"
    r"|labeled-data|obj_.*"
    r"|predictions?.*|preds?|results?|poses|labels)",
    re.IGNORECASE,
)
_SUFFIXES = (*VIDEO_SUFFIXES, ".h5", ".hdf5", ".tif", ".tiff", ".gif", ".seq")
_VIDEO_IN_NAME = re.compile(rf"^(.+)[._-]({'|'.join(s[1:] for s in VIDEO_SUFFIXES)})[._-]", re.IGNORECASE)


def videos_of_images(
    path: PathLike,
    images: Sequence[str],
    video: VideoFacts | None,
    *,
    by_folder: bool = False,
    alike: bool = False,
) -> tuple[list[str], dict[str, set[str]]]:
    """Return the key of each image's video, and key -> the names of that video that its images tell.

    The folder of the images is their video (``by_folder`` also where it is called "frames" or the like), and
    in one folder the beginning of their names, before the frame's number, unless they are ``alike``.
    """
    keys = [folder_name(image) or "" if by_folder else _telling_folder(image) for image in images]
    names = {key: {key} - {""} if by_folder or is_telling(key) else set() for key in keys}
    if (
        alike
        or (isinstance(path, LabelFile) and path.frame_number)
        or (video is not None and video.frame_names)
    ):
        return keys, names
    n_frames = None if video is None else video.n_frames
    members: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key, []).append(i)
    for key, own in members.items():
        try:
            numbers = _read_numbers(path, ["" for _ in own], [images[i] for i in own], n_frames)
        except LabelsError:  # which is said later of the images that are used
            numbers = [None]
        if None in numbers:
            continue
        begins = [
            (_FRAME_BEFORE.sub(r"\1", n.before).rstrip(" _.#-") + f" {n.video}").strip() if n else ""
            for n in numbers
        ]
        alone = [re.sub("(?<![a-z0-9])[0-9]+", "", begin.casefold()) for begin in begins]  # such as times
        if len(set(alone if len(set(begins)) == len(own) else map(str.casefold, begins))) > 1:
            del names[key]
            for i, begin in zip(own, begins, strict=True):
                keys[i] = "/".join(filter(None, (key, begin)))
                names.setdefault(keys[i], set()).update({begin} - {""})
        for i in own:
            if said := _VIDEO_IN_NAME.match(base_name(images[i])):
                names[keys[i]].add(f"{said[1]}.{said[2]}")
    return keys, names


def is_telling(name: str) -> bool:
    """Return whether a name tells a video, unlike ``frames``, ``train`` or ``01``."""
    base = base_name(name)
    return not (_ANY_FOLDER.fullmatch(base) or base.isdecimal())


def _telling_folder(image: str) -> str:
    """Return the folder that an image lies in without the parts that say nothing, or if all do, the last."""
    parts = [part for part in image.replace("\\", "/").split("/")[:-1] if part not in ("", ".", "..")]
    return "/".join(part for part in parts if not _ANY_FOLDER.fullmatch(part)) or "".join(parts[-1:])


def _agreement(ours: str, theirs: str) -> float:
    """Return in how many parts from the end two paths of a video agree, whose suffixes may differ."""
    paths = [unicodedata.normalize("NFC", name).casefold().replace("\\", "/") for name in (ours, theirs)]
    (*mine, last), (*other, name) = (path.rstrip("/").split("/") for path in paths)
    stems = [Path(n).stem if n.endswith(_SUFFIXES) else n for n in (last, name)]
    if not {last, stems[0]} & {name, stems[1]}:
        # Exports write other signs for blanks and dots, and folders of frames are called after the video.
        simple = [re.sub(r"[\W_]+(frames|images|imgs)$|[\W_]+", " ", n).strip() for n in stems]
        return 0.5 if simple[0] == simple[1] != "" else 0
    same = 1.0 + 0.2 * (last == name)
    for a, b in zip(reversed(mine), reversed(other), strict=False):
        if a != b:
            break
        same += 1
    return same


def _meant(wanted: str, names: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the keys that agree most with a name or path, none if none does."""
    degrees = {
        key: max(_agreement(wanted, name) for name in (key, *own, *(f"{key}/{name}" for name in own)))
        for key, own in names.items()
    }
    most = max(degrees.values(), default=0)
    return [key for key, degree in degrees.items() if degree == most > 0]


def or_train_on(path: PathLike) -> str:
    """Return the end of a fix: how to learn from images that are no frames of one video."""
    command = f"posewarper train loose_images.yaml data.images='{os.fspath(path)}'"
    return f"; to learn from separate images, of whatever videos: {command}"


class SeveralVideos(LabelsError):
    """Labels of several videos, of which nothing chooses one; ``videos`` are the names that do."""

    def __init__(self, what: str, *, videos: Sequence[str], **more: Any) -> None:
        super().__init__(what, **more)
        self.videos = videos


class VideoChoice(NamedTuple):
    """The key of the video that is meant, and its name if the opened file is called otherwise."""

    key: str
    another: str | None


def choose_video(
    path: PathLike,
    names: Mapping[str, Iterable[str]],
    video: VideoFacts | None,
    labelled: Collection[str] | None = None,
    *,
    of_images: bool = False,
) -> VideoChoice:
    """Return which video is meant, of those that a label file or a project is about.

    ``names`` gives for each key the names or paths that this video goes by in the file. The user's word
    (``LabelFile.video``) picks one, else the path of the opened video, compared from its end. ``labelled``
    are the keys of those with labels or predictions, None for all. ``of_images`` says that the file names the
    images of each, which may be learned from one by one.

    Raises:
        LabelsError: if none has labels, several have and none is picked, or the one picked has none.
    """
    asked = path.video if isinstance(path, LabelFile) else None
    opened = Path(video.path).absolute() if video is not None else None
    if asked is not None:
        meant = [asked] if asked in names else _meant(asked, names)
        if not meant:
            raise unknown_name(
                "the file says nothing of this video", asked, _tell_apart(names), path=path, error=LabelsError
            )
    elif opened is not None:
        is_folder = bool(video and video.frame_names)
        while is_folder and _ANY_FOLDER.fullmatch(opened.name) and opened.name:
            opened = opened.parent
        meant = _meant(str(opened), names)
    else:
        meant = []
    if labelled is not None:
        if not labelled:
            fix = "label some frames and save"
            raise LabelsError("no video of the project has labels", path=path, fix=fix)
        if meant and not set(meant) & set(labelled):
            others = {key: names[key] for key in names if key in labelled}
            raise LabelsError(
                "this video of the project has no labels",
                path=path,
                expected=f"labels of {asked or (opened and opened.name)}",
                got=f"labels of {few_of(_tell_apart(others), 10)}",
                fix="label some frames of it and save, or give a video that has labels",
            )
        names = {key: names[key] for key in names if key in labelled}
        meant = [key for key in meant if key in names]
    if len(meant) == 1 or len(names) == 1:
        chosen = meant[0] if meant else next(iter(names))
        told = max(map(base_name, names[chosen]), key=len, default="")
        is_file = opened is not None and (opened.is_file() or opened.parent.name == "labeled-data")
        return VideoChoice(chosen, told if not meant and told and is_file else None)
    raise SeveralVideos(
        f"the file holds labels of {len(names)} videos",
        path=path,
        expected="labels of one video, or a video whose name is one of them",
        got=f"{few_of(_tell_apart(names), 10)}; "
        + (f"the video opened is {opened.name}" if opened else "no video opened"),
        fix=f"choose one with --labels-of, such as --labels-of {_quoted(_tell_apart(names)[0])}, or give the "
        f"video that is named like it{or_train_on(path) if of_images else ''}",
        videos=_tell_apart(names),
    )


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w./-]+", name) else f"'{name}'"


def _tell_apart(names: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the shortest ends of the keys, which may be paths, that tell one from another, in order."""
    found = []
    if len(names) > 200:  # too many to read, and to compare each with all
        return sorted(names)
    for key, own in names.items():
        if own and "/" not in key and not any(_agreement(key, name) for name in own):  # a mere number
            found.append(f"{key}/{base_name(min(own))}")
            continue
        parts = key.replace("\\", "/").split("/")
        ends = ["/".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        found.append(next((end for end in ends if _meant(end, names) == [key]), key))
    return sorted(found)


# --- whether labels of a video that is called otherwise are of this one all the same ------------------------

_COMPARED = 5  # labelled frames that are compared
_ABOVE = 2  # folders above that of the labels in which images and videos are looked for


def folders_near(path: PathLike) -> list[Path]:
    """Return the folder of a label file and those above it, in which what it names may lie."""
    place = Path(path).absolute()
    place = place if place.is_dir() else place.parent
    return [place, *list(place.parents)[:_ABOVE]]


def find_images(folders: Sequence[Path], names: Mapping[int, str]) -> dict[int, Path]:
    """Return the files of images (frame -> name as labels have it), of those that are in the folders.

    They may lie as they are named, in the folder that they are named in, or by their names alone where that
    is sure. What leads out of the folders is not looked for.
    """
    slashed = {frame: name.replace("\\", "/") for frame, name in names.items()}
    is_lone = len({folder_name(name) for name in slashed.values()}) == 1
    found: dict[int, Path] = {}
    for frame, name in slashed.items():
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            continue
        ends = ["/".join(parts), "/".join(parts[-2:]), *([parts[-1]] if is_lone else [])]
        candidates = (folder / sub / end for end in ends for folder in folders for sub in ("", "images"))
        file = next((path for path in candidates if path.is_file()), None)
        if file is not None:
            found[frame] = file
    return found


def check_video(clip: Clip, path: PathLike, video: VideoFacts, frame_offset: int = 0) -> None:
    """Decide whether labels that name another video are of this one, which may be a renamed copy.

    The labelled images tell, compared with the frames at their numbers, or else the frames of a video of that
    name beside the labels or the opened one. ``frame_offset`` will be added to the frames of the clip.

    Raises:
        LabelsError: if they show something else.

    Warns:
        PosewarperWarning: if they show the same, or nothing can be compared.
    """
    from posewarper.video.source import Video, open_video  # heavy, and needed in few cases

    name, opened = clip.another_video, Path(video.path).absolute()
    if name is None:
        return
    every = clip.labelled_frames or {instance.frame for instance in clip.instances}
    frames = sorted(frame for frame in every if 0 <= frame + frame_offset < video.n_frames)
    folders = folders_near(path)
    images = find_images(folders, {f: clip.frame_names[f] for f in frames if f in clip.frame_names})
    named = None if images else _find_video(name, [*folders, opened.parent], opened)
    frames = [f for f in frames if f in images or named is not None]
    frames = [frames[round(n)] for n in np.linspace(0, len(frames) - 1, min(_COMPARED, len(frames)))]
    is_same = None
    try:
        pictures: list[Image] = []
        if images:
            pictures = [read_image(images[frame]) for frame in frames]
        elif named is not None:
            with open_video(named) as other:
                pictures = [image for _, image in other.frames(frame + frame_offset for frame in frames)]
        if isinstance(video, Video):
            own = video.frames(frame + frame_offset for frame in frames)
            is_same = show_the_same(pictures, [image for _, image in own]) if pictures else None
    except (VideoError, IndexError):  # damaged, or the other is shorter: nothing can be compared
        pass
    told = f"the labels name the video {name}, and this is {opened.name}"
    shown = f"the labelled images ({images[frames[0]].name})" if images else f"those of {named}"
    says_so = f"--labels-of {_quoted(name)}"
    if is_same:
        warn(path, f"{told}, whose frames look like {shown}: it is taken for a copy of the same video")
    elif is_same is None and named is None:
        warn(path, f"{told}; check that they belong together ({says_so} says that they do)")
    else:
        raise LabelsError(
            "the labels are of another video than the one opened",
            path=path,
            expected=f"the video {name}, which the labels name",
            got=f"{opened.name}" + ("" if is_same is None else f", whose frames do not look like {shown}"),
            fix=f"give {named or f'the video {name}'}; if they belong to {opened.name} all the same, say so "
            f"with {says_so}",
        )


def _find_video(name: str, folders: Iterable[Path], opened: Path) -> Path | None:
    """Return a video of that name in one of the folders, or in ``videos`` in one, unless it is the opened."""
    for folder in dict.fromkeys(place / sub for place in folders for sub in ("", "videos")):
        for file in sorted(folder.glob("*")):
            is_video = file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()
            if is_video and _agreement(str(file), name) >= 1 and not file.samefile(opened):
                return file
    return None
