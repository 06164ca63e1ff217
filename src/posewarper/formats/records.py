"""What the formats share: text, JSON, CSV and HDF5 files, and errors that name the place in them."""

from __future__ import annotations

import csv
import errno
import importlib
import io
import itertools
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml

from posewarper.errors import (
    ConfigError,
    LabelsError,
    PosewarperError,
    PosewarperWarning,
    few_of,
    first_sentence,
    unknown_name,
    what_stands_at,
)
from posewarper.files import replacing

PathLike = str | os.PathLike[str]
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv"),
    *(".flv", ".ogv", ".3gp", ".mjpeg", ".h264", ".hevc"),
)
LARGEST_INDEX = 2**31 - 1
UNLABELLED = ("unknown", "absent")  # what keypoints without a label may be
# Pixels; no image is that large, so a coordinate beyond it is damage rather than a keypoint off the image.
LARGEST_COORDINATE = 1e6


@dataclass(frozen=True)
class LabelFile(os.PathLike[str]):
    """A label file with what it does not tell itself; stands wherever the path of one does.

    Args:
        path: the file or folder.
        video: which of several videos in it is meant, by its name or the end of its path there.
        frame_number: which number in the names of images is the frame's: 1 for the first, -1 for the last.
        loose: take each image as a frame of its own, whatever video it is from.
        unlabelled: what keypoints without a label are on a labelled frame: ``unknown``, as nobody has looked
            at them, or ``absent``, as whoever labelled always looked at all of them.

    Raises:
        ConfigError: if ``unlabelled`` is anything else.

    Example:
        >>> import posewarper
        >>> labels = posewarper.read_labels(posewarper.LabelFile("labels.json", frame_number=-1))
        >>> len(labels.labelled_frames)
        3
    """

    path: PathLike
    video: str | None = None
    frame_number: int | None = None
    loose: bool = False
    unlabelled: str = UNLABELLED[0]

    def __post_init__(self) -> None:
        if self.unlabelled not in UNLABELLED:
            raise unknown_name("unknown kind of unlabelled keypoints", self.unlabelled, UNLABELLED)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return os.fspath(self.path)


def warn(path: PathLike, text: str) -> None:
    """Warn of something odd in a file."""
    warnings.warn(f"{path}: {text}", PosewarperWarning, stacklevel=3)


_LONGEST_YAML, _DEEPEST_YAML = 2**21, 100  # letters and brackets; more would take minutes
_MOST_VALUES = 100_000  # of a YAML file that has aliases


class _Kind(NamedTuple):
    """What to call a file that is read, what it may be, how to write it anew, and how large it may be."""

    name: str
    formats: str
    anew: str
    most_bytes: int
    error: type[PosewarperError] = LabelsError


What = Literal["labels", "boxes", "recipe", "list", "project"]
_KINDS: Mapping[What, _Kind] = {
    "labels": _Kind("label file", "JSON or CSV", "export the labels as COCO JSON or DeepLabCut CSV", 2**32),
    "boxes": _Kind("box file", "JSON or MOT text", "write the boxes as JSON", 2**32),
    "recipe": _Kind("recipe", "a YAML file", "write it as the shipped ones", 2**20, ConfigError),
    "list": _Kind(
        "list of videos", "a file .csv, .tsv, .txt or .yaml", "write it as a table", 2**26, ConfigError
    ),
    "project": _Kind("project", "the config.yaml of DeepLabCut", "let DeepLabCut write it again", 2**21),
}


def shown(value: object) -> str:
    """Return a value as it stands in a JSON file, short enough for a message."""
    if isinstance(value, list) and (len(value) > 6 or any(isinstance(v, list | dict) for v in value)):
        return f"a list of {len(value)} values"
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(map(str, value))[:80] or '(none)'}"
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_bytes(path: PathLike, what: What = "labels", count: int = -1) -> bytes:
    """Return what a file holds, or its first ``count`` bytes.

    Raises:
        PosewarperError: if the file cannot be read, is a pipe or is too large, a LabelsError or ConfigError
            by what it is. A failing disk stays an ``OSError``.
    """
    kind = _KINDS[what]
    try:
        refuse_pipe(path)
        size = os.path.getsize(path)
        if size > kind.most_bytes:
            raise ValueError(
                f"{size / 2**20:.0f} MB; a {kind.name} has {kind.most_bytes / 2**20:.0f} at most"
            )
        with Path(path).open("rb") as handle:
            return handle.read(count)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise
        got = getattr(error, "strerror", None) or error
        fix = "name an existing file that you may read"
        what_is_wrong = f"cannot read this {kind.name}"
        raise kind.error(what_is_wrong, path=path, expected=kind.formats, got=got, fix=fix) from error


