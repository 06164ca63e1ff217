"""A prepared PoseTrack, opened: its videos, their labels, and which file is which frame."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posewarper.errors import LabelsError, unknown_name
from posewarper.formats.frame_names import stem_of
from posewarper.posetrack.posetrack18 import read_posetrack18
from posewarper.structures import InstanceTable
from posewarper.video.images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class FrameFiles:
    """Which file is which frame of a video."""

    first: int  # number of the first frame
    n_frames: int  # missing frames included
    digits: int  # of the number in a file's name
    suffix: str  # of the files, with the dot
    missing: tuple[int, ...]  # numbers of frames without a file, rising
    files: tuple[str, ...] = ()  # file name of each frame, where names do not follow from the number
    note: str = ""  # what is odd about the files

    def numbers_of(self, names: Sequence[str], *, renamed: bool) -> list[int | None]:
        """Return the numbers of frames by the last parts of their names, None where a name tells none.

        ``renamed`` says that the names are the regular ones, also where the files have others.
        """
        stems = {} if renamed else {stem_of(name): self.first + i for i, name in enumerate(self.files)}
        return [stems.get(stem_of(name), leading_number(name)) for name in names]


def leading_number(base: str) -> int | None:
    """Return the number that a file name begins with (``0013_crop.jpg`` is 13), None if it does not."""
    match = re.match(r"[0-9]{1,18}", base)
    return int(match.group()) if match else None


def list_images(folder: Path) -> list[str]:
    """Return the names of the images in a folder, sorted; none if there is no such folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith("."))


def number_frames(
    kind: str, listed: Sequence[str], found: Sequence[str], n_frames: int | None, *, renamed: bool
) -> FrameFiles:
    """Tell which file is which frame.

    PoseTrack18 and 21 count from 0 and PoseTrack17 from 1, and the number is the file's name. In the download
    of PoseTrack17 some videos begin elsewhere or have other names (``0013_crop.jpg``); their frames are
    counted from 1 in the order of the numbers in the names.

    Args:
        kind: "posetrack17", "posetrack18" or "posetrack21".
        listed: file names (last parts) that the labels name.
        found: file names in the folder of the video.
        n_frames: frames of the video as the labels say, None if they do not.
        renamed: the labels give the names after renaming; the files may bear those of the download.
    """
    first, digits = (1, 8) if kind == "posetrack17" else (0, 6)
    stated, usual = (
        [suffix for suffix, _ in Counter("." + name.rsplit(".", 1)[-1] for name in names).most_common()]
        for names in (listed, found)
    )
    # The suffix that the labels name if there are such files, else the commonest.
    suffix = ([s for s in stated if not usual or s in usual] or usual or [".jpg"])[0]
    stems = [stem_of(name) for name in found if name.endswith(suffix)]
    if kind == "posetrack17" and stems:
        every = stems if renamed else sorted({*stems, *map(stem_of, listed)})
        regular = all(re.fullmatch(f"[0-9]{{{digits}}}", stem) for stem in every)
        irregular = not regular or min(map(int, every)) != 1
        if irregular and (not renamed or len(stems) == n_frames):
            names = [stem + suffix for stem in every]
            files = tuple(sorted(names, key=lambda name: (leading_number(name) or 0, name)))
            there = {stem + suffix for stem in stems}
            missing = tuple(first + i for i, name in enumerate(files) if name not in there)
            note = f"files {files[0]} to {files[-1]} are counted as frames {first} to {len(files)}"
            return FrameFiles(first, len(files), digits, suffix, missing, files, note)
    widths = Counter(len(stem) for stem in stems if stem.isdigit()).most_common(1)
    digits = widths[0][0] if widths else digits
    there = {int(stem) for stem in stems if re.fullmatch(f"[0-9]{{{digits}}}", stem)}
    named = {number for number in map(leading_number, listed) if number is not None}
    last_there, last_named = max(there, default=first - 1), max(named, default=first - 1)
    note = ""
    if n_frames is None:
        count = max(last_there, last_named) - first + 1
    else:
        count = max(n_frames, last_named - first + 1)
        if last_there >= first + count or count > n_frames:
            note = f"the labels say {n_frames} frames, the last file is frame {max(last_there, 0)}"
            note += f" and the last one named {max(last_named, 0)}"
    missing = tuple(number for number in range(first, first + count) if number not in there)
    return FrameFiles(first, count, digits, suffix, missing, (), note)


