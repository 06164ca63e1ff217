"""PoseTrack17's annotation files, as JSON and as MATLAB writes them: a list ``annolist`` of frames.

Any value may stand in a list of one, which says nothing; an empty list stands for no value. Ears have no
place in these files. A point counts as labelled when it is listed with x and y, whatever ``is_visible`` says.
"""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, savemat

from posewarper.errors import LabelsError, PosewarperWarning, few_of
from posewarper.files import replacing, write_text
from posewarper.formats.frame_names import folder_name, frame_name, number_in
from posewarper.formats.records import LARGEST_COORDINATE, PathLike, Record, as_numbers, shown
from posewarper.posetrack.points import (
    POINT_KEYPOINTS,
    POINTS,
    check_names,
    labelled_flags,
    single,
    single_number,
    whole,
    without_none,
)
from posewarper.skeletons import POSETRACK
from posewarper.structures import NO_TRACK, Floats, InstanceTable, is_there

_HEAD_BOX = ("x1", "y1", "x2", "y2")


def table_of_annolist(document: Mapping[str, Any], path: PathLike) -> InstanceTable:
    """Return the instances of a parsed annolist, ground truth or predictions.

    Keypoints are PoseTrack's 17, with the ears absent. Frame numbers are ``imgnum``, or else the numbers in
    the file names. ``path`` is the file, for messages and for the name of a video whose frames lie in no
    common folder.

    Raises:
        LabelsError: if something in it is not as it should be.
    """
    top = _record(path, "the file", document)
    frames = _records(top, "annolist", "annolist")
    if not frames:
        raise top.missing("annolist", "a list of frames")
    names, ids, numbers = [], [], []
    rows: list[int] = []  # of each person: the position of the frame
    people: list[Record] = []
    for row, frame in enumerate(frames):
        image = frame.values.get("image")
        image = _record(path, f"{frame.where}.image", image if isinstance(image, dict) else {"name": image})
        name = image.values.get("name")
        if not isinstance(name, str) or not name:
            raise frame.wrong("image", 'the file name of the frame, as in [{"name": "images/..."}]')
        names.append(frame_name(name))
        ids.append(whole(image, "id"))
        stated = whole(frame, "imgnum")
        numbers.append(number_in(names[-1]) if stated is None else stated)
        if numbers[-1] is None:
            raise frame.missing("imgnum", "the number of the frame, since the file name has none")
        for person in _records(frame, "annorect", f"{frame.where}.annorect"):
            # MATLAB's empty struct, with all fields empty or none, stands for nobody.
            if any(value is not None for value in person.values.values()):
                rows.append(row)
                people.append(person)
    check_names(names, frames)
    keypoints, scores = _read_points(people, path)
    heads = np.array([[single_number(p, key) for key in _HEAD_BOX] for p in people]).reshape(-1, 4)
    heads[:, 2:] -= heads[:, :2]
    tracks = [whole(person, "track_id") for person in people]
    height, width, video = whole(top, "height"), whole(top, "width"), top.values.get("video")
    return InstanceTable(
        video=(video if isinstance(video, str) else "") or _video_name(names, path),
        frame_names=tuple(names),
        frame_numbers=np.array(numbers),
        rows=np.array(rows, np.int64),
        keypoints=keypoints,
        keypoint_scores=np.where(is_there(keypoints), scores, np.nan),
        scores=np.array([single_number(person, "score") for person in people]),
        tracks=np.array([NO_TRACK if track is None else track for track in tracks], np.int64),
        boxes=np.array([_box(person) for person in people]).reshape(-1, 4),
        head_boxes=heads,
        is_labelled=labelled_flags([frame.flag("is_labeled") for frame in frames], rows),
        image_ids=None if None in ids else np.array(ids),
        ignore_regions={row: regions for row, f in enumerate(frames) if (regions := _regions(f))},
        n_frames=whole(top, "nframes"),
        image_size=(height, width) if height and width else None,
    )


def _record(path: PathLike, where: str, values: Mapping[str, Any]) -> Record:
    return Record(path, where, {key: single(value) for key, value in values.items()})


def _records(parent: Record, key: str, where: str) -> list[Record]:
    """Return the objects under a key, which may be one object, a list of them or nothing."""
    value = parent.values.get(key)
    values = value if isinstance(value, list) else [] if value is None or value == "" else [value]
    if not all(isinstance(item, dict) or item == [] for item in values):
        raise parent.wrong(key, "a list of objects")
    return [_record(parent.path, f"{where}[{i}]", item) for i, item in enumerate(values) if item != []]


