"""Poses in NWB files (ndx-pose): what stands in the file, as it stands there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posewarper.errors import LabelsError
from posewarper.io.clips import Instance
from posewarper.io.frame_names import base_name
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, is_there

MEND = "export it again, with ndx-pose's PoseTraining or PoseEstimation"
TRACK = "track="  # how sleap-io begins the name of a track's predictions


@dataclass
class Movie:
    """A video: size (height, width), number of frames, and the times of the frames or their rate."""

    name: str = ""
    size: tuple[int, int] | None = None
    n_frames: int | None = None
    times: Floats | None = None
    start: float = 0.0
    rate: float | None = None


@dataclass
class Estimation:
    """Predictions of one instance: of each keypoint (node, times (t,), xy (t, 2), confidence (t,))."""

    name: str
    movie: str
    skeleton: Skeleton
    series: list[tuple[str, Floats, Floats, Floats]]


@dataclass
class Content:
    """What a file holds; instances and skeletons go with the name of their video."""

    movies: dict[str, Movie] = field(default_factory=dict)
    subjects: list[str] = field(default_factory=list)
    instances: list[tuple[str, Skeleton, Instance]] = field(default_factory=list)
    frames: list[tuple[str, int]] = field(default_factory=list)
    estimations: list[Estimation] = field(default_factory=list)
    # Groups of the file that were read before: every frame and every instance links to them.
    seen: dict[Any, Any] = field(default_factory=dict)


def safe_name(name: str) -> str:
    """Return a name as it may stand in an NWB file."""
    return name.replace("/", "_").replace(":", "_")


def read_content(file: Any) -> Content:
    """Return the labels and predictions of an NWB file, an ``h5py.File``.

    Raises:
        LabelsError: if it holds none.
    """
    content = Content()
    if "general/SubjectsTable/subject_id" in file:
        content.subjects = _texts(file["general/SubjectsTable/subject_id"])
    found: list[Any] = []

    def visit(name: str, node: Any) -> None:
        if _kind(node) in ("PoseTraining", "PoseEstimation"):
            found.append(node)

    file.visititems(visit)
    if not found:
        raise LabelsError(
            "the NWB file holds no poses",
            expected="PoseTraining or PoseEstimation, of the extension ndx-pose",
            got=f"modules {', '.join(file.get('processing', ())) or '(none)'}",
            mend=MEND,
        )
    for node in found:
        if _kind(node) == "PoseTraining":
            _read_training(node, content)
        else:
            content.estimations.append(_read_estimation(node, content))
    return content


def _kind(node: Any) -> str:
    value = getattr(node, "attrs", {}).get("neurodata_type", "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(dataset: Any) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(dataset[()]).tolist()]


def _children(group: Any, kind: str) -> list[Any]:
    """Return the members of a kind, in the natural order of their names ("frame_9" before "frame_10")."""
    names = sorted(group, key=lambda name: (len(name), name))
    return [group[name] for name in names if _kind(group.get(name)) == kind]


def _read_movie(series: Any, content: Content) -> Movie:
    """Return what an ImageSeries says of its video."""
    if series not in content.seen:
        movie = _describe_movie(series)
        content.seen[series] = content.movies.setdefault(movie.name, movie)
    return content.seen[series]


def _describe_movie(series: Any) -> Movie:
    files = _texts(series["external_file"]) if "external_file" in series else []
    movie = Movie(files[0] if files else base_name(series.name))
    if "dimension" in series:
        movie.size = _size(np.ravel(series["dimension"][()]).tolist())
    if "timestamps" in series and series["timestamps"].shape[0]:
        movie.times = np.asarray(series["timestamps"][()], np.float64)
        movie.n_frames = len(movie.times)
        return movie
    # One sample is what stands there where nobody knew the number.
    count = int(series["num_samples"][()]) if "num_samples" in series else 0
    movie.n_frames = count if count > 1 else None
    if "starting_time" in series:
        movie.start = float(series["starting_time"][()])
        movie.rate = float(series["starting_time"].attrs["rate"])
    return movie


def _size(sides: Sequence[float]) -> tuple[int, int] | None:
    """Return (height, width), of width and height; None if they are not known."""
    width, height = (int(side) for side in sides[:2])
    return (height, width) if height > 0 and width > 0 else None


def _read_skeleton(group: Any, content: Content) -> Skeleton:
    """Return the skeleton that a group links to, or lists itself, as old versions of ndx-pose do."""
    linked = _children(group, "Skeleton")
    holder = linked[0] if linked else group
    if holder not in content.seen:
        pairs = np.asarray(holder["edges"][()], np.int64).reshape(-1, 2).tolist() if "edges" in holder else []
        edges = tuple((a, b) for a, b in pairs)
        name = base_name(linked[0].name) if linked else "animal"
        content.seen[holder] = Skeleton(tuple(_texts(holder["nodes"])), edges, name=name)
    return content.seen[holder]


def _read_training(group: Any, content: Content) -> None:
    for frame in _children(group["training_frames"], "TrainingFrame"):
        if "source_video_frame_index" not in frame.attrs or "source_video" not in frame:
            raise ValueError(f"{base_name(frame.name)} does not tell which frame of which video it is")
        movie = _read_movie(frame["source_video"], content)
        index = int(frame.attrs["source_video_frame_index"])
        content.frames.append((movie.name, index))
        for number, instance in enumerate(_children(frame["skeleton_instances"], "SkeletonInstance")):
            skeleton = _read_skeleton(instance, content)
            points = _flat(instance["node_locations"], base_name(frame.name))
            seen = np.ones(len(points), bool)
            if "node_visibility" in instance:
                seen = np.asarray(instance["node_visibility"][()], bool)
            visibility = np.where(is_there(points), np.where(seen, 2, 1), 0).astype(np.uint8)
            if not len(points) == len(skeleton) == len(visibility):
                raise ValueError(f"{base_name(frame.name)} has not the points of its skeleton")
            points[visibility == 0] = np.nan
            track = int(instance.attrs["id"]) if "id" in instance.attrs else None
            where = f"frame {index}, instance {number + 1}"
            item = Instance(index, track, points, visibility, where)
            content.instances.append((movie.name, skeleton, item))


def _flat(dataset: Any, where: str) -> Floats:
    """Return points (n, 2)."""
    points = np.array(dataset[()], np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{where} holds points of shape {points.shape}, not x and y")
    return points


def _read_estimation(group: Any, content: Content) -> Estimation:
    movie = _read_movie(group["source_video"], content) if "source_video" in group else None
    if movie is None:
        files = _texts(group["original_videos"]) if "original_videos" in group else []
        movie = Movie(files[0] if files else next(iter(content.movies), ""))
        if "dimensions" in group and np.size(group["dimensions"]):
            movie.size = _size(np.asarray(group["dimensions"][()]).reshape(-1, 2)[0].tolist())
        content.movies.setdefault(movie.name, movie)
    found = _children(group, "PoseEstimationSeries")
    series = [(base_name(one.name), _read_series(one)) for one in found]
    names = [name for name, _ in series]
    try:
        skeleton = _read_skeleton(group, content)
    except KeyError:  # neither linked nor listed
        skeleton = Skeleton(tuple(names), name="animal")
    node_of = _match_nodes(names, skeleton.names)
    if node_of is None:
        skeleton, node_of = Skeleton(tuple(names), name=skeleton.name), {name: name for name in names}
    return Estimation(
        base_name(group.name), movie.name, skeleton, [(node_of[n], *rows) for n, rows in series]
    )


def _match_nodes(names: Sequence[str], nodes: Sequence[str]) -> dict[str, str] | None:
    """Return series -> node; None if the series are not called like the nodes.

    A series may have something before the node's name ("mouse1_snout"), such as the animal's.
    """
    safe = {safe_name(node): node for node in nodes}
    matched = {}
    for name in names:
        ends = [node for key, node in safe.items() if name == key or name.endswith(f"_{key}")]
        if not ends:
            return None
        matched[name] = safe.get(name) or max(ends, key=len)
    return matched if len(set(matched.values())) == len(names) else None


def _read_series(series: Any) -> tuple[Floats, Floats, Floats]:
    """Return times (t,) in seconds, xy (t, 2) in pixels and confidence (t,)."""
    where, data = base_name(series.name), series["data"]
    unit = data.attrs.get("unit", "pixels")
    if not str(unit.decode() if isinstance(unit, bytes) else unit).lower().startswith("p"):
        raise ValueError(f"{where} is in {unit!r}, not in pixels")
    points = _flat(data, where) * float(data.attrs.get("conversion", 1)) + float(data.attrs.get("offset", 0))
    if "timestamps" in series:
        times = np.asarray(series["timestamps"][()], np.float64)
    else:
        start = series["starting_time"]
        times = float(start[()]) + np.arange(len(points)) / float(start.attrs["rate"])
    scores = np.full(len(points), np.nan)
    if "confidence" in series:
        scores = np.asarray(series["confidence"][()], np.float64)
    if not len(times) == len(points) == len(scores) or not np.isfinite(times).all():
        raise ValueError(f"{where} has not one time and one confidence for each point")
    return times, points, scores
