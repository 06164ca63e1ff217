"""OpenPose: a folder with one JSON file a frame. Reading and writing.

A file's name tells its frame (``clip_000000000012_keypoints.json`` is frame 12). Each person has
``pose_keypoints_2d``, x, y and confidence of each keypoint; a confidence of 0 stands for a keypoint that is
not there. The files name no keypoints: how many there are tells the model, except that BODY_25, the
default, and BODY_25B both have 25. ``person_id`` is [-1] unless OpenPose tracked the people, and it may
find one person in two parts.

Coordinates are taken as they are: by default OpenPose scales them to the source image, by the rule that the
centres of the first and of the last pixels fall together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.errors import LabelsError
from posewarper.files import allowed_name, replacing_folder
from posewarper.formats.clips import (
    Clip,
    Instance,
    VideoFacts,
    doubt_tracks,
    each_instance,
    frames_to_write,
    need_all_tracks,
)
from posewarper.formats.frame_names import (
    choose_video,
    find_frame_indices,
    is_telling,
    video_stem,
    videos_of_images,
)
from posewarper.formats.records import (
    LARGEST_COORDINATE,
    PathLike,
    Record,
    as_numbers,
    read_bytes,
    read_json,
    shown,
    warn,
)
from posewarper.skeletons import BODY_25, COCO_18, PRESETS, Skeleton, presets_of
from posewarper.structures import Labels

# The parts of a person lie where the person is in the frame before or after, to this share of the size.
_CLOSE = 0.2
# Most of the keypoints of the smaller part that the other part may have as well.
_MOST_SHARED = 0.25
_SUFFIX = "_keypoints"
# What is written as the confidence of a keypoint whose score is 0 or below, since 0 would remove it.
_LEAST_CONFIDENCE = 1e-6
_OTHER_KEYS = (
    *("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d", "pose_keypoints_3d"),
    *("face_keypoints_3d", "hand_left_keypoints_3d", "hand_right_keypoints_3d"),
)


def is_document(document: Mapping[str, Any]) -> bool:
    """Return whether a JSON file looks like one that OpenPose wrote."""
    return "people" in document and "images" not in document


def is_folder(path: PathLike) -> bool:
    """Return whether a folder looks like OpenPose's, by the names and the beginning of its files."""
    files = _list_files(Path(path)) if Path(path).is_dir() else []
    try:
        return bool(files) and (
            files[0].stem.endswith(_SUFFIX) or b'"people"' in read_bytes(files[0], count=4096)
        )
    except (LabelsError, OSError):
        return False


def _list_files(folder: Path) -> list[Path]:
    """Return the files that hold frames: those named as OpenPose does, else all JSON files."""
    found = [p for p in folder.iterdir() if p.suffix.lower() == ".json" and not p.name.startswith(".")]
    return sorted([p for p in found if p.stem.endswith(_SUFFIX)] or found)


# --- reading ----------------------------------------------------------------------------------------------


def read_clip(path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | None = None) -> Clip:
    """Return what a folder of OpenPose's files says about one video.

    Every file is a labelled frame, also where nobody is; the confidences become scores.

    If the opened video is a folder of frames, their names give the indices. ``skeleton`` holds the keypoints,
    in order, since the files do not name them.

    Raises:
        LabelsError: if anything in the folder is not as it should be.

    Warns:
        PosewarperWarning: if the names of the keypoints are a guess, coordinates are no pixels, or people
            were found in two parts.
    """
    fix = "give the folder that OpenPose wrote with --write_json"
    if Path(path).is_file():
        raise LabelsError(
            "this is a single file of OpenPose's, which holds one frame",
            path=path,
            expected="the folder with the files of all frames",
            fix=f"give the folder: {Path(path).parent}",
        )
    try:
        files = _list_files(Path(path))
    except (OSError, ValueError) as error:
        raise LabelsError("cannot read this folder", path=path, got=error, fix=fix) from error
    if not files:
        expected = "files like clip_000000000012_keypoints.json"
        raise LabelsError("the folder has no files of OpenPose's", path=path, expected=expected, fix=fix)
    names = [f"{p.stem.removesuffix(_SUFFIX)}.json" for p in files]
    # The files are called after the video, frame by frame.
    keys, told = videos_of_images(path, names, video)
    if len(told) == 1 and all(re.fullmatch(".+_[0-9]{12}.json", name) for name in names):
        told = {"": set(filter(is_telling, [names[0][: -len("_000000000000.json")]]))}
    chosen, another = choose_video(path, told, video)
    kept = [i for i, key in enumerate(keys) if chosen in ("", key)]
    files, names = [files[i] for i in kept], [names[i] for i in kept]
    frames = find_frame_indices(path, [p.name for p in files], names, [None] * len(files), video)
    instances = [i for file, frame in zip(files, frames, strict=True) for i in _read_file(file, frame)]
    lengths = {len(instance.keypoints): instance for instance in reversed(instances)}
    if len(lengths) > 1:
        found = ", ".join(f"{k} in {i.where}" for k, i in lengths.items())
        fix = "keep the files of one run of OpenPose in a folder"
        raise LabelsError("people have different numbers of keypoints", path=path, got=found, fix=fix)
    skeleton = _choose_skeleton(path, next(iter(lengths), None), skeleton)
    instances = [instance for instance in instances if instance.visibility.any()]
    if instances and max(np.nanmax(np.abs(i.keypoints)) for i in instances) <= 1:
        default = "run OpenPose with its default, --keypoint_scale 0"
        warn(path, f"all coordinates lie between -1 and 1, and are no pixels; {default}")
    need_all_tracks(instances, path)
    clip = Clip(skeleton, instances, labelled_frames=set(frames), another_video=another)
    doubt_tracks(clip, path, forget=False)
    if any(instance.track is None for instance in instances):
        clip.instances = _join_halves(instances, path)
    return clip


