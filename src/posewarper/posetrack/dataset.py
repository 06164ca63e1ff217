"""A prepared PoseTrack: what ``posewarper prepare`` wrote, opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posewarper.errors import LabelsError
from posewarper.instances import InstanceTable
from posewarper.io.posetrack18 import read_posetrack18
from posewarper.posetrack.frame_files import from_ranges
from posewarper.posetrack.layouts import PREPARED

INDEX_NAME = PREPARED[0]
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
        first: number of the first frame: 1 in PoseTrack17, 0 in 18 and 21.
        n_frames: frames of the video, with those that are missing.
        digits: of the number in frame file names, 8 or 6.
        image_size: (height, width) of the first frame that is there, None if none is.
        suffix: of frame files, with the dot.
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

    @property
    def numbers(self) -> range:
        """The numbers of all frames."""
        return range(self.first, self.first + self.n_frames)

    def clip(self, number: int) -> int:
        """Return the nearest number inside the video: what the paper takes beyond its ends."""
        return min(max(number, self.first), self.first + self.n_frames - 1)

    def frame_name(self, number: int) -> str:
        """Return the regular name of a frame, by which box files of the original call it."""
        return f"{self.folder}/{number:0{self.digits}d}{self.suffix}"


_Key = tuple[str, str]  # split and stem


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset: videos, labels and frames.

    Args:
        root: the folder that ``prepare`` wrote.
        kind: "posetrack17", "posetrack18" or "posetrack21".
        images: folder of the frames, absolute.
        videos: all videos, train before val before test, each in the order of their file stems.
        box_files: detected boxes of a split, where the download had such a file.
        selections: the original's files of selected frames and videos by their stems, where it had them.
    """

    root: Path
    kind: str
    images: Path
    videos: tuple[DatasetVideo, ...]
    box_files: Mapping[str, Path] = field(default_factory=dict)
    selections: Mapping[str, Path] = field(default_factory=dict)
    _missing: Mapping[_Key, frozenset[int]] = field(default_factory=dict, repr=False)
    _files: Mapping[_Key, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def of_split(self, split: str) -> tuple[DatasetVideo, ...]:
        """Return the videos of a split, none if the dataset was prepared without it."""
        return tuple(video for video in self.videos if video.split == split)

    def require_split(self, split: str) -> tuple[DatasetVideo, ...]:
        """Return the videos of a split that has some.

        Raises:
            LabelsError: if the dataset was prepared without it.
        """
        videos = self.of_split(split)
        if not videos:
            raise LabelsError(
                f"the dataset has no videos of the split {split!r}",
                path=self.root,
                expected=", ".join(dict.fromkeys(video.split for video in self.videos)),
                got=split,
                mend="name another split, or prepare this one",
            )
        return videos

    def labels_path(self, video: DatasetVideo) -> Path:
        """Return the label file of a video (PoseTrack18 JSON)."""
        return labels_path(self.root, video.split, video.file_stem)

    def table(self, video: DatasetVideo) -> InstanceTable:
        """Read the labels of a video; those of test videos are frames without instances.

        Frames have the names that the download's labels give them, and the numbers that
        :meth:`frame_path` takes.

        Raises:
            LabelsError: if the file is missing or damaged.
        """
        return read_posetrack18(self.labels_path(video))

    def frame_path(self, video: DatasetVideo, number: int) -> Path:
        """Return where a frame lies; the file need not exist, see :meth:`missing`."""
        files = self._files.get((video.split, video.file_stem), ())
        place = number - video.first
        if 0 <= place < len(files):
            return self.images / video.folder / files[place]
        return self.images / video.frame_name(number)

    def missing(self, video: DatasetVideo) -> frozenset[int]:
        """Return the numbers of the frames that were not there, or damaged, at preparation."""
        return self._missing.get((video.split, video.file_stem), frozenset())


def labels_path(root: Path, split: str, stem: str) -> Path:
    """Return where the labels of a video lie in a prepared dataset."""
    return root / "annotations" / split / f"{stem}.json"


def is_dataset(path: str | Path) -> bool:
    """Return whether a folder is a prepared dataset."""
    return (Path(path) / INDEX_NAME).is_file()


def open_dataset(path: str | Path) -> Dataset:
    """Open a prepared dataset.

    Args:
        path: the folder that ``posewarper prepare`` wrote.

    Raises:
        LabelsError: if the folder is not a prepared dataset, was written by a newer version, or its frames
            are gone.
    """
    root = Path(path).absolute()
    index = read_index(root)
    images = root / "images" if (root / "images").is_dir() else Path(index["images"])
    if not images.is_dir():
        raise LabelsError(
            "the frames of this dataset are not there any more",
            path=root,
            expected=f"the folder of frames {images}",
            mend="put it back, or run `posewarper prepare` again with --images, which takes seconds",
        )
    videos, missing, files = [], {}, {}
    for record in index["videos"]:
        size = record["image_size"]
        names = ("name", "split", "file_stem", "folder", "first", "n_frames", "digits", "suffix")
        values = {name: record[name] for name in names}
        video = DatasetVideo(**values, image_size=tuple(size) if size else None)
        videos.append(video)
        key = video.split, video.file_stem
        missing[key] = frozenset(from_ranges(record["missing"]))
        if record["files"]:
            files[key] = tuple(record["files"])
    others = [
        {key: Path(value) for key, value in index[name].items()} for name in ("box_files", "selections")
    ]
    return Dataset(root, index["kind"], images, tuple(videos), others[0], others[1], missing, files)


def read_index(root: Path) -> dict[str, Any]:
    """Read what a prepared dataset says of itself.

    Raises:
        LabelsError: if the folder is no prepared dataset, its index is damaged or of a newer version.
    """
    path = root / INDEX_NAME
    if not path.is_file():
        what = "this is not a prepared dataset" if root.is_dir() else "no such folder"
        raise LabelsError(what, path=root, expected=f"a folder with {INDEX_NAME}", mend=_PREPARE)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabelsError(
            "this index of a dataset is damaged", path=path, got=error, mend=_PREPARE
        ) from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        got = index.get("format") if isinstance(index, dict) else type(index).__name__
        what = "this is not the index of a prepared dataset"
        raise LabelsError(what, path=path, expected=f"format {FORMAT!r}", got=got, mend=_PREPARE)
    if index.get("format_version") != FORMAT_VERSION:
        raise LabelsError(
            "this dataset was prepared by another version of posewarper",
            path=path,
            expected=f"format_version {FORMAT_VERSION}",
            got=index.get("format_version"),
            mend="update posewarper, or prepare the dataset again with --overwrite",
        )
    return index
