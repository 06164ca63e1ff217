"""PoseTrack17's annotation files as MATLAB writes them: a struct ``annolist`` with the fields of the JSON."""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.files import replacing
from posewarper.formats.frame_names import folder_name, number_in
from posewarper.formats.records import LARGEST_COORDINATE, PathLike, Record, as_numbers, read_json, shown
from posewarper.posetrack.points import POINT_KEYPOINTS, POINTS, corner_boxes, frame_name
from posewarper.skeletons import POSETRACK
from posewarper.structures import NO_TRACK, Floats, InstanceTable, is_there

_HEAD_BOX = ("x1", "y1", "x2", "y2")


def read_annolist(path: PathLike) -> InstanceTable:
    """Return the instances of a video from an annolist JSON file, ground truth or predictions.

    Keypoints are PoseTrack's 17, with the ears absent. A point counts as labelled when it is listed with x
    and y, whatever ``is_visible`` says. Frame numbers are ``imgnum``, or else the numbers in the file names.

    Raises:
        LabelsError: if the file cannot be read or something in it is not as it should be.
    """
    return table_of_annolist(read_json(path), path)


def table_of_annolist(document: Mapping[str, Any], path: PathLike) -> InstanceTable:
    """Return the instances of a parsed annolist.

    Args:
        document: the file's content: an object with ``annolist``.
        path: the file, for messages and, where the frames lie in no common folder, the video's name.

    Raises:
        LabelsError: if something in it is not as it should be.
    """
    frames = _records(Record(path, "the file", document), "annolist", "annolist")
    if not frames:
        raise Record(path, "the file", document).missing("annolist", "a list of frames")
    names = [_frame_name(frame) for frame in frames]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        places = [frame.where for frame, name in zip(frames, names, strict=True) if name == repeated]
        raise LabelsError(
            "two frames have the same name",
            path=path,
            got=f"{repeated} at {places[0]} and {places[1]}",
            fix="keep one of the two",
        )
    people = _People()
    for row, frame in enumerate(frames):
        for person in _records(frame, "annorect", f"{frame.where}.annorect"):
            # MATLAB's empty struct, with all fields empty or none, stands for nobody.
            if any(_single(value) is not None for value in person.values.values()):
                people.add(row, person)
    ids = [_whole(Record(path, f"{f.where}.image", _image(f)), "id") for f in frames]
    top = Record(path, "the file", document)
    height, width = _whole(top, "height"), _whole(top, "width")
    return InstanceTable(
        video=_text(document.get("video")) or video_name(names, path),
        frame_names=tuple(names),
        frame_numbers=np.array([_frame_number(f, name) for f, name in zip(frames, names, strict=True)]),
        image_ids=None if None in ids else np.array(ids),
        is_labelled=labelled_flags([_flag(f) for f in frames], people.rows),
        ignore_regions={row: regions for row, f in enumerate(frames) if (regions := _regions(f))},
        n_frames=_whole(top, "nframes"),
        image_size=(height, width) if height and width else None,
        **people.columns(path),
    )


def video_name(names: Sequence[str], path: PathLike) -> str:
    """Return the name of the folder that all frames lie in, or else of the file."""
    folders = {folder_name(name) for name in names}
    return (folders.pop() if len(folders) == 1 else None) or Path(path).stem


def labelled_flags(flags: Sequence[bool | None], rows: Iterable[int]) -> NDArray[np.bool_]:
    """Return which frames are labelled (F,), from what the file says of each.

    Where it says nothing at all, all are; where it speaks of some only, the others are if somebody is there.
    """
    if all(flag is None for flag in flags):
        return np.ones(len(flags), bool)
    peopled = {int(row) for row in rows}
    return np.array([row in peopled if flag is None else flag for row, flag in enumerate(flags)], bool)


# --- values that may stand in lists of one ------------------------------------------------------------------


def _single(value: Any) -> Any:
    """Return a value out of the lists of one around it; None for an empty list."""
    while type(value) is list and len(value) < 2:
        value = value[0] if value else None
    return value


def _text(value: Any) -> str | None:
    value = _single(value)
    return value if isinstance(value, str) and value else None