def _read_file(file: Path, frame: int) -> list[Instance]:
    """Return the people of a frame, without those of whom only a face or hands were found."""
    document = read_json(file)
    people = document.get("people")
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise LabelsError(
            "people is wrong" if "people" in document else "people is missing",
            path=file,
            expected="a list of objects, one a person",
            got=shown(people) if "people" in document else shown(dict(document)),
            fix="run OpenPose on this frame again, or remove the file",
        )
    instances = []
    for i, person in enumerate(people):
        record = Record(file, f"people[{i}]", person)
        key = "pose_keypoints_2d" if "pose_keypoints_2d" in person else "pose_keypoints"
        if key not in person:
            raise record.missing("pose_keypoints_2d", "x, y, confidence of each keypoint")
        values = record.items(key)
        if values is None:
            continue
        array = as_numbers(values, gaps=False)
        if array is None or len(array) % 3 or not np.isfinite(array).all():
            raise record.wrong(key, "finite numbers: x, y, confidence of each keypoint")
        triples = array.reshape(-1, 3)
        there = triples[:, 2] > 0
        if (np.abs(triples[there]) > LARGEST_COORDINATE).any():
            raise record.wrong(key, "coordinates in pixels and confidences")
        triples[~there] = np.nan
        seen, where = there.astype(np.uint8) * 2, f"{file.name}: {record.where}"
        track = person.get("person_id")
        if isinstance(track, list) and len(track) == 1:
            track = track[0]
        if track in (None, []):
            track = None
        elif type(track) is not int or not -(2**63) <= track < 2**63:
            raise record.wrong("person_id", "a whole number in a list, [-1] for none")
        track = None if track == -1 else track
        instances.append(Instance(frame, track, triples[:, :2], seen, where, scores=triples[:, 2]))
    return instances


def _choose_skeleton(path: PathLike, count: int | None, given: Skeleton | None) -> Skeleton:
    if given is not None:
        if count not in (None, len(given)):
            raise LabelsError(
                "the files have another number of keypoints than the skeleton",
                path=path,
                expected=f"{len(given)}: {', '.join(given.names)}"[:200],
                got=count,
                fix="name the skeleton of the model that OpenPose ran with (--skeleton), or leave it out",
            )
        return given
    if count is None or count == len(COCO_18):
        return BODY_25 if count is None else COCO_18
    if count == len(BODY_25):
        default = "25 keypoints are taken for those of BODY_25, OpenPose's default model"
        warn(path, f"{default}; if it was BODY_25B, say so with --skeleton body_25b")
        return BODY_25
    known = presets_of(count)
    if len(known) == 1:
        warn(path, f"{count} keypoints are taken for those of {known[0]}; if not, say so with --skeleton")
        return PRESETS[known[0]]
    what = (
        f"{count} keypoints may be those of {' or '.join(known)}"
        if known
        else f"no model of OpenPose with {count} keypoints is known"
    )
    warn(
        path,
        f"{what}; they are named keypoint_0, keypoint_1, ...; "
        "if they are those of a known skeleton, name it (--skeleton)",
    )
    return Skeleton(tuple(f"keypoint_{k}" for k in range(count)))


