"""SLEAP projects (``.slp``), read and written with sleap-io, the video left out.

A frame may hold instances of the user and predictions: the user's count, and a frame marked as negative is
labelled and shows nobody. Projects of format below 1.1 count pixels from their corner. Images may be packed
into the project, and videos may be cropped. Hidden keypoints are written as visible, because SLEAP does not
use those that are marked as not visible.

What sleap-io alone reads (AlphaTracker, JABS, SLEAP's analysis files) comes by way of a project as well:
sleap-io reads the file and writes a project, which is then read like any other.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    has_one_nameless_track,
    identify_tracks,
    losses_of_projects,
    name_all_tracks,
    settle,
)
from posewarper.formats.frame_names import (
    base_name,
    choose_video,
    find_frame_indices,
    folder_name,
    is_telling,
    stem_of,
)
from posewarper.formats.records import (
    LARGEST_INDEX,
    SIGNATURE,
    LabelFile,
    PathLike,
    import_extra,
    open_hdf5,
    quiet,
    read_bytes,
    reading,
    warn,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, is_there

_WHAT = "a SLEAP project"
_FIX = "save it again in SLEAP, or copy it again from where it was made"
_USER, _PREDICTED = 0, 1


@dataclass(frozen=True)
class _Project:
    """A project as it stands in the file: sleap-io's objects, and the tables of numbers by their names.

    ``negative`` holds the pairs (number of the video, frame) of frames that are labelled and show nobody.
    """

    labels: Any
    format: float
    tables: Mapping[str, np.ndarray]
    negative: frozenset[tuple[int, int]]

    def instances_of(self, row: np.void) -> np.ndarray:
        """Return the rows of the instances of a frame."""
        start, end = int(row["instance_id_start"]), int(row["instance_id_end"])
        if not 0 <= start <= end <= len(self.tables["instances"]):
            raise ValueError("a frame points to instances that are not there")
        return self.tables["instances"][start:end]

    def is_negative(self, row: np.void) -> bool:
        """Return whether a frame is labelled and shows nobody."""
        return (int(row["video"]), int(row["frame_idx"])) in self.negative


def read_clip(
    path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | str | None = None
) -> Clip:
    """Return what a SLEAP project says about one video.

    The opened video picks one of several, and ``skeleton`` one of several skeletons.

    Raises:
        LabelsError: if the file is damaged, or sleap-io is not installed.

    Warns:
        PosewarperWarning: about predictions beside labels, and about instances without tracks.
    """
    project = _load(path)
    with reading(path, _WHAT, _FIX):
        index_of = _index_videos(project)
        frames = project.tables["frames"]
        rows = [row for row in frames if len(project.instances_of(row)) or project.is_negative(row)]
        paths = [_paths_of(v) for v in project.labels.videos]
        keys = [f"{p[0]} (video {i + 1})" if p in paths[:i] else p[0] for i, p in enumerate(paths)]
        names = [list(filter(is_telling, p)) for p in paths]
        labelled = {keys[index_of[int(row["video"])]] for row in rows}
    key, another = choose_video(path, dict(zip(keys, names, strict=True)), video, labelled)
    number = keys.index(key)
    with reading(path, _WHAT, _FIX):
        ids, track_names = identify_tracks([str(track.name) for track in project.labels.tracks])
        rows = [row for row in rows if index_of[int(row["video"])] == number]
        chosen, own = _read_skeleton(project, rows, path, skeleton)
        clip, images, offset = _describe_video(project.labels.videos[number], chosen)
        clip.track_names, clip.another_video = track_names, another
        left_out = _read_frames(project, rows, clip, offset, ids, own)
    if left_out:
        warn(path, f"{left_out} predictions beside labels in the same frame are left out")
    settle(clip, path, "correct it in SLEAP and save again")
    if images:
        _find_images(clip, images, path, video)
    return clip


def _load(path: PathLike) -> _Project:
    sleap_io = import_extra("sleap_io", path)
    tables = import_extra("sleap_io.io.utils", path)
    with open_hdf5(path, _WHAT, _FIX) as file:
        number = float(file["metadata"].attrs["format_id"])
        negative = tables.read_hdf5_dataset(path, "negative_frames") if "negative_frames" in file else ()
    with reading(path, _WHAT, _FIX):
        # Lazily, because the tables are read below as whole arrays; and an absolute path is never an address.
        labels = sleap_io.load_slp(os.path.abspath(path), open_videos=False, lazy=True)
        names = ("frames", "instances", "points", "pred_points")
        found = {name: tables.read_hdf5_dataset(path, name) for name in names}
        pairs = frozenset((int(row["video_id"]), int(row["frame_idx"])) for row in negative)
        return _Project(labels, number, found, pairs)


# --- by way of sleap-io -----------------------------------------------------------------------------------


class _Copy(LabelFile):
    """A project made from another file, by whose name it goes in messages."""

    original: PathLike

    def __str__(self) -> str:
        return os.fspath(self.original)


def read_other(
    path: PathLike,
    video: VideoFacts | None = None,
    skeleton: Skeleton | str | None = None,
    *,
    loader: str,
    what: str,
) -> Clip:
    """Return what a file says about one video that sleap-io reads by its function ``loader``.

    Arguments, errors and warnings are those of :func:`read_clip`; ``what`` is the file with its article.

    Warns:
        PosewarperWarning: of everything that sleap-io warns of, and of what is no pose.
    """
    sleap_io = import_extra("sleap_io", path)
    fix = "export it again from the program that made it"
    if read_bytes(path, count=len(SIGNATURE)) == SIGNATURE:
        with open_hdf5(path, what, fix):
            pass  # refuses what reaches out of the file
    given = path if isinstance(path, LabelFile) else LabelFile(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{Path(path).stem}.slp"
        with reading(path, what, fix), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            labels = getattr(sleap_io, loader)(os.path.abspath(path))
            sleap_io.save_slp(labels, str(copy), embed=False, verbose=False)
        for text in dict.fromkeys(str(warning.message) for warning in said):
            warn(path, text)
        if labels.rois or labels.masks or labels.bboxes:
            warn(path, "what the file holds beside poses (regions, masks, boxes) is left out")
        if not any(frame.instances for frame in labels):
            raise LabelsError("the file has no keypoints", path=path, fix="label at least one frame")
        again = _Copy(copy, given.video, given.frame_number, given.loose, given.unlabelled)
        object.__setattr__(again, "original", os.fspath(path))
        return read_clip(again, video, skeleton)


def is_alphatracker(content: object) -> bool:
    """Return whether the content of a JSON file looks like AlphaTracker's: a list of images."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and first.keys() >= {"filename", "annotations"}