def _records(parent: Record, key: str, where: str) -> list[Record]:
    """Return the objects under a key, which may be one object, a list of them or nothing."""
    value = parent.values.get(key)
    values = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    if (value is not None and value != "" and not isinstance(value, dict | list)) or not all(
        isinstance(item, dict) or item == [] for item in values
    ):
        raise parent.wrong(key, "a list of objects")
    return [Record(parent.path, f"{where}[{i}]", item) for i, item in enumerate(values) if item != []]


def _whole(record: Record, key: str) -> int | None:
    value = _single(record.values.get(key))
    return Record(record.path, record.where, {key: value}).whole(key, low=-(2**62), high=2**62)


def single_number(record: Record, key: str) -> float:
    """Return a number that may stand in a list of one; NaN when it is absent, null or empty.

    Raises:
        LabelsError: if it is anything else.
    """
    value = _single(record.values.get(key))
    if value is None:
        return np.nan
    if type(value) not in (int, float) or abs(value) > LARGEST_COORDINATE * 1e6:
        raise record.wrong(key, "a number")
    return float(value)


def _image(frame: Record) -> Mapping[str, Any]:
    image = _single(frame.values.get("image"))
    return image if isinstance(image, dict) else {"name": image}


def _frame_name(frame: Record) -> str:
    name = _text(_image(frame).get("name"))
    if name is None:
        raise frame.wrong("image", 'the file name of the frame, as in [{"name": "images/..."}]')
    return frame_name(name)


def _frame_number(frame: Record, name: str) -> int:
    stated = _whole(frame, "imgnum")
    number = number_in(name) if stated is None else stated
    if number is None:
        raise frame.missing("imgnum", "the number of the frame, since the file name has none")
    return number


def _flag(frame: Record) -> bool | None:
    value = _single(frame.values.get("is_labeled"))
    return Record(frame.path, frame.where, {"is_labeled": value}).flag("is_labeled")


def _regions(frame: Record) -> tuple[Floats, ...]:
    polygons = []
    for region in _records(frame, "ignore_regions", f"{frame.where}.ignore_regions"):
        points = _records(region, "point", f"{region.where}.point")
        corners = np.array([[single_number(p, "x"), single_number(p, "y")] for p in points])
        if corners.size and not (np.abs(corners) <= LARGEST_COORDINATE).all():
            raise region.wrong("point", "x and y in pixels of each corner")
        if corners.size:
            polygons.append(corners)
    return tuple(polygons)


# --- people -------------------------------------------------------------------------------------------------


@dataclass
class _People:
    """What all people of a file hold, collected as they come and checked as arrays."""

    rows: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    tracks: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)  # of each point: the position of its person
    points: list[Any] = field(default_factory=list)  # id, x, y, score of each point, flat

    def add(self, row: int, person: Record) -> None:
        track = _whole(person, "track_id")
        self.tracks.append(NO_TRACK if track is None else track)
        self.rows.append(row)
        self.records.append(person)
        owner, points = len(self.records) - 1, self.points
        for group in _records(person, "annopoints", f"{person.where}.annopoints"):
            values = group.values.get("point")
            values = [values] if isinstance(values, dict) else values or []
            if type(values) is not list or any(type(point) is not dict for point in values):
                raise group.wrong("point", "a list of objects with id, x and y")
            for point in values:
                get = point.get
                found = (_single(get("id")), _single(get("x")), _single(get("y")))
                if found != (None, None, None):  # as in MATLAB's empty struct
                    points += (*found, _single(get("score")))
                    self.owners.append(owner)

    def columns(self, path: PathLike) -> dict[str, Any]:
        """Return the columns of the table that are about people."""
        n = len(self.records)
        keypoints, scores = np.full((n, len(POSETRACK), 2), np.nan), np.full((n, len(POSETRACK)), np.nan)
        owners = np.array(self.owners, np.int64)
        values = self._checked_points()
        keypoint = POINT_KEYPOINTS[values[:, 0].astype(np.int64)]
        if len(np.unique(owners * len(POSETRACK) + keypoint)) < len(owners):
            warnings.warn(
                f"{path}: a point is given twice for the same person; the last counts",
                PosewarperWarning,
                stacklevel=4,
            )
        keypoints[owners, keypoint] = values[:, 1:3]
        scores[owners, keypoint] = values[:, 3]
        heads = np.array([[single_number(r, key) for key in _HEAD_BOX] for r in self.records]).reshape(n, 4)
        heads[:, 2:] -= heads[:, :2]
        return {
            "rows": self.rows,
            "keypoints": keypoints,
            "keypoint_scores": np.where(is_there(keypoints), scores, np.nan),
            "scores": [single_number(r, "score") for r in self.records],
            "tracks": self.tracks,
            "head_boxes": heads,
            "boxes": np.array([_box(r) for r in self.records]).reshape(n, 4),
        }

    def _checked_points(self) -> Floats:
        """Return (m, 4) id, x, y and score of all points, NaN for what is not given."""
        array = as_numbers(self.points, gaps=True)
        if array is not None:
            array = array.reshape(-1, 4)
            bad = ~np.isin(array[:, 0], np.arange(len(POINTS)))
            bad |= (np.abs(array[:, 1:]) > LARGEST_COORDINATE).any(1) | ~np.isfinite(array[:, 1:3]).all(1)
            if not bad.any():
                return array
            first = int(np.flatnonzero(bad)[0])
        else:
            kinds = (int, float, type(None))
            wrong = next(i for i, v in enumerate(self.points) if type(v) not in kinds or abs(v or 0) > 1e300)
            first = wrong // 4
        person = self.records[self.owners[first]]
        got = ", ".join(
            f"{key} {shown(value)}"
            for key, value in zip(("id", "x", "y", "score"), self.points[4 * first :][:4], strict=True)
        )
        raise person.problem(
            f"point {first - self.owners.index(self.owners[first])} is wrong",
            expected=f"an id from 0 to {len(POINTS) - 1}, x and y in pixels, and a score or none",
            got=got,
            fix="correct it or leave the point out",
        )