# --- one person in two parts ------------------------------------------------------------------------------


def _join_halves(instances: Sequence[Instance], path: PathLike) -> list[Instance]:
    """Return people without ids, with two of a frame as one where they are the parts of one person.

    They are, if they share next to no keypoint, the frame before or after has fewer people, and both lie
    where one and the same person is there. Of a keypoint that both have, the one nearer to that person's
    counts.
    """
    frames: dict[int, list[Instance]] = {}
    for instance in instances:
        frames.setdefault(instance.frame, []).append(instance)
    joined = 0
    for frame, people in frames.items():
        beside = [frames.get(frame + step, []) for step in (-1, 1)]
        wholes = [person for others in beside if len(others) < len(people) for person in others]
        for a, b in combinations(list(people), 2):
            if any(a is p for p in people) and any(b is p for p in people):
                whole = next((p for p in wholes if _are_parts(a, b, p)), None)
                if whole is not None:
                    people[:] = [p for p in people if p is not a and p is not b] + [_join(a, b, whole)]
                    joined += 1
    if joined:
        warn(path, f"people whom OpenPose found in two parts were joined: {joined}")
    return [instance for people in frames.values() for instance in people]


def _distances(part: Instance, whole: Instance) -> np.ndarray:
    """Return (K,) pixels from each keypoint to that of the whole person, infinity where one is not there."""
    away = np.linalg.norm(part.keypoints - whole.keypoints, axis=-1)
    return np.where(np.isfinite(away), away, np.inf)


def _are_parts(a: Instance, b: Instance, whole: Instance) -> bool:
    """Return whether two share little, and what each has and the other has not lies on a whole person."""
    there = np.stack([a.visibility, b.visibility]) > 0
    if there.all(0).sum() > _MOST_SHARED * there.sum(1).min():
        return False
    size = np.ptp(whole.keypoints[whole.visibility > 0], axis=0).max()
    apart = [_distances(part, whole)[other.visibility == 0] for part, other in ((a, b), (b, a))]
    near = [away[np.isfinite(away)] for away in apart]
    return all(away.size and away.mean() < _CLOSE * size for away in near)


def _join(a: Instance, b: Instance, whole: Instance) -> Instance:
    of_a = (a.visibility > 0) & ((b.visibility == 0) | (_distances(a, whole) <= _distances(b, whole)))
    assert a.scores is not None and b.scores is not None
    return Instance(
        a.frame,
        None,
        np.where(of_a[:, None], a.keypoints, b.keypoints),
        np.where(of_a, a.visibility, b.visibility),
        f"{a.where} and {b.where.rpartition(' ')[2]}",
        scores=np.where(of_a, a.scores, b.scores),
    )


# --- writing ----------------------------------------------------------------------------------------------


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels as a folder of OpenPose's files, the coordinates exactly as given.

    There is a file for each frame, from 0 to the last of the video, or to the last labelled one where the
    video's length is not known. Scores become confidences; keypoints that have none get 1.

    Raises:
        OutputError: if the folder cannot be written, or holds other files.

    Warns:
        PosewarperWarning: if a track has the id -1, which means "no track" here.
    """
    count = frames_to_write(path, labels, "files", room=100)
    ids = {track: track for track in labels.tracks}
    if -1 in ids:
        ids[-1] = max(-1, *ids) + 1
        warn(path, f"an id of -1 means that there is no track; track -1 is written as {ids[-1]}")
    people: dict[int, list[dict[str, Any]]] = {}
    for frame, track_id, track, row in each_instance(labels):
        scores = track.keypoint_scores[row]
        confidence = np.where(np.isfinite(scores), np.where(scores > 0, scores, _LEAST_CONFIDENCE), 1.0)
        triples = np.column_stack([track.keypoints[row], confidence])
        triples[track.visibility[row] == 0] = 0
        person = {"person_id": [ids[track_id]], "pose_keypoints_2d": triples.ravel().tolist()}
        people.setdefault(frame, []).append(person | {key: [] for key in _OTHER_KEYS})
    stem = allowed_name(video_stem(labels.video))

    def is_ours(file: Path) -> bool:
        return file.is_file() and file.name.endswith(f"{_SUFFIX}.json")

    with replacing_folder(path, is_ours) as folder:
        for frame in range(count):
            text = json.dumps({"version": 1.3, "people": people.get(frame, [])}, separators=(",", ":"))
            file = folder / f"{stem}_{frame:012d}{_SUFFIX}.json"
            file.write_text(text + "\n", encoding="utf-8", newline="\n")
    return []
