"""Which videos of one's own are learned from, and which are validated on: the split is by video."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from posewarper.errors import ConfigError
from posewarper.recipes.settings import ClipSettings, DataSettings

SPLITS = ("train", "val")
_COLUMNS = ("video", "labels", "split", "pseudo_labels")
_NEEDED = _COLUMNS[:2]
_EXPECTED = "columns video, labels and, if you like, split (train or val) and pseudo_labels"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def choose_clips(data: DataSettings) -> tuple[list[ClipSettings], list[ClipSettings]]:
    """Return the clips to learn from and those to validate on.

    Raises:
        ConfigError: if the file that lists them cannot be used, or a video is in both lists.
    """
    clips, validation = list(data.clips), list(data.validation_clips)
    if data.clips_file is not None:
        listed = read_clip_list(data.clips_file)
        clips += listed["train"]
        validation += listed["val"]
    known = {os.path.realpath(clip.video) for clip in clips}
    for clip in validation:
        if os.path.realpath(clip.video) in known:
            raise ConfigError(
                "this video is both learned from and validated on",
                path=clip.video,
                expected="a split by video, so that the figures tell how well others are done",
                got="the same video in both lists",
                mend="leave it out of one of them",
            )
    return clips, validation


def read_clip_list(path: str | os.PathLike[str]) -> dict[str, list[ClipSettings]]:
    """Read a list of videos and their labels.

    The file is CSV or TSV with names of columns in its first line, or YAML: a list of such rows. Relative
    paths begin at the file's folder. Rows without a split are for training.

    Args:
        path: the file.

    Returns:
        ``train`` and ``val`` -> clips, in the order of the file.

    Raises:
        ConfigError: if there is no such file, or a row lacks or misspells something.
    """
    place = Path(path)
    found: dict[str, list[ClipSettings]] = {split: [] for split in SPLITS}
    try:
        text = place.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "cannot read this list of clips",
            path=place,
            expected="a CSV, TSV or YAML file",
            got=getattr(error, "strerror", None) or error,
            mend="check data.clips_file",
        ) from error
    for where, row in _rows(place, text):
        values = {key: str(value).strip() for key, value in row.items() if value not in (None, "")}
        strangers = sorted(str(key) for key in row if key not in _COLUMNS)
        missing = [name for name in _NEEDED if name not in values]
        split = values.pop("split", "train")
        if strangers or missing or split not in SPLITS:
            wrong = f"no {' and no '.join(missing)}" if missing else f"split {split}"
            got = f"unknown {', '.join(strangers)}" if strangers else wrong
            raise ConfigError(
                f"{where} of this list of clips cannot be used",
                path=place,
                expected=_EXPECTED,
                got=got,
                mend="correct the row",
            )
        paths = {name: str(place.parent / value) for name, value in values.items()}
        found[split].append(ClipSettings(**paths))
    if not found["train"]:
        raise ConfigError(
            "this list names no video to learn from", path=place, expected=_EXPECTED, mend="add rows"
        )
    return found


def _rows(place: Path, text: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield what to call a row, and its values by column."""
    delimiter = _DELIMITERS.get(place.suffix.lower())
    if delimiter is not None:
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter, skipinitialspace=True, restkey="more")
        for row in reader:
            yield f"line {reader.line_num}", row
        return
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            "this is neither a CSV file nor valid YAML",
            path=place,
            got=" ".join(str(error).split())[:200],
            mend="name a table .csv or .tsv, or correct the YAML",
        ) from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ConfigError(
            "this is no list of clips",
            path=place,
            expected=f"rows with {_EXPECTED}",
            got=type(content).__name__,
            mend="write a CSV file, or a YAML list such as '- {video: a.mp4, labels: a.json}'",
        )
    for n, row in enumerate(content, start=1):
        yield f"row {n}", row