def _box(person: Record) -> np.ndarray:
    box = person.numbers("bbox", 4) if isinstance(person.values.get("bbox"), list) else None
    return np.full(4, np.nan) if box is None else box


# --- writing ------------------------------------------------------------------------------------------------


def write_annolist(path: PathLike, table: InstanceTable) -> None:
    """Write a table as an annolist JSON file; all that it holds comes back when it is read, but for ears.

    People come back in the order of their frames.

    Raises:
        LabelsError: if the table has another skeleton than PoseTrack's.
        OutputError: if the place cannot be written.
    """
    text = json.dumps(annolist_document(table), allow_nan=False, separators=(",", ":"))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def annolist_document(table: InstanceTable) -> dict[str, Any]:
    """Return a table as the content of an annolist file, in the official form.

    Ears have no place in it and are left out; a frame's name gets ``images/`` in front.

    Raises:
        LabelsError: if the table has another skeleton than PoseTrack's.
    """
    require_posetrack(table)
    people: list[list[dict[str, Any]]] = [[] for _ in table.frame_names]
    corners = corner_boxes(table.head_boxes)
    points = point_lists(table)
    for i, row in enumerate(table.rows):
        person: dict[str, Any] = {}
        if table.tracks[i] != NO_TRACK:
            person["track_id"] = [int(table.tracks[i])]
        if np.isfinite(corners[i]).all():
            person |= {key: [value] for key, value in zip(_HEAD_BOX, corners[i].tolist(), strict=True)}
        if np.isfinite(table.boxes[i]).all():
            person["bbox"] = table.boxes[i].tolist()
        if np.isfinite(table.scores[i]):
            person["score"] = [float(table.scores[i])]
        person["annopoints"] = [{"point": points[i]}]
        people[row].append(person)
    frames = []
    for row, name in enumerate(table.frame_names):
        image: dict[str, Any] = {"name": f"images/{name}"}
        if table.image_ids is not None:
            image["id"] = int(table.image_ids[row])
        frame: dict[str, Any] = {
            "image": [image],
            "imgnum": [int(table.frame_numbers[row])],
            "is_labeled": [int(table.is_labelled[row])],
        }
        regions = table.ignore_regions.get(row, ())
        if regions:
            frame["ignore_regions"] = [
                {"point": [{"x": [x], "y": [y]} for x, y in np.asarray(region, float).tolist()]}
                for region in regions
            ]
        frames.append(frame | {"annorect": people[row]})
    return {"annolist": frames} | _beside(table)


