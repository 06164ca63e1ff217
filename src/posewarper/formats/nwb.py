"""Poses in NWB files (ndx-pose): read with h5py alone, written through pynwb.

Both stand in the module "behavior": labels as ``PoseTraining``, predictions as one ``PoseEstimation`` a
track, which is called "PoseEstimation" if it is alone, as movement asks for by default. A module of the
video, named as sleap-io names it, links to the predictions, since sleap-io looks for them there. Tracks are
listed in the ``SubjectsTable`` of ndx-multisubjects. NWB asks for a time of each frame: that of the opened
video, and without one a frame counts as a second. Frames of predictions are told by their times.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posewarper.errors import LabelsError
from posewarper.files import replacing
from posewarper.formats.clips import (
    Clip,
    Instance,
    VideoFacts,
    choose_skeleton,
    each_instance,
    frames_of_times,
    has_one_nameless_track,
    identify_tracks,
    losses_of_projects,
    name_all_tracks,
    read_edges,
    settle,
)
from posewarper.formats.frame_names import base_name, choose_video, stem_of, video_stem
from posewarper.formats.records import PathLike, import_extra, open_hdf5, quiet
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Ints, Labels, is_there

_WHAT = "an NWB file with poses"
_FIX = "export it again, with ndx-pose's PoseTraining or PoseEstimation"
_TRACK = "track="  # how sleap-io begins the name of a track's predictions
_ALONE = "PoseEstimation"  # the default name in ndx-pose, under which movement looks for predictions
_REFERENCE = "x to the right, y down; (0, 0) is the centre of the top-left pixel"


@dataclass
class _Movie:
    """A video: size (height, width), number of frames, and the times of the frames or their rate."""

    name: str
    size: tuple[int, int] | None = None
    n_frames: int | None = None
    times: Floats | None = None
    start: float = 0.0
    rate: float | None = None


@dataclass
class _Estimation:
    """Predictions of one instance: of each keypoint (node, times (t,), xy (t, 2), confidence (t,))."""

    name: str
    movie: str
    skeleton: Skeleton
    series: list[tuple[str, Floats, Floats, Floats]]


@dataclass
class _Content:
    """What a file holds; instances and frames go with the name of their video."""

    movies: dict[str, _Movie] = field(default_factory=dict)
    subjects: list[str] = field(default_factory=list)
    instances: list[tuple[str, Skeleton, Instance]] = field(default_factory=list)
    frames: list[tuple[str, int]] = field(default_factory=list)
    estimations: list[_Estimation] = field(default_factory=list)
    # Groups of the file that were read before: every frame and every instance links to them.
    seen: dict[Any, Any] = field(default_factory=dict)


def _safe_name(name: str) -> str:
    """Return a name as it may stand in an NWB file."""
    return name.replace("/", "_").replace(":", "_")


def _read_content(file: Any) -> _Content:
    """Return the labels and predictions of an NWB file, an ``h5py.File``."""
    content = _Content(subjects=_texts(file.get("general/SubjectsTable/subject_id")))
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
            fix=_FIX,
        )
    for node in found:
        (_read_training if _kind(node) == "PoseTraining" else _read_estimation)(node, content)
    return content


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(dataset: Any) -> list[str]:
    """Return the texts of a data set, none for None."""
    return [] if dataset is None else list(map(_text, np.ravel(dataset[()]).tolist()))


def _kind(node: Any) -> str:
    return _text(getattr(node, "attrs", {}).get("neurodata_type", ""))


def _children(group: Any, kind: str) -> list[Any]:
    """Return the members of a kind, in the natural order of their names ("frame_9" before "frame_10")."""
    names = sorted(group, key=lambda name: (len(name), name))
    return [group[name] for name in names if _kind(group.get(name)) == kind]


def _read_movie(series: Any, content: _Content) -> _Movie:
    """Return what an ImageSeries says of its video."""
    if series in content.seen:
        return content.seen[series]
    movie = _Movie(next(iter(_texts(series.get("external_file"))), base_name(series.name)))
    movie.size = _read_size(series, "dimension")
    if "timestamps" in series and series["timestamps"].shape[0]:
        movie.times = np.asarray(series["timestamps"][()], np.float64)
        movie.n_frames = len(movie.times)
    else:
        # One sample is what stands there where nobody knew the number.
        count = int(series["num_samples"][()]) if "num_samples" in series else 0
        movie.n_frames = count if count > 1 else None
        if "starting_time" in series:
            movie.start = float(series["starting_time"][()])
            movie.rate = float(series["starting_time"].attrs["rate"])
    content.seen[series] = content.movies.setdefault(movie.name, movie)
    return content.seen[series]


def _read_size(group: Any, name: str) -> tuple[int, int] | None:
    """Return the first (height, width) of a data set of widths and heights; None if they are not known."""
    if name not in group or not np.size(group[name]):
        return None
    width, height = (int(side) for side in np.ravel(group[name][()])[:2])
    return (height, width) if height > 0 and width > 0 else None


def _read_skeleton(group: Any, content: _Content) -> Skeleton:
    """Return the skeleton that a group links to, or lists itself, as old versions of ndx-pose do."""
    linked = _children(group, "Skeleton")
    holder = linked[0] if linked else group
    if holder not in content.seen:
        pairs = np.asarray(holder["edges"][()], np.int64).reshape(-1, 2).tolist() if "edges" in holder else []
        name = base_name(linked[0].name) if linked else "animal"
        nodes = tuple(_texts(holder["nodes"]))
        edges = read_edges(pairs, nodes, 0, holder.file.filename, base_name(holder.name))
        content.seen[holder] = Skeleton(nodes, edges, name=name)
    return content.seen[holder]


def _read_training(group: Any, content: _Content) -> None:
    for frame in _children(group["training_frames"], "TrainingFrame"):
        name = base_name(frame.name)
        if "source_video_frame_index" not in frame.attrs or "source_video" not in frame:
            raise ValueError(f"{name} does not tell which frame of which video it is")
        movie = _read_movie(frame["source_video"], content)
        index = int(frame.attrs["source_video_frame_index"])
        content.frames.append((movie.name, index))
        for number, instance in enumerate(_children(frame["skeleton_instances"], "SkeletonInstance")):
            skeleton = _read_skeleton(instance, content)
            points = _read_points(instance["node_locations"], name)
            seen = np.ones(len(points), bool)
            if "node_visibility" in instance:
                seen = np.asarray(instance["node_visibility"][()], bool)
            visibility = np.where(is_there(points), np.where(seen, 2, 1), 0).astype(np.uint8)
            if not len(points) == len(skeleton) == len(visibility):
                raise ValueError(f"{name} does not have as many points as its skeleton")
            points[visibility == 0] = np.nan
            track = int(instance.attrs["id"]) if "id" in instance.attrs else None
            where = f"frame {index}, instance {number + 1}"
            item = Instance(index, track, points, visibility, where)
            content.instances.append((movie.name, skeleton, item))


def _read_points(dataset: Any, where: str) -> Floats:
    """Return points (n, 2)."""
    points = np.array(dataset[()], np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{where} holds points of shape {points.shape}, not x and y")
    return points


def _read_estimation(group: Any, content: _Content) -> None:
    if "source_video" in group:
        movie = _read_movie(group["source_video"], content)
    else:
        movie = _Movie(next(iter([*_texts(group.get("original_videos")), *content.movies]), ""))
        movie.size = _read_size(group, "dimensions")
        content.movies.setdefault(movie.name, movie)
    series = {base_name(one.name): _read_series(one) for one in _children(group, "PoseEstimationSeries")}
    try:
        skeleton = _read_skeleton(group, content)
    except KeyError:  # neither linked nor listed
        skeleton = Skeleton(tuple(series), name="animal")
    node_of = _match_nodes(list(series), skeleton.names)
    if node_of is None:
        skeleton, node_of = Skeleton(tuple(series), name=skeleton.name), {name: name for name in series}
    rows = [(node_of[name], *values) for name, values in series.items()]
    content.estimations.append(_Estimation(base_name(group.name), movie.name, skeleton, rows))


def _match_nodes(names: Sequence[str], nodes: Sequence[str]) -> dict[str, str] | None:
    """Return series -> node; None if the series are not called like the nodes.

    A series may have something before the node's name ("mouse1_snout"), such as the animal's.
    """
    safe = {_safe_name(node): node for node in nodes}
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
    if not _text(unit).lower().startswith("p"):
        raise ValueError(f"{where} is in {unit!r}, not in pixels")
    points = _read_points(data, where)
    points = points * float(data.attrs.get("conversion", 1)) + float(data.attrs.get("offset", 0))
    if "timestamps" in series:
        times = np.asarray(series["timestamps"][()], np.float64)
    else:
        start = series["starting_time"]
        times = float(start[()]) + np.arange(len(points)) / float(start.attrs["rate"])
    scores = np.full(len(points), np.nan)
    if "confidence" in series:
        scores = np.asarray(series["confidence"][()], np.float64)
    if not len(times) == len(points) == len(scores) or not np.isfinite(times).all():
        raise ValueError(f"{where} does not have a time and a confidence for each point")
    return times, points, scores


# --- to a clip --------------------------------------------------------------------------------------------


def read_clip(
    path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | str | None = None
) -> Clip:
    """Return what an NWB file says about one video.

    The opened video picks one of several, and ``skeleton`` one of several skeletons.

    Raises:
        LabelsError: if the file is damaged or holds no poses, or h5py is not installed.

    Warns:
        PosewarperWarning: if the times of predictions have gaps, or only some instances have tracks.
    """
    with open_hdf5(path, _WHAT, _FIX) as file:
        content = _read_content(file)
    keys = {key for key, _ in content.frames} | {estimation.movie for estimation in content.estimations}
    # Without a suffix it is the name of the series, which nobody chose.
    names = {key: {key} if stem_of(key) != base_name(key) else set() for key in content.movies}
    chosen, another = choose_video(path, names, video, keys)
    movie = content.movies[chosen]
    estimations = [e for e in content.estimations if e.movie == chosen]
    found = [(own, instance) for key, own, instance in content.instances if key == chosen]
    skeletons = [*(own for own, _ in found), *(e.skeleton for e in estimations)]
    if not skeletons:
        raise LabelsError("no frame of this video shows anybody", path=path, fix="label at least one frame")
    skeleton = choose_skeleton(path, skeletons, skeleton)
    estimations = [e for e in estimations if e.skeleton.names == skeleton.names]
    instances = [instance for own, instance in found if own.names == skeleton.names]
    others = {instance.frame for own, instance in found if own.names != skeleton.names}
    labelled = {frame for key, frame in content.frames if key == chosen}
    labelled -= others - {instance.frame for instance in instances}

    tracks, track_names = _name_tracks(content.subjects, [e.name for e in estimations], bool(instances))
    for instance in instances:
        known = instance.track is not None and instance.track < len(content.subjects)
        instance.track = tracks[instance.track] if known and instance.track is not None else None
    frames = _find_frames(estimations, movie, path)
    for estimation, at, track in zip(estimations, frames, tracks[len(content.subjects) :], strict=True):
        predicted = _predict(estimation, at, track, len(skeleton))
        instances += [instance for instance in predicted if instance.frame not in labelled]
    instances = [instance for instance in instances if instance.visibility.any()]
    size, name = movie.size, base_name(movie.name) or None
    # Some programs write the sides of a video the other way round.
    if size is not None and video is not None and size[::-1] == tuple(video.image_size):
        size = size[1], size[0]
    clip = Clip(skeleton, instances, labelled, size, movie.n_frames, name, track_names=dict(track_names))
    clip.another_video = another
    return settle(clip, path, _FIX)


def _find_frames(estimations: Sequence[_Estimation], movie: _Movie, path: PathLike) -> list[list[Ints]]:
    """Return for each keypoint of each estimation the frame indices of its rows."""
    every = [times for estimation in estimations for _, times, _, _ in estimation.series]
    known = np.unique(np.concatenate(every)) if every else np.zeros(0)
    index = frames_of_times(known, path, own=movie.times, start=movie.start, rate=movie.rate)
    return [
        [index[np.searchsorted(known, times)] for _, times, _, _ in estimation.series]
        for estimation in estimations
    ]


def _predict(estimation: _Estimation, frames: Sequence[Ints], track: int | None, k: int) -> list[Instance]:
    """Return the predictions of an instance, put together from its keypoints."""
    every = np.unique(np.concatenate(frames)) if frames else np.zeros(0, np.int64)
    points, scores = np.full((len(every), k, 2), np.nan), np.full((len(every), k), np.nan)
    for (node, _, xy, confidence), rows in zip(estimation.series, frames, strict=True):
        place = np.searchsorted(every, rows), estimation.skeleton.names.index(node)
        points[place], scores[place] = xy, confidence
    there = is_there(points)
    points[~there] = np.nan
    seen = there.astype(np.uint8) * 2
    return [
        Instance(frame, track, points[i], seen[i], f"frame {frame}", scores=scores[i])
        for i, frame in enumerate(every.tolist())
    ]


def _name_tracks(
    subjects: Sequence[str], estimations: Sequence[str], has_labels: bool
) -> tuple[list[int | None], Mapping[int, str]]:
    """Return the track of each subject and of each estimation, and the names of those that have one."""
    names = [name.removeprefix(_TRACK) for name in estimations]
    if names == [_ALONE] and len(subjects) == 1:
        names = [_safe_name(subjects[0])]
    # One instance need not be told from others, unless it has a name.
    if not subjects and len(names) == 1 and (has_labels or names[0] in (estimations[0], "untracked")):
        return [None], {}
    place = {_safe_name(subject): i for i, subject in enumerate(subjects)}
    every = [*subjects, *(name for name in names if name not in place)]
    ids, track_names = identify_tracks(every)
    index = {name: i for name, i in zip(every, ids, strict=True)} | {n: ids[i] for n, i in place.items()}
    return [*ids[: len(subjects)], *(index[name] for name in names)], track_names


# --- writing ----------------------------------------------------------------------------------------------


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels and predictions as an NWB file of ndx-pose.

    The times of the opened video are written. A single track without a name is written without subjects.
    Predicted keypoints of labelled frames are left out.

    Returns:
        What NWB has a place for, but cannot hold in this case.

    Raises:
        LabelsError: if pynwb and its extensions are not installed.
        OutputError: if the file cannot be written.
    """
    pynwb, ndx_pose = import_extra("pynwb", path), import_extra("ndx_pose", path)
    subjects = import_extra("ndx_multisubjects", path)
    names = name_all_tracks(labels)
    with quiet():
        tracked = not has_one_nameless_track(labels)
        build = subjects.NdxMultiSubjectsNWBFile if tracked else pynwb.NWBFile
        nwb = build(
            session_description="Keypoints by posewarper",
            identifier=str(uuid.uuid4()),
            # The format asks for the time of the recording, which nobody knows.
            session_start_time=datetime.datetime.now(datetime.UTC),
        )
        if tracked:
            nwb.subjects_table = subjects.SubjectsTable(description="the tracks")
            for name in names.values():
                nwb.subjects_table.add_row(subject_id=name, sex="U", species="unknown")
        times = None
        if not (video is None or video.frame_names or labels.n_frames not in (None, video.n_frames)):
            times = np.asarray(video.times, np.float64)
        clock: dict[str, Any] = {"rate": 1.0, "starting_time": 0.0, "num_samples": labels.n_frames or 0}
        sides = {} if labels.image_size is None else {"dimension": list(labels.image_size[::-1])}
        series = pynwb.image.ImageSeries(
            name="video_0",
            description="the video" if times is not None else "the video; a frame counts as a second",
            unit="NA",
            format="external",
            external_file=[labels.video or "video"],
            starting_frame=[0],
            **sides,
            **(clock if times is None else {"timestamps": times}),
        )
        skeleton = ndx_pose.Skeleton(
            name=_safe_name(labels.skeleton.name),
            nodes=list(labels.skeleton.names),
            edges=np.array(labels.skeleton.edges, np.uint32).reshape(-1, 2),
        )
        behavior = nwb.create_processing_module(name="behavior", description="keypoints")
        behavior.add(ndx_pose.Skeletons(skeletons=[skeleton]))
        if labels.labelled_frames.size:
            behavior.add(_build_training(ndx_pose, labels, series, skeleton))
        else:
            nwb.add_acquisition(series)
        estimations = _build_estimations(ndx_pose, labels, names, times, series, skeleton)
        if estimations:
            name = f"SLEAP_VIDEO_000_{_safe_name(video_stem(labels.video))}"
            module = nwb.create_processing_module(name=name, description="predicted keypoints")
            for estimation in estimations:
                behavior.add(estimation)
                module.add(estimation)  # becomes a link, as the estimation has its place already
        with replacing(path) as temporary, pynwb.NWBHDF5IO(str(temporary), "w") as output:
            output.write(nwb)
    lost = losses_of_projects(labels)
    predicted = [t.visibility[~np.isin(t.frames, labels.labelled_frames)] for t in labels.tracks.values()]
    if any((visibility == 1).any() for visibility in predicted):
        lost.append("which keypoints are hidden in predictions")
    if _safe_name(labels.skeleton.name) != labels.skeleton.name:
        lost.append("what an instance is called, if with a slash or colon")
    return lost