def to_ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Return whole numbers as runs ``[from, to]``, both included."""
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


INDEX_NAME = "dataset.json"
FORMAT = "posewarper dataset"
FORMAT_VERSION = 1
_PREPARE = "make it with `posewarper prepare posetrack17|posetrack18|posetrack21 DOWNLOAD --out DIR`"


@dataclass(frozen=True)
class DatasetVideo:
    """One video of a prepared dataset.

    Args:
        name: unique in the dataset: ``bonn/000001`` (PoseTrack17) or ``000001_mpii_test`` (18 and 21).
        split: "train", "val" or "test".
        file_stem: stem of the official label file of the video; result files bear it.
        folder: of the frames, relative to ``Dataset.images``, as in frame names without leading ``images/``.
        first, n_frames, digits, suffix, missing, files: as in :class:`FrameFiles`; ``missing`` were not
            there, or damaged, when the dataset was prepared.
        image_size: (height, width) of the first frame that is there, None if none is.
    """

    name: str
    split: str
    file_stem: str
    folder: str
    first: int
    n_frames: int
    digits: int
    image_size: tuple[int, int] | None
    suffix: str = ".jpg"
    missing: frozenset[int] = frozenset()
    files: tuple[str, ...] = ()

    @property
    def numbers(self) -> range:
        """The numbers of all frames."""
        return range(self.first, self.first + self.n_frames)

    def frame_name(self, number: int) -> str:
        """Return the regular name of a frame, by which box files of the original call it."""
        return f"{self.folder}/{number:0{self.digits}d}{self.suffix}"


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset: videos, labels and frames.

    Args:
        root: the folder that ``prepare`` wrote.
        kind: "posetrack17", "posetrack18" or "posetrack21".
        images: folder of the frames, absolute.
        videos: all videos, train before val before test, each in the order of their file stems.
        box_files: split -> detected boxes, where the download had them.
        selections: stem -> the original's file of selected frames and videos, where the download had it.
    """

    root: Path
    kind: str
    images: Path
    videos: tuple[DatasetVideo, ...]
    box_files: Mapping[str, Path] = field(default_factory=dict)
    selections: Mapping[str, Path] = field(default_factory=dict)

    def of_split(self, split: str) -> tuple[DatasetVideo, ...]:
        """Return the videos of a split, none if the dataset was prepared without it."""
        return tuple(video for video in self.videos if video.split == split)

    def require_split(self, split: str) -> tuple[DatasetVideo, ...]:
        """Return the videos of a split; raise LabelsError if the dataset was prepared without it."""
        videos = self.of_split(split)
        if not videos:
            known = dict.fromkeys(video.split for video in self.videos)
            what = f"the dataset has no videos of the split {split!r}"
            fix = "name another split, or prepare this one"
            raise unknown_name(what, split, known, path=self.root, error=LabelsError, fix=fix)
        return videos

    def table(self, video: DatasetVideo) -> InstanceTable:
        """Read the labels of a video; those of test videos are frames without instances.

        Frames have the names of the download's labels, and the numbers that :meth:`frame_path` takes.

        Raises:
            LabelsError: if the file is missing or damaged.
        """
        return read_posetrack18(labels_path(self.root, video.split, video.file_stem))

    def frame_path(self, video: DatasetVideo, number: int) -> Path:
        """Return where a frame lies; the file need not exist, see ``video.missing``."""
        place = number - video.first
        if 0 <= place < len(video.files):
            return self.images / video.folder / video.files[place]
        return self.images / video.frame_name(number)


def labels_path(root: Path, split: str, stem: str) -> Path:
    """Return where the labels of a video lie in a prepared dataset."""
    return root / "annotations" / split / f"{stem}.json"


def open_dataset(path: str | Path) -> Dataset:
    """Open a dataset that ``posewarper prepare`` wrote.

    Raises:
        LabelsError: if the folder is not a prepared dataset or of another version, or its frames are gone.
    """
    root = Path(path).absolute()
    index = read_index(root)
    images = root / "images" if (root / "images").is_dir() else Path(index["images"])
    if not images.is_dir():
        raise LabelsError(
            "the frames of this dataset are not there any more",
            path=root,
            expected=f"the folder of frames {images}",
            fix="put it back, or run `posewarper prepare` again with --images, which takes seconds",
        )
    names = ("name", "split", "file_stem", "folder", "first", "n_frames", "digits", "suffix")
    videos = tuple(
        DatasetVideo(
            **{name: record[name] for name in names},
            image_size=tuple(record["image_size"]) if record["image_size"] else None,  # type: ignore[arg-type]
            missing=frozenset(from_ranges(record["missing"])),
            files=tuple(record["files"]),
        )
        for record in index["videos"]
    )
    paths = [{key: Path(path) for key, path in index[n].items()} for n in ("box_files", "selections")]
    return Dataset(root, index["kind"], images, videos, *paths)


def read_index(root: Path) -> dict[str, Any]:
    """Read the index of a prepared dataset.

    Raises:
        LabelsError: if the folder is no prepared dataset, or its index is damaged or of another version.
    """
    path = root / INDEX_NAME
    if not path.is_file():
        what = "this is not a prepared dataset" if root.is_dir() else "no such folder"
        raise LabelsError(what, path=root, expected=f"a folder with {INDEX_NAME}", fix=_PREPARE)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabelsError("this index of a dataset is damaged", path=path, got=error, fix=_PREPARE) from error
    found = index.get("format") if isinstance(index, dict) else type(index).__name__
    if found != FORMAT:
        what = "this is not the index of a prepared dataset"
        raise LabelsError(what, path=path, expected=f"format {FORMAT!r}", got=found, fix=_PREPARE)
    if index.get("format_version") != FORMAT_VERSION:
        raise LabelsError(
            "this dataset was prepared by another version of posewarper",
            path=path,
            expected=f"format_version {FORMAT_VERSION}",
            got=index.get("format_version"),
            fix="update posewarper, or prepare the dataset again with --overwrite",
        )
    return index