def _beside(table: InstanceTable) -> dict[str, Any]:
    """Return what a table holds of the video beyond its frames, where it holds it."""
    values: dict[str, Any] = {}
    if table.video != video_name(table.frame_names, ""):
        values["video"] = table.video
    if table.n_frames is not None:
        values["nframes"] = table.n_frames
    if table.image_size is not None:
        values["height"], values["width"] = table.image_size
    return values


def point_lists(table: InstanceTable) -> list[list[dict[str, Any]]]:
    """Return for each instance the points that are there: id, x, y and, where it is known, score."""
    keypoints = table.keypoints[:, POINT_KEYPOINTS]
    scores = table.keypoint_scores[:, POINT_KEYPOINTS]
    there, scored = is_there(keypoints).tolist(), np.isfinite(scores).tolist()
    lists = []
    for xy, score, present, known in zip(keypoints.tolist(), scores.tolist(), there, scored, strict=True):
        points = []
        for k in range(len(POINTS)):
            if present[k]:
                point: dict[str, Any] = {"id": [k], "x": [xy[k][0]], "y": [xy[k][1]]}
                if known[k]:
                    point["score"] = [score[k]]
                points.append(point)
        lists.append(points)
    return lists


def require_posetrack(table: InstanceTable) -> None:
    """Raise LabelsError unless the table has PoseTrack's keypoints."""
    if table.skeleton.names != POSETRACK.names:
        raise LabelsError(
            "these are not PoseTrack's keypoints",
            expected=", ".join(POSETRACK.names),
            got=", ".join(table.skeleton.names),
            fix="write another format, or predict with a model of PoseTrack's skeleton",
        )


def read_annolist_mat(path: PathLike) -> InstanceTable:
    """Return the instances of a video from an annolist ``.mat`` file, as ``read_annolist`` does from JSON.

    Raises:
        LabelsError: if the file cannot be read or something in it is not as it should be.
    """
    fix = "use a .mat file of PoseTrack17, or the .json file of the same name"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy's remarks about MATLAB's own objects
            content = loadmat(path, simplify_cells=True, appendmat=False)
    except NotImplementedError as error:
        raise LabelsError(
            "the file is of MATLAB's version 7.3, which is not read here",
            path=path,
            fix="save it in MATLAB with save(..., '-v7'), or use the .json file of the same name",
        ) from error
    except Exception as error:  # scipy raises whatever a damaged byte leads to
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.EIO):
            raise
        raise LabelsError("cannot read this .mat file", path=path, got=error, fix=fix) from error
    if "annolist" not in content:
        names = [name for name in content if not name.startswith("__")]
        raise LabelsError(
            "the file does not hold annotations of PoseTrack17",
            path=path,
            expected="the struct annolist",
            got=", ".join(names)[:200] or "no variables",
            fix=fix,
        )
    document = {"annolist": _plain(content["annolist"])}
    for name in ("video", "nframes", "height", "width"):
        if name in content:
            document[name] = _plain(content[name])
    return table_of_annolist(document, path)


def _plain(value: Any) -> Any:
    """Return structs and arrays as objects, lists, numbers and texts, as they stand in the JSON files."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        # Arrays of a cell are what ``simplify_cells`` leaves of nested ones; their shape says nothing.
        return [_plain(item) for item in value.reshape(-1)] if value.dtype == object else value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def write_annolist_mat(path: PathLike, table: InstanceTable) -> None:
    """Write a table as an annolist ``.mat`` file, for made-up downloads of PoseTrack17.

    Raises:
        LabelsError: if the table has another skeleton than PoseTrack's.
        OutputError: if the place cannot be written.
    """
    document = annolist_document(table)
    content = {key: value for key, value in document.items() if key != "annolist"}
    content["annolist"] = _structs(document["annolist"])
    with replacing(Path(path)) as temporary:
        savemat(temporary, content, appendmat=False, do_compression=True, long_field_names=True)


def _structs(values: list[Any]) -> Any:
    """Return a list of objects as a MATLAB struct array, in which all have the fields of any of them."""
    if not values:
        return np.zeros((0, 0))
    if not isinstance(values[0], dict):
        return np.array(values, np.float64)
    fields = list(dict.fromkeys(key for value in values for key in value))
    structs = np.empty((1, len(values)), dtype=[(name, object) for name in fields])
    for i, value in enumerate(values):
        for name in fields:
            item = value.get(name, [])
            structs[0, i][name] = _structs(item) if isinstance(item, list) else item
    return structs