# --- videos -----------------------------------------------------------------------------------------------


def _index_videos(project: _Project) -> Mapping[int, int]:
    """Return number of a video in the table of frames -> its place in the list of videos.

    The numbers are places as a rule, but where images were packed into the project, a video keeps the number
    that is in the name of its group ("video15/video").
    """
    used = {int(row["video"]) for row in project.tables["frames"]}
    places = {i: i for i in range(len(project.labels.videos))}
    if used == set(places):
        return places
    packed = {}
    for i, video in enumerate(project.labels.videos):
        match = re.match("video([0-9]+)/", str(video.backend_metadata.get("dataset") or ""))
        packed[int(match[1]) if match else i] = i
    return packed


def _origin(video: Any) -> Any:
    """Return the video from which the images were taken that a project holds."""
    return video if video.original_video is None else video.original_video  # an empty one counts as false


def _paths_of(video: Any) -> list[str]:
    """Return the paths that a video goes by, the best first; of a folder of images the folder's."""
    paths = []
    for file_name in (_origin(video).filename, video.filename):
        if not isinstance(file_name, str):
            first = str(file_name[0]).replace("\\", "/")
            file_name = first.rpartition("/")[0] or stem_of(first)
        paths.append(file_name)
    return list(dict.fromkeys(paths))


def _describe_video(video: Any, skeleton: Skeleton) -> tuple[Clip, list[str], tuple[int, int]]:
    """Return what the project says of a video, its images, and where (xy) its crop begins in the frame."""
    origin = _origin(video)
    facts, packed = origin.backend_metadata, video.backend_metadata
    crop = packed.get("crop")
    shape = [packed.get("source_shape") if crop else None, facts.get("shape"), packed.get("shape")]
    size = next(((int(s[1]), int(s[2])) for s in shape if s and s[1] and s[2]), None)
    images = origin.filename if isinstance(origin.filename, list) else []
    count = (facts.get("source_shape") or facts.get("shape") or [None])[0]
    is_packed = origin is video and facts.get("has_embedded_images")
    n_frames = int(count) if count and not is_packed else None
    clip = Clip(skeleton, [], set(), size, n_frames, base_name(_paths_of(video)[0]))
    return clip, list(map(str, images)), (int(crop[0]), int(crop[1])) if crop else (0, 0)