def refuse_pipe(path: PathLike) -> None:
    """Raise ValueError if what stands at a path is no file: who reads a pipe may wait for ever."""
    if found := what_stands_at(path):
        raise ValueError(f"{found}, not a file")


def read_text(path: PathLike, what: What = "labels") -> str:
    """Return a text file without its byte order mark; the errors say what it is read for.

    Raises:
        PosewarperError: as :func:`read_bytes`, and if the file is empty or neither UTF-8 nor UTF-16.
    """
    kind, data = _KINDS[what], read_bytes(path, what)
    try:
        text = data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        raise kind.error(
            "the file is not text in UTF-8 or UTF-16",
            path=path,
            expected=f"a {kind.name}: {kind.formats}",
            got=f"byte 0x{data[error.start]:02x} at position {error.start}",
            fix=f"this looks like a video: give it as VIDEO, and the {kind.name} as {what}"
            if Path(path).suffix.lower() in VIDEO_SUFFIXES
            else f"save it as UTF-8, or {kind.anew}",
        ) from error
    if not text.strip():
        raise kind.error("the file is empty", path=path, fix=f"write the {what} again")
    return text


def encoding_of(data: bytes) -> str:
    """Return the encoding of a text by its first bytes: UTF-16, as Excel writes it, or UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if len(data) > 3 and 0 in data[:2]:  # no byte order mark, but text begins with a letter of one byte
        return "utf-16-le" if data[1] == 0 else "utf-16-be"
    return "utf-8-sig"


def load_yaml(text: str, path: PathLike, what: What, loader: Any = yaml.SafeLoader) -> Any:
    """Return the plain values that a YAML text holds.

    Raises:
        PosewarperError: if it is no YAML or too long, holds a value that is none (a date such as 2001-99-99),
            or has aliases that repeat one another without end.
    """
    try:
        if len(text) > _LONGEST_YAML:
            raise ValueError(f"{len(text)} letters; YAML is read up to {_LONGEST_YAML}")
        steps = ({"[": 1, "{": 1, "]": -1, "}": -1}[bracket] for bracket in re.findall(r"[][{}]", text))
        if max(itertools.accumulate(steps), default=0) > _DEEPEST_YAML:
            raise ValueError(f"brackets within brackets, more than {_DEEPEST_YAML} of them")
        reader = loader(text)
        node = reader.get_single_node()
        if _count_values(node, {}) > max(_MOST_VALUES, len(text)):
            raise ValueError("aliases (*name) that repeat one another to millions of values")
        return None if node is None else reader.construct_document(node)
    except Exception as error:  # ValueError for impossible dates, RecursionError for deep nesting, ...
        got = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else first_sentence(error)
        kind, fix = _KINDS[what], "correct the line"
        what_is_wrong = "this is not valid YAML"
        raise kind.error(what_is_wrong, path=path, expected=kind.formats, got=got[:200], fix=fix) from error


def _count_values(node: Any, known: dict[int, float]) -> float:
    """Return how many values a YAML node stands for, those behind an alias each time that it stands there."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # which it stays for a list that holds itself
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(node)]


# A cell that begins so is a formula to a spreadsheet, unless it is a number; an apostrophe makes it a text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def read_csv(text: str, path: PathLike) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each row of a table, with quotation marks or without.

    Commas, semicolons, tabs or bars separate, by the first row, or as Excel's line ``sep=;`` says. The
    apostrophes of :func:`write_csv` are left out.

    Raises:
        LabelsError: if quotation marks do not pair.
    """
    text = text.lstrip("\r\n ")
    first, _, rest = text.partition("\n")
    stated = re.fullmatch(r'"?sep=(.)"?', first.strip("\r"), re.IGNORECASE)
    top = re.sub('"[^"]*"', "", rest.lstrip().partition("\n")[0] if stated else first)
    separator = stated[1] if stated else max(",;\t|", key=top.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        for n, cells in enumerate(reader):
            if not (stated and n == 0):
                cells = [c[1:] if c[:1] == "'" and _FORMULA.match(c) else c for c in cells]
                yield f"line {reader.line_num}", cells
    except csv.Error as error:
        raise LabelsError(
            f"line {reader.line_num}: the file is no valid CSV",
            path=path,
            expected="a table with the same separator throughout",
            got=error,
            fix="save it as CSV, and check the quotation marks",
        ) from error


def read_numbers(cells: Iterable[str]) -> Callable[[str], float]:
    """Return what turns a cell of a table into a number, NaN for an empty one; commas may be decimal.

    They separate thousands, which is refused, where all have three digits behind and other cells no comma.
    """
    some = [cell for cell in cells if re.match("[-+]?[0-9]*[.,]?[0-9]", cell)]
    commas = [cell for cell in some if "," in cell]
    thousands = len(commas) < len(some) and all(re.fullmatch("[1-9][0-9]{0,2},[0-9]{3}", c) for c in commas)

    def read(cell: str) -> float:
        if not cell or cell.lower() in ("nan", "na", "none", "null"):
            return np.nan
        return float(cell if thousands else cell.replace(",", "."))

    return read


def write_csv(path: PathLike, rows: Iterable[Sequence[object]]) -> None:
    """Write rows of cells as a CSV file; names that are no UTF-8 are escaped.

    Raises:
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: if names begin as formulas do; they get an apostrophe, which reading removes.
    """
    marked: dict[str, None] = {}

    def mark(cell: object) -> object:
        if not isinstance(cell, str) or not _FORMULA.match(cell) or _is_number(cell):
            return cell
        marked[cell] = None
        return f"'{cell}"

    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        csv.writer(handle, lineterminator="\n").writerows([mark(cell) for cell in row] for row in rows)
    if marked:
        text = "names that a spreadsheet would run as formulas are written with an apostrophe before them"
        warn(path, f"{text}: {few_of(list(marked))}")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def load_json(text: str, path: PathLike, what: What = "labels") -> Any:
    """Return what the text of a JSON file holds.

    Raises:
        LabelsError: if it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        got: object = error
        if isinstance(error, json.JSONDecodeError):
            got = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise LabelsError(
            "the file is no valid JSON",
            path=path,
            expected=f"a {_KINDS[what].name}: {_KINDS[what].formats}",
            got=got,
            fix=f"write the {what} again; a file that breaks off at its end was not written completely",
        ) from error