def _build_training(ndx_pose: Any, labels: Labels, series: Any, skeleton: Any) -> Any:
    people: dict[int, list[Any]] = {frame: [] for frame in labels.labelled_frames.tolist()}
    number_of = {track_id: number for number, track_id in enumerate(labels.tracks)}
    for frame, track_id, track, row in each_instance(labels.without_mixed_frames()):
        if frame in people:
            person = ndx_pose.SkeletonInstance(
                name=f"instance_{number_of[track_id]}",
                id=np.uint32(number_of[track_id]),
                node_locations=track.keypoints[row],
                node_visibility=track.visibility[row] == 2,
                skeleton=skeleton,
            )
            people[frame].append(person)
    frames = [
        ndx_pose.TrainingFrame(
            name=f"frame_{n}",
            skeleton_instances=ndx_pose.SkeletonInstances(skeleton_instances=instances),
            source_video=series,
            source_video_frame_index=np.uint32(frame),
        )
        for n, (frame, instances) in enumerate(people.items())
    ]
    return ndx_pose.PoseTraining(
        training_frames=ndx_pose.TrainingFrames(training_frames=frames),
        source_videos=ndx_pose.SourceVideos(image_series=[series]),
    )


def _build_estimations(
    ndx_pose: Any,
    labels: Labels,
    names: Mapping[int, str],
    times: Floats | None,
    series: Any,
    skeleton: Any,
) -> list[Any]:
    """Return the predictions of each track that has any."""
    estimations = []
    for i, whole in labels.tracks.items():
        rows = ~np.isin(whole.frames, labels.labelled_frames) & (whole.visibility > 0).any(1)
        track = whole.at(whole.frames[rows])
        clock: Any = track.frames.astype(np.float64) if times is None else times[track.frames]
        points = []
        for k, node in enumerate(labels.skeleton.names if rows.any() else ()):
            points.append(
                ndx_pose.PoseEstimationSeries(
                    name=_safe_name(node),
                    description=f"positions of {node}",
                    data=track.keypoints[:, k],
                    unit="pixels",
                    reference_frame=_REFERENCE,
                    timestamps=clock,
                    confidence=track.keypoint_scores[:, k],
                    confidence_definition="score from 0 to 1",
                )
            )
            clock = points[0]  # the others link to its times
        if points:
            estimation = ndx_pose.PoseEstimation(
                name=_ALONE if len(names) == 1 else _TRACK + _safe_name(names[i]),
                pose_estimation_series=points,
                description="predicted keypoints of one track",
                original_videos=[labels.video or "video"],
                scorer="posewarper",
                source_software="posewarper",
                skeleton=skeleton,
                source_video=series,
            )
            estimations.append(estimation)
    return estimations