def _find_images(clip: Clip, images: Sequence[str], path: PathLike, video: VideoFacts | None) -> None:
    """Name the files of the frames, and find them in the folder of frames that was opened, in place."""
    used = sorted(clip.labelled_frames | {instance.frame for instance in clip.instances})
    beyond = [frame for frame in used if frame >= len(images)]
    if beyond:
        expected = f"frame indices from 0 to {len(images) - 1}"
        raise LabelsError(
            "a label lies beyond the last image", path=path, expected=expected, got=beyond[0], fix=_FIX
        )
    clip.frame_names = dict(enumerate(images))
    if video is None or (not video.frame_names and len(images) == video.n_frames):
        return
    places = [f"frame {frame}" for frame in used]
    # Places in the list are frames of the folder; of the video file from which the images were taken, the
    # numbers in their names are.
    given = used if video.frame_names else [None] * len(used)
    found = find_frame_indices(path, places, [images[frame] for frame in used], given, video)
    place = dict(zip(used, found, strict=True))
    for instance in clip.instances:
        instance.frame = place[instance.frame]
    clip.labelled_frames = {place[frame] for frame in clip.labelled_frames}
    clip.frame_names = {place[frame]: images[frame] for frame in used}
    clip.n_frames = None


# --- frames -----------------------------------------------------------------------------------------------


def _read_skeleton(
    project: _Project, frames: Sequence[np.void], path: PathLike, wanted: Skeleton | str | None
) -> tuple[Skeleton, list[int]]:
    """Return the skeleton of the instances, or the one that is wanted of several, and its numbers."""
    used = {int(row["skeleton"]) for frame in frames for row in project.instances_of(frame)} or {0}
    found = {}
    for number in sorted(used):
        skeleton = project.labels.skeletons[number]
        pairs = [tuple(pair) for pair in skeleton.symmetry_inds]
        found[number] = Skeleton(
            tuple(skeleton.node_names),
            tuple(skeleton.edge_inds),
            tuple(pairs) if pairs else None,  # type: ignore[arg-type]  # None: read from the names
            name=skeleton.name or "animal",
        )
    chosen = choose_skeleton(path, list(found.values()), wanted)
    return chosen, [number for number, skeleton in found.items() if skeleton.names == chosen.names]


def _read_frames(
    project: _Project,
    frames: Sequence[np.void],
    clip: Clip,
    offset: tuple[int, int],
    ids: Sequence[int],
    skeletons: Sequence[int],
) -> int:
    """Put the instances of some skeletons (by number) and the labelled frames into the clip.

    Returns:
        How many predictions are left out.
    """
    left_out = 0
    for frame in frames:
        index = int(frame["frame_idx"])
        if index > LARGEST_INDEX:
            raise ValueError(f"frame {index} is out of reach")
        rows = project.instances_of(frame)
        rows = rows[np.isin(rows["skeleton"], skeletons)]
        by_user = rows[rows["instance_type"] == _USER]
        predicted = rows[rows["instance_type"] == _PREDICTED]
        if len(by_user):
            # A user's instance replaces the prediction that it was made from, and that of the same track.
            replaced = set(by_user["from_predicted"].tolist())
            tracks = set(by_user["track"].tolist()) - {-1}
            left_out += sum(
                row["instance_id"] not in replaced and row["track"] not in tracks for row in predicted
            )
        if len(by_user) or project.is_negative(frame):
            clip.labelled_frames.add(index)
        for n, row in enumerate(by_user if index in clip.labelled_frames else predicted):
            where = f"frame {index}, instance {n + 1}"
            is_user = row["instance_type"] == _USER
            points = project.tables["points" if is_user else "pred_points"]
            points = points[int(row["point_id_start"]) : int(row["point_id_end"])]
            if len(points) != len(clip.skeleton):
                raise ValueError(f"{where} has {len(points)} points, the skeleton {len(clip.skeleton)}")
            keypoints = np.stack([points["x"], points["y"]], axis=-1).astype(np.float64)
            keypoints -= 0.5 if project.format < 1.1 else 0.0
            there = points["visible"].astype(bool) & is_there(keypoints)
            keypoints[~there] = np.nan
            track = ids[int(row["track"])] if row["track"] >= 0 else None
            if there.any():
                scores = None if is_user else np.where(there, points["score"], np.nan)
                visibility = there.astype(np.uint8) * 2
                clip.instances.append(
                    Instance(index, track, keypoints + offset, visibility, where, scores=scores)
                )
    return left_out