def _video_name(names: Sequence[str], path: PathLike) -> str:
    """Return the name of the folder that all frames lie in, or else of the file."""
    folders = {folder_name(name) for name in names}
    return (folders.pop() if len(folders) == 1 else None) or Path(path).stem


def _box(person: Record) -> np.ndarray:
    box = person.numbers("bbox", 4) if isinstance(person.values.get("bbox"), list) else None
    return np.full(4, np.nan) if box is None else box


def _regions(frame: Record) -> tuple[Floats, ...]:
    polygons = []
    for region in _records(frame, "ignore_regions", f"{frame.where}.ignore_regions"):
        points = _records(region, "point", f"{region.where}.point")
        corners = np.array([[single_number(p, "x"), single_number(p, "y")] for p in points])
        if not (np.abs(corners) <= LARGEST_COORDINATE).all():
            raise region.wrong("point", "x and y in pixels of each corner")
        if corners.size:
            polygons.append(corners)
    return tuple(polygons)


def _read_points(people: Sequence[Record], path: PathLike) -> tuple[Floats, Floats]:
    """Return the keypoints (n, 17, 2) and their scores (n, 17), NaN for what is not given."""
    owners: list[int] = []  # of each point: the position of its person
    points: list[Any] = []  # id, x, y, score of each point, flat, to check them as an array
    for owner, person in enumerate(people):
        for group in _records(person, "annopoints", f"{person.where}.annopoints"):
            values = group.values.get("point")
            values = [values] if isinstance(values, dict) else values or []
            if type(values) is not list or any(type(point) is not dict for point in values):
                raise group.wrong("point", "a list of objects with id, x and y")
            for point in values:
                get = point.get
                found = (single(get("id")), single(get("x")), single(get("y")))
                if found != (None, None, None):  # as in MATLAB's empty struct
                    points += (*found, single(get("score")))
                    owners.append(owner)
    values = _checked_points(points, owners, people)
    keypoint = POINT_KEYPOINTS[values[:, 0].astype(np.int64)]
    owner = np.array(owners, np.int64)
    if len(np.unique(owner * len(POSETRACK) + keypoint)) < len(owners):
        text = f"{path}: a point is given twice for the same person; the last counts"
        warnings.warn(text, PosewarperWarning, stacklevel=4)
    keypoints = np.full((len(people), len(POSETRACK), 2), np.nan)
    scores = np.full((len(people), len(POSETRACK)), np.nan)
    keypoints[owner, keypoint], scores[owner, keypoint] = values[:, 1:3], values[:, 3]
    return keypoints, scores


def _checked_points(points: list[Any], owners: Sequence[int], people: Sequence[Record]) -> Floats:
    """Return (m, 4) id, x, y and score of all points, NaN for what is not given."""
    array = as_numbers(points, gaps=True)
    if array is not None:
        array = array.reshape(-1, 4)
        bad = ~np.isin(array[:, 0], np.arange(len(POINTS)))
        # Scores have no limit: those of an untrained network are of any size.
        bad |= ~(np.abs(array[:, 1:3]) <= LARGEST_COORDINATE).all(1) | np.isinf(array[:, 3])
        if not bad.any():
            return array
        first = int(np.flatnonzero(bad)[0])
    else:
        kinds = (int, float, type(None))
        wrong = next(i for i, v in enumerate(points) if type(v) not in kinds or abs(v or 0) > 1e300)
        first = wrong // 4
    given = zip(("id", "x", "y", "score"), points[4 * first :][:4], strict=True)
    raise people[owners[first]].problem(
        f"point {first - owners.index(owners[first])} is wrong",
        expected=f"an id from 0 to {len(POINTS) - 1}, x and y in pixels, and a score or none",
        got=", ".join(f"{key} {shown(value)}" for key, value in given),
        fix="correct it or leave the point out",
    )


def write_annolist(path: PathLike, table: InstanceTable) -> None:
    """Write a table as an annolist JSON file, which gives it back but for ears, people frame by frame.

    Raises:
        LabelsError: if the table has another skeleton than PoseTrack's.
        OutputError: if the place cannot be written.
    """
    write_text(path, json.dumps(annolist_document(table), allow_nan=False, separators=(",", ":")))