def parse_json(text: str, path: PathLike) -> Mapping[str, Any]:
    """Return the object that a JSON file of labels holds.

    Raises:
        LabelsError: if the text is no JSON, or its top is not an object.
    """
    document = load_json(text, path)
    if not isinstance(document, dict):
        raise LabelsError(
            "the file does not hold a set of labels",
            path=path,
            expected="an object with images, annotations and categories",
            got=shown(document),
            fix="export the labels as COCO keypoints JSON (a bare list of results lacks images and names)",
        )
    return document


def read_json(path: PathLike) -> Mapping[str, Any]:
    """Return the object that a JSON file of labels holds.

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

    def problem(self, what: str, *, fix: str, expected: object = None, got: object = None) -> LabelsError:
        """Return the error that names this place."""
        return LabelsError(f"{self.where}: {what}", path=self.path, expected=expected, got=got, fix=fix)

    def wrong(self, key: str, expected: str) -> LabelsError:
        """Return the error for a value that is not what was expected."""
        got, fix = shown(self.values.get(key)), f"correct {key} or export again"
        return self.problem(f"{key} is wrong", expected=expected, got=got, fix=fix)

    def missing(self, key: str, expected: str) -> LabelsError:
        """Return the error for a value that has to be there."""
        got = shown(dict(self.values))
        return self.problem(f"{key} is missing", expected=expected, got=got, fix=f"add {key}")

    def no_image(self, fix: str) -> LabelsError:
        """Return the error for an ``image_id`` that belongs to no image."""
        what, expected = "image_id points to no image", "the id of one of the images"
        return self.problem(what, expected=expected, got=self.values.get("image_id"), fix=fix)

    def whole(self, key: str, *, low: int = 0, high: int = LARGEST_INDEX) -> int | None:
        """Return a whole number from ``low`` to ``high``; None when it is absent or null."""
        value = self.values.get(key)
        if type(value) is float and value.is_integer():
            value = int(value)
        if value is None or (type(value) is int and low <= value <= high):
            return value
        raise self.wrong(key, f"a whole number from {low} to {high}")

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

    def number(self, key: str) -> float | None:
        """Return a finite number; None when it is absent or null."""
        value = self.values.get(key)
        if value is not None and (type(value) not in (int, float) or not abs(value) <= LARGEST_COORDINATE):
            raise self.wrong(key, "a finite number")
        return None if value is None else float(value)

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

    def box(self, key: str, limit: float = LARGEST_COORDINATE * 1e6) -> np.ndarray | None:
        """Return a box (4,) xywh in pixels; None when it is absent, null or empty."""
        box = self.numbers(key, 4, limit=limit)
        if box is not None and (box[2:] < 0).any():
            raise self.wrong(key, "left, top, width and height in pixels, with sizes not below 0")
        return box


def as_numbers(values: list[Any], *, gaps: bool) -> np.ndarray | None:
    """Return a list of JSON numbers as float64, or None if it holds anything else (also true or "1").

    ``gaps`` allows null, which becomes NaN.
    """
    if not set(map(type, values)) <= {int, float, type(None) if gaps else float}:
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
            fix="export again as COCO JSON, with images, annotations and categories",
        )
    records = []
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            what, got = f"{key}[{i}] is wrong", shown(value)
            raise LabelsError(what, path=path, expected="an object", got=got, fix="export again")
        name = value.get("id")
        known = f" (id {name})" if type(name) in (int, str) and len(str(name)) < 40 else ""
        records.append(Record(path, f"{key}[{i}]{known}", value))
    return records


SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of HDF5 files


def import_extra(name: str, path: PathLike, *, instead: str = "") -> Any:
    """Return a package of the extra ``formats``, by the name by which it is imported.

    Raises:
        LabelsError: if it is not installed; ``instead`` says what can be done without it.
    """
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise LabelsError(
            "this format needs packages that are not installed",
            path=path,
            expected=f"the package {name.partition('.')[0]}",
            got=error,
            fix='pip install "posewarper[formats]"' + instead,
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of other packages from the user's terminal, and our own as they are."""
    filters = [f for f in warnings.filters if issubclass(PosewarperWarning, f[2]) and not f[1] and not f[3]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        action: Any = filters[0][0] if filters else "default"
        warnings.simplefilter(action, PosewarperWarning)
        yield


@contextmanager
def reading(path: PathLike, what: str, fix: str) -> Iterator[None]:
    """Turn whatever goes wrong inside of another package into an error that names the file.

    ``what`` is what the file should be, with its article.

    Raises:
        LabelsError: in place of any other exception. A failing disk stays an ``OSError``.
    """
    try:
        with quiet():
            yield
    except PosewarperError as error:
        if error.path is not None:
            raise
        raise LabelsError(
            error.what, path=path, expected=error.expected, got=error.got, fix=error.fix
        ) from error
    # Which exceptions a damaged file leads to, no package says: HDF5 files have been seen to end in
    # KeyError, ValueError, TypeError, RuntimeError, OSError, struct.error and AssertionError, and in a
    # MemoryError where a damaged size asks for a petabyte.
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise
        first_line = (str(error).strip().splitlines() or [""])[0]
        got = f"{type(error).__name__}: {first_line}"[:200]
        raise LabelsError(f"this cannot be read as {what}", path=path, got=got, fix=fix) from error


@contextmanager
def open_hdf5(path: PathLike, what: str, fix: str) -> Iterator[Any]:
    """Give an HDF5 file opened for reading, an ``h5py.File`` that holds all its data itself.

    Raises:
        LabelsError: if it cannot be opened, takes data from other files, or anything goes wrong while it is
            read.
    """
    h5py = import_extra("h5py", path)
    with reading(path, what, fix):
        refuse_pipe(path)
        with h5py.File(path, "r") as file:
            _refuse_other_files(h5py, file)
            yield file


def _refuse_other_files(h5py: Any, file: Any) -> None:
    """Raise LabelsError if a link or a data set leads out of an HDF5 file: no labels do that."""

    def check(name: str, link: Any) -> str | None:
        if isinstance(link, h5py.SoftLink):
            return None
        if isinstance(link, h5py.HardLink):
            node = file[name]
            if not (isinstance(node, h5py.Dataset) and (node.is_virtual or node.external)):
                return None
        return name

    # The walk ends at the first name that the check returns.
    found = file.visititems_links(check)
    if found is not None:
        raise LabelsError(
            "a part of this file takes its data from another file",
            expected="a file that holds all its data itself",
            got=found,
            fix="copy the data into the file, if you trust where they come from",
        )


def tell_format(path: PathLike) -> str:
    """Return which of the formats of labels an HDF5 file has, such as "sleap", "nwb" or "deeplabcut".

    Raises:
        LabelsError: if it has none of them, cannot be opened, or h5py is not installed.
    """
    fix = "copy it again from where it was made; a file that breaks off was not written completely"
    with open_hdf5(path, "an HDF5 file", fix) as file:
        if "nwb_version" in file.attrs:
            return "nwb"
        if "frames" in file and "videos_json" in file:
            return "sleap"
        if "tracks" in file and "node_names" in file:
            return "sleap-analysis"
        if "poseest" in file:
            return "jabs"
        if "position" in file and "space" in file:
            return "movement"
        # Data frames that pandas wrote are groups with this attribute; DeepLabCut's tables are such.
        if any("pandas_type" in getattr(file.get(name), "attrs", ()) for name in file):
            return "deeplabcut"
        holds = ", ".join(file)[:80]
    raise LabelsError(
        "this HDF5 file is in no known format",
        path=path,
        expected="a SLEAP project (.slp), an NWB file, movement's poses (.nc), or a DeepLabCut table (.h5)",
        got=f"a file that holds {holds or 'nothing'}",
        fix="export the labels in one of these formats",
    )