# --- writing ----------------------------------------------------------------------------------------------


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels as a SLEAP project of one video, which it names but does not hold.

    Labels become instances of the user, predictions predicted ones with their scores; predicted keypoints of
    labelled frames are left out. Frames that show nobody are marked as negative. A single track without a
    name is written without tracks.

    Returns:
        What SLEAP has a place for, but cannot hold in this case.

    Raises:
        LabelsError: if sleap-io is not installed.
        OutputError: if the file cannot be written.
    """
    sleap_io = import_extra("sleap_io", path)
    names, images = labels.skeleton.names, _list_images(labels)
    skeleton = sleap_io.Skeleton(
        nodes=list(names),
        edges=[(names[a], names[b]) for a, b in labels.skeleton.edges],
        symmetries=[(names[a], names[b]) for a, b in labels.skeleton.flip_pairs],
        name=labels.skeleton.name,
    )
    name = images or labels.video or "video"
    facts: dict[str, Any] = {"type": "MediaVideo", "filename": name, "grayscale": False}
    if labels.image_size is not None:
        facts["shape"] = [labels.n_frames or 0, *labels.image_size, 3]
    if images:
        facts |= {"type": "ImageVideo", "filename": images[0], "filenames": images}
    source = sleap_io.Video(open_backend=False, filename=name, backend_metadata=facts)
    tracks = {}
    if not has_one_nameless_track(labels):
        tracks = {i: sleap_io.Track(name) for i, name in name_all_tracks(labels).items()}
    labelled = set(labels.labelled_frames.tolist())
    frames: dict[int, list[Any]] = {frame: [] for frame in labelled}
    # A prediction must not become an instance of the user.
    for frame, i, track, row in each_instance(labels.without_mixed_frames()):
        shared = {"skeleton": skeleton, "track": tracks.get(i)}
        if frame in labelled:
            instance = sleap_io.Instance.from_numpy(track.keypoints[row], **shared)
        else:
            scores = track.keypoint_scores[row]
            known = scores[np.isfinite(scores)]
            mean = float(known.mean()) if known.size else 0.0
            instance = sleap_io.PredictedInstance.from_numpy(
                track.keypoints[row], point_scores=scores, score=mean, **shared
            )
        frames.setdefault(frame, []).append(instance)
    project = sleap_io.Labels(
        [
            sleap_io.LabeledFrame(video=source, frame_idx=f, instances=frames[f], is_negative=not frames[f])
            for f in sorted(frames)
        ],
        videos=[source],
        skeletons=[skeleton],
        tracks=list(tracks.values()),
    )
    with replacing(path) as temporary, quiet():
        sleap_io.save_slp(project, str(temporary), embed=False, verbose=False)
    lost = losses_of_projects(labels)
    if labels.n_frames is not None and labels.image_size is None and not images:
        lost.append("the number of frames where the image size is not known")
    if labels.frame_names and not images:
        lost.append(
            "the names of the frames' files, unless all are known and in a folder of the video's name"
        )
    if not labels.skeleton.flip_pairs and Skeleton(labels.skeleton.names).flip_pairs:
        lost.append("mirror pairs: that there are none")
    return lost


def _list_images(labels: Labels) -> list[str]:
    """Return the names of the files of all frames; none if some are unknown or they bear another name."""
    count = labels.n_frames or 0
    # The lengths first: a number of frames that is wrong may be too large for a set.
    if not 0 < count <= len(labels.frame_names) or not labels.frame_names.keys() >= set(range(count)):
        return []
    images = [labels.frame_names[frame] for frame in range(count)]
    return images if {folder_name(image) for image in images} == {labels.video} else []
