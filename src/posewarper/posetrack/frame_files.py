"""The files of a video's frames: which are there, and which number the dataset gives each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from posewarper.io.images import IMAGE_SUFFIXES

# Frames that the paper takes on each side of a labelled one.
NEIGHBOURS = 3
_DIGITS = {"posetrack17": 8, "posetrack18": 6, "posetrack21": 6}
_FIRST = {"posetrack17": 1, "posetrack18": 0, "posetrack21": 0}


@dataclass(frozen=True)
class FrameFiles:
    """How the numbers of a video's frames stand for files.

    Args:
        first: number of the first frame.
        n_frames: frames of the video, with those that are missing.
        digits: digits of the number in a file's name.
        suffix: of the files, with the dot.
        missing: numbers of frames without a file, rising.
        files: file name of each frame, where names do not follow from the number; empty where they do.
        note: what is odd about the files, or "".
    """

    first: int
    n_frames: int
    digits: int
    suffix: str
    missing: tuple[int, ...]
    files: tuple[str, ...] = ()
    note: str = ""

    def numbers_of(self, names: Sequence[str], *, renamed: bool) -> list[int | None]:
        """Return the numbers of frames by their file names, None where a name tells none.

        Args:
            names: file names (last parts).
            renamed: whether they are the regular names, also where the files have others.
        """
        stems = {} if renamed else {stem_of(name): self.first + i for i, name in enumerate(self.files)}
        return [stems.get(stem_of(name), leading_number(name)) for name in names]


def base_of(name: str) -> str:
    """Return the last part of a path with ``/`` between its parts."""
    return name.rsplit("/", 1)[-1]


def stem_of(base: str) -> str:
    """Return a file name without its suffix."""
    return base.rsplit(".", 1)[0]


def leading_number(base: str) -> int | None:
    """Return the number that a file name begins with (``0013_crop.jpg`` is 13), None if it does not."""
    match = re.match(r"[0-9]{1,18}", base)
    return int(match.group()) if match else None


def list_images(folder: Path) -> list[str]:
    """Return the names of the images in a folder, sorted; none if there is no such folder.

    The folder is listed once and no file is looked at: PoseTrack has some hundred thousand.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith("."))


def number_frames(
    kind: str, listed: Sequence[str], found: Sequence[str], n_frames: int | None, *, renamed: bool
) -> FrameFiles:
    """Tell which file is which frame.

    PoseTrack18 and 21 count from 0 and PoseTrack17 from 1, and the number is the file's name. In PoseTrack17
    as downloaded some videos begin elsewhere or have other names (``0013_crop.jpg``); their frames are
    counted from 1 in the order of the numbers in the names, as those did who renamed them.

    Args:
        kind: "posetrack17", "posetrack18" or "posetrack21".
        listed: file names (last parts) that the labels name.
        found: file names in the folder of the video.
        n_frames: frames of the video as the labels say, None if they do not.
        renamed: the labels give the names after renaming; the files may bear those of the download.
    """
    first, digits = _FIRST[kind], _DIGITS[kind]
    suffix = _suffix_of(listed, found)
    found = [name for name in found if name.endswith(suffix)]
    if kind == "posetrack17" and found:
        named = found if renamed else sorted({*found, *(_with_suffix(name, suffix) for name in listed)})
        irregular = not _counts_from_one(named, digits)
        if irregular and (not renamed or len(found) == n_frames):
            files = tuple(sorted(named, key=lambda name: (leading_number(name) or 0, name)))
            there = set(found)
            missing = tuple(first + i for i, name in enumerate(files) if name not in there)
            note = f"files {files[0]} to {files[-1]} are counted as frames {first} to {len(files)}"
            return FrameFiles(first, len(files), digits, suffix, missing, files, note)
    widths = Counter(len(name) - len(suffix) for name in found if name[: -len(suffix)].isdigit())
    digits = widths.most_common(1)[0][0] if widths else digits
    there = {int(n[: -len(suffix)]) for n in found if re.fullmatch(f"[0-9]{{{digits}}}", n[: -len(suffix)])}
    named = {number for number in map(leading_number, listed) if number is not None}
    count = max([*there, *named], default=first - 1) - first + 1 if n_frames is None else n_frames
    note = ""
    if n_frames is not None:
        count = max(n_frames, max(named, default=first) - first + 1)
        if max(there, default=first) >= first + count or count > n_frames:
            note = f"the labels say {n_frames} frames, the last file is frame {max(there, default=0)}"
            note += f" and the last one named {max(named, default=0)}"
    missing = tuple(number for number in range(first, first + count) if number not in there)
    return FrameFiles(first, count, digits, suffix, missing, (), note)


def _counts_from_one(names: Sequence[str], digits: int) -> bool:
    """Return whether all names are plain numbers of that many digits, and the lowest is 1."""
    stems = [stem_of(name) for name in names]
    return all(re.fullmatch(f"[0-9]{{{digits}}}", stem) for stem in stems) and min(map(int, stems)) == 1


def _suffix_of(listed: Sequence[str], found: Sequence[str]) -> str:
    """Return the suffix of the frames: that of the labels if such files are there, else the commonest."""
    named = Counter("." + name.rsplit(".", 1)[-1] for name in listed)
    there = Counter("." + name.rsplit(".", 1)[-1] for name in found)
    for suffix, _ in named.most_common():
        if suffix in there or not there:
            return suffix
    return there.most_common(1)[0][0] if there else ".jpg"


def _with_suffix(name: str, suffix: str) -> str:
    return stem_of(name) + suffix


def near_labels(labelled: Iterable[int], first: int, n_frames: int) -> set[int]:
    """Return the numbers of labelled frames and of all within three frames of one, inside the video."""
    reach = range(-NEIGHBOURS, NEIGHBOURS + 1)
    wanted = {number + step for number in labelled for step in reach}
    return {number for number in wanted if first <= number < first + n_frames}


def to_ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Return whole numbers as runs ``[from, to]``, both included.

    Example:
        >>> to_ranges([3, 4, 5, 9])
        [[3, 5], [9, 9]]
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


def from_ranges(runs: Iterable[Sequence[int]]) -> list[int]:
    """Return the numbers of runs ``[from, to]``, both included."""
    return [number for low, high in runs for number in range(low, high + 1)]