def annolist_document(table: InstanceTable) -> dict[str, Any]:
    """Return a table as the content of an annolist file, in the official form.

    Ears have no place in it and are left out; a frame's name gets ``images/`` in front.

    Raises:
        LabelsError: if the table has another skeleton than PoseTrack's.
    """
    require_posetrack(table)
    people: list[list[dict[str, Any]]] = [[] for _ in table.frame_names]
    corners = np.concatenate([table.head_boxes[:, :2], table.head_boxes[:, :2] + table.head_boxes[:, 2:]], 1)
    points = point_lists(table)
    for i, row in enumerate(table.rows):
        head = corners[i].tolist() if np.isfinite(corners[i]).all() else ()
        person = {
            "track_id": [int(table.tracks[i])] if table.tracks[i] != NO_TRACK else None,
            **{key: [value] for key, value in zip(_HEAD_BOX, head, strict=False)},
            "bbox": table.boxes[i].tolist() if np.isfinite(table.boxes[i]).all() else None,
            "score": [float(table.scores[i])] if np.isfinite(table.scores[i]) else None,
            "annopoints": [{"point": points[i]}],
        }
        people[row].append(without_none(person))
    frames = []
    for row, name in enumerate(table.frame_names):
        regions = [np.asarray(region, float).tolist() for region in table.ignore_regions.get(row, ())]
        polygons = [{"point": [{"x": [x], "y": [y]} for x, y in region]} for region in regions]
        ids = table.image_ids
        image = {"name": f"images/{name}", "id": None if ids is None else int(ids[row])}
        frame = {
            "image": [without_none(image)],
            "imgnum": [int(table.frame_numbers[row])],
            "is_labeled": [int(table.is_labelled[row])],
            "ignore_regions": polygons or None,
            "annorect": people[row],
        }
        frames.append(without_none(frame))
    height, width = table.image_size or (None, None)
    named = table.video == _video_name(table.frame_names, "")
    beside = {"video": None if named else table.video, "nframes": table.n_frames}
    return without_none({"annolist": frames, **beside, "height": height, "width": width})


def point_lists(table: InstanceTable) -> list[list[dict[str, Any]]]:
    """Return for each instance the points that are there: id, x, y and, where it is known, score."""
    keypoints = table.keypoints[:, POINT_KEYPOINTS]
    scores = table.keypoint_scores[:, POINT_KEYPOINTS]
    there, scored = is_there(keypoints).tolist(), np.isfinite(scores).tolist()
    return [
        [
            without_none({"id": [k], "x": [x], "y": [y], "score": [score[k]] if known[k] else None})
            for k, (x, y) in enumerate(xy)
            if present[k]
        ]
        for xy, score, present, known in zip(keypoints.tolist(), scores.tolist(), there, scored, strict=True)
    ]


def require_posetrack(table: InstanceTable) -> None:
    """Raise LabelsError unless the table has PoseTrack's keypoints."""
    if table.skeleton.names != POSETRACK.names:
        raise LabelsError(
            "these are not PoseTrack's keypoints",
            expected=", ".join(POSETRACK.names),
            got=", ".join(table.skeleton.names),
            fix="write another format, or predict with a model of PoseTrack's skeleton",
        )


# --- MATLAB -------------------------------------------------------------------------------------------------


def read_annolist_mat(path: PathLike) -> InstanceTable:
    """Return the instances of a video from an annolist ``.mat`` file.

    Raises:
        LabelsError: if the file cannot be read or something in it is not as it should be.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy's remarks about MATLAB's own objects
            content = loadmat(path, simplify_cells=True, appendmat=False)
    except NotImplementedError as error:
        raise LabelsError(
            "files of MATLAB's version 7.3 cannot be read",
            path=path,
            fix="save it in MATLAB with save(..., '-v7'), or use the .json file of the same name",
        ) from error
    except Exception as error:  # scipy raises whatever a damaged byte leads to
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.EIO):
            raise
        fix = "use a .mat file of PoseTrack17, or the .json file of the same name"
        raise LabelsError("cannot read this .mat file", path=path, got=error, fix=fix) from error
    if "annolist" not in content:
        raise LabelsError(
            "the file does not hold annotations of PoseTrack17",
            path=path,
            expected="the struct annolist",
            got=few_of([name for name in content if not name.startswith("__")]) or "no variables",
            fix="use a .mat file of PoseTrack17, or the .json file of the same name",
        )
    names = ("annolist", "video", "nframes", "height", "width")
    return table_of_annolist({name: _plain(content[name]) for name in names if name in content}, path)


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
    """Write a table as an annolist ``.mat`` file, with the errors of :func:`write_annolist`."""
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
