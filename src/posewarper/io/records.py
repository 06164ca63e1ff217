"""Text and JSON files read with care: a value is checked where it is taken, and an error names its place."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posewarper.errors import LabelsError

PathLike = str | os.PathLike[str]
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts")
LARGEST_INDEX = 2**31 - 1
# Pixels; no image is that large, so a coordinate beyond it is damage rather than a keypoint off the image.
LARGEST_COORDINATE = 1e6


# What a file is read as -> what to call it, and how to write it anew.
_KINDS = {
    "labels": ("label file", "JSON or CSV", "export the labels as COCO JSON or DeepLabCut CSV"),
    "boxes": ("box file", "JSON or MOT text", "write the boxes as JSON"),
}


def shown(value: object) -> str:
    """Return a value as it stands in a JSON file, short enough for a message."""
    if isinstance(value, list) and (len(value) > 6 or any(isinstance(v, list | dict) for v in value)):
        return f"a list of {len(value)} values"
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(map(str, value))[:80] or '(none)'}"
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_text(path: PathLike, what: Literal["labels", "boxes"] = "labels") -> str:
    """Return a text file; a byte order mark is dropped.

    Args:
        path: the file.
        what: it is read for, which the errors say.

    Raises:
        LabelsError: if the file cannot be read, is empty or is not UTF-8.
    """
    kind, formats, anew = _KINDS[what]
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise
        mend = "name an existing file that you may read"
        raise LabelsError(f"cannot read this {kind}", path=path, got=error, mend=mend) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsError(
            "the file is not text in UTF-8",
            path=path,
            expected=f"a {kind}: {formats}",
            got=f"byte 0x{data[error.start]:02x} at position {error.start}",
            mend=f"this looks like a video: give it as VIDEO, and the {kind} as {what}"
            if Path(path).suffix.lower() in VIDEO_SUFFIXES
            else f"save it as UTF-8, or {anew}",
        ) from error
    if not text.strip():
        raise LabelsError("the file is empty", path=path, mend=f"write the {what} again")
    return text


def parse_json(text: str, path: PathLike) -> Mapping[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        LabelsError: if the text is no JSON, or its top is not an object.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise LabelsError(
            "the file is no valid JSON",
            path=path,
            got=f"{error.msg} in line {error.lineno}, column {error.colno}",
            mend="export the labels again; a file that breaks off at its end was not written completely",
        ) from error
    except (ValueError, RecursionError) as error:
        mend = "export the labels again"
        raise LabelsError("the file is no usable JSON", path=path, got=error, mend=mend) from error
    if not isinstance(document, dict):
        raise LabelsError(
            "the file does not hold a set of labels",
            path=path,
            expected="an object with images, annotations and categories",
            got=shown(document),
            mend="export the labels as COCO keypoints JSON (a bare list of results lacks images and names)",
        )
    return document


def read_json(path: PathLike) -> Mapping[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        LabelsError: if it cannot be read, is no JSON, or its top is not an object.
    """
    return parse_json(read_text(path), path)


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a JSON file, with the place at which it stands."""

    path: PathLike
    where: str
    values: Mapping[str, Any]

    def problem(self, what: str, *, mend: str, expected: object = None, got: object = None) -> LabelsError:
        """Return the error that names this place."""
        return LabelsError(f"{self.where}: {what}", path=self.path, expected=expected, got=got, mend=mend)

    def wrong(self, key: str, expected: str) -> LabelsError:
        """Return the error for a value that is not what was expected."""
        value = self.values.get(key)
        return self.problem(
            f"{key} is wrong", expected=expected, got=shown(value), mend=f"correct {key} or export again"
        )

    def missing(self, key: str, expected: str) -> LabelsError:
        """Return the error for a value that has to be there."""
        return self.problem(
            f"{key} is missing", expected=expected, got=shown(dict(self.values)), mend=f"add {key}"
        )

    def whole(self, key: str, *, low: int = 0, high: int = LARGEST_INDEX) -> int | None:
        """Return a whole number from ``low`` to ``high``; None when it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def identifier(self, key: str) -> int | str | None:
        """Return a whole number or a text; None when it is absent or null."""
        value = self.values.get(key)
        if type(value) is float and value.is_integer():
            value = int(value)
        if value is None or type(value) is int or type(value) is str:
            return value
        raise self.wrong(key, "a whole number or a text")

    def text(self, key: str) -> str | None:
        """Return a text; None when it is absent, null or empty."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value or None

    def flag(self, key: str) -> bool | None:
        """Return true or false (also written 1 or 0); None when it is absent or null."""
        value = self.values.get(key)
        if value is not None and value not in (0, 1):
            raise self.wrong(key, "true or false")
        return None if value is None else bool(value)

    def items(self, key: str) -> list[Any] | None:
        """Return a list; None when it is absent, null or empty."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, list):
            raise self.wrong(key, "a list")
        return value or None

    def numbers(
        self, key: str, count: int, *, gaps: bool = False, limit: float = LARGEST_COORDINATE * 1e6
    ) -> np.ndarray | None:
        """Return ``count`` numbers as float64; None when the list is absent, null or empty.

        ``gaps`` allows null, which becomes NaN; none may be larger than ``limit``, below 0 or above.
        """
        values = self.items(key)
        if values is None:
            return None
        array = as_numbers(values, gaps=gaps)
        if array is None or len(array) != count or np.isinf(array).any():
            raise self.wrong(key, f"a list of {count} finite numbers")
        if not gaps and not np.isfinite(array).all():
            raise self.wrong(key, f"a list of {count} finite numbers, without NaN")
        if np.any(np.abs(array) > limit):
            raise self.wrong(key, f"{count} numbers from {-limit:.0f} to {limit:.0f}")
        return array


def as_numbers(values: list[Any], *, gaps: bool) -> np.ndarray | None:
    """Return a list of JSON numbers as float64, or None if it holds anything else (also true or "1").

    ``gaps`` allows null, which becomes NaN.
    """
    kinds = set(map(type, values))
    if not kinds <= ({int, float, type(None)} if gaps else {int, float}):
        return None
    try:
        return np.array(values, dtype=np.float64)  # null becomes NaN
    except OverflowError:
        return None


def records_of(document: Mapping[str, Any], key: str, path: PathLike) -> list[Record]:
    """Return the objects of a list of a JSON file.

    Raises:
        LabelsError: if the list is missing, or something else stands in it.
    """
    values = document.get(key)
    if not isinstance(values, list):
        raise LabelsError(
            f"{key} is {'wrong' if key in document else 'missing'}",
            path=path,
            expected=f"a list of {key}, as in COCO keypoints JSON",
            got=shown(values) if key in document else shown(dict(document)),
            mend="export again as COCO JSON, with images, annotations and categories",
        )
    records = []
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            raise LabelsError(
                f"{key}[{i}] is wrong",
                path=path,
                expected="an object",
                got=shown(value),
                mend="export again",
            )
        name = value.get("id")
        known = f" (id {name})" if type(name) in (int, str) and len(str(name)) < 40 else ""
        records.append(Record(path, f"{key}[{i}]{known}", value))
    return records
