"""Labels and poses in and out, in every format: the border at which they are checked.

The formats are those of :data:`posewarper.formats.catalogue.FORMATS`. Behind the border every label is what
:class:`Labels` promises.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from posewarper.errors import LabelsError, few_of, need_path, wrong_type
from posewarper.formats import coco
from posewarper.formats.catalogue import FORMATS, detect_format, format_to_write, known_format
from posewarper.formats.clips import PIECES, Clip, VideoFacts, group_by_track
from posewarper.formats.frame_names import check_video
from posewarper.formats.records import LARGEST_INDEX, LabelFile, PathLike, warn
from posewarper.skeletons import PRESETS, Skeleton, named_skeleton
from posewarper.structures import Floats, Labels, Poses, RunResult, Track


def read_labels(
    path: PathLike,
    *,
    format: str | None = None,
    video: VideoFacts | PathLike | None = None,
    skeleton: Skeleton | str | None = None,
) -> Labels:
    """Read labels of one video; predictions on frames that nobody has labelled are left out.

    Args:
        path: the label file, or the folder of formats that are folders.
        format: one of :data:`~posewarper.formats.catalogue.FORMATS`; told by the content when left out.
        video: the opened video, or its path. The labels are checked against its size and length; its name
            picks one video of a file with several; the file names in a folder of frames tell the indices.
        skeleton: the keypoints that the labels must have, in this order; or the name of a preset (``coco``),
            or of one of the skeletons of a file that has several.

    Returns:
        Labels: coordinates in pixels (x, y), exactly as in the file.

    Raises:
        LabelsError: if anything in the file is wrong, or does not fit the video or the skeleton.

    Warns:
        PosewarperWarning: about what is odd but usable, such as keypoints outside of the image or never
            labelled.

    Example:
        >>> labels = read_labels("labels.json")
        >>> labels.labelled_frames.tolist(), list(labels.tracks), labels.skeleton.names[:2]
        ([3, 10, 16], [0], ('nose', 'left_paw'))
    """
    if isinstance(video, str | os.PathLike):
        from posewarper.video.source import open_video  # heavy, and nobody else here opens videos

        with open_video(video) as opened:
            return read_labels(path, format=format, video=opened, skeleton=skeleton)
    need_path(path, "the label file")
    clip = _read(path, format, video, skeleton)
    labels = _settle_unlabelled(_build(clip, path, video, frame_offset=0).only_labelled(), path)
    if not any(track.placed.any() for track in labels.tracks.values()):
        predicted = sum(instance.frame not in clip.labelled_frames for instance in clip.instances)
        raise LabelsError(
            "no frame is labelled",
            path=path,
            expected="at least one labelled keypoint on a frame with is_labeled true",
            got=f"{predicted} annotations on frames with is_labeled false" if predicted else "no label",
            fix="label at least one frame, and mark it as labelled",
        )
    never = [n for n, seen in zip(labels.skeleton.names, labels.labelled_keypoints, strict=True) if not seen]
    if never:
        warn(path, f"keypoints that are never labelled stay empty: {', '.join(never)}")
    return labels


def read_annotations(
    path: PathLike,
    *,
    format: str | None = None,
    video: VideoFacts | None = None,
    skeleton: Skeleton | str | None = None,
    frame_offset: int = 0,
) -> Labels:
    """Read everything that a file says about one video: labels, and predictions on unlabelled frames.

    The arguments and errors are those of :func:`read_labels`. Frames in ``labelled_frames`` hold labels, all
    others predictions. ``frame_offset`` is added to each frame index before it is checked; the names of the
    image files are then dropped, as they no longer tell the frame.
    """
    clip = _read(path, format, video, skeleton)
    labels = _settle_unlabelled(_build(clip, path, video, frame_offset=frame_offset), path)
    if not labels.tracks:
        raise LabelsError("the file has no keypoints", path=path, fix="label at least one frame")
    return labels


def given_labels(labels: object) -> Labels:
    """Return labels, or poses as labels, that Python code has given.

    Raises:
        ConfigError: if it is something else.
    """
    labels = labels.poses if isinstance(labels, RunResult) else labels
    labels = labels.as_labels() if isinstance(labels, Poses) else labels
    if not isinstance(labels, Labels):
        raise wrong_type("the labels", labels, "a label file, posewarper.Labels or posewarper.Poses")
    return labels


def read_poses(path: PathLike) -> Poses:
    """Read poses back from a ``poses.json``, with scores, visibility and expected errors.

    Frames, tracks and keypoints are those of :class:`Poses`; keypoints without a score have the score 1.

    Raises:
        LabelsError: if anything in the file is not as it should be, or it does not tell the image size.
    """
    clip = _read(path, None, None, None)
    if clip.image_size is None:
        fix = "give width and height of each image"
        raise LabelsError("the file does not tell the size of the images", path=path, fix=fix)
    n_frames = clip.n_frames
    if n_frames is None:
        n_frames = max(_frames_in(clip), default=-1) + 1
    _check_frames(clip, path, n_frames)
    tracks = _tracks(clip, path)
    for i, track in tracks.items():
        scores = np.where(track.visibility > 0, np.nan_to_num(track.keypoint_scores, nan=1.0), 0.0)
        tracks[i] = replace(track, keypoint_scores=scores)
    labelled = _as_frames(clip.labelled_frames)
    return Poses(clip.skeleton, tracks, clip.image_size, n_frames, labelled, clip.video, clip.frame_names)


def write_labels(
    path: PathLike,
    labels: Labels | Poses | RunResult,
    *,
    format: str | None = None,
    video: VideoFacts | None = None,
) -> None:
    """Write labels or poses; reading them back gives the same coordinates, bit by bit.

    Args:
        path: the file (or folder) to write, replaced when it exists.
        labels: labels, poses, or the result of a run, whose poses are written; frames outside
            ``labelled_frames`` are marked as predictions.
        format: one of :data:`~posewarper.formats.catalogue.FORMATS`; by the suffix when left out (.json
            posetrack, .csv deeplabcut, .slp sleap, .nwb nwb, .nc movement).
        video: the opened video, whose times go into formats that have a place for them.

    Raises:
        LabelsError: if the format is unknown.
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: about what the format cannot hold.

    Example:
        >>> first = read_labels("labels.json").at([3])
        >>> write_labels("first.json", first)
        >>> read_labels("first.json").labelled_frames.tolist()
        [3]
    """
    labels = given_labels(labels)
    chosen = FORMATS[format_to_write(need_path(path, "the file to write"), format)]
    assert chosen.write is not None  # format_to_write has refused it
    here = chosen.write(path, labels, video)
    lost = [piece for piece, is_held in PIECES.items() if piece in chosen.cannot_hold and is_held(labels)]
    if lost + here:
        warn(path, f"{chosen.what} cannot hold: {'; '.join(lost + here)}")


def write_poses(path: PathLike, poses: Poses) -> None:
    """Write poses as ``poses.json``: every frame, with scores; labels exactly, predictions to 0.001 pixels.

    Raises:
        OutputError: if the file cannot be written.
    """
    coco.write_poses(path, poses)


def _read(
    path: PathLike, format: str | None, video: VideoFacts | None, skeleton: Skeleton | str | None
) -> Clip:
    name = detect_format(path) if format is None else known_format(path, format)
    if isinstance(skeleton, str) and (skeleton in PRESETS or not FORMATS[name].chooses):
        skeleton = named_skeleton(skeleton)
    clip = FORMATS[name].read(path, video, skeleton)
    if isinstance(path, LabelFile) and path.loose:
        _take_as_loose(clip, path)
    if not isinstance(skeleton, Skeleton):
        return clip
    found, wanted = clip.skeleton.names, skeleton.names
    if found != wanted:
        missing = [name for name in wanted if name not in found]
        extra = [name for name in found if name not in wanted]
        lists = {"missing": missing, "extra": extra} if missing or extra else {"another order": found}
        raise LabelsError(
            "the labels have other keypoints than the skeleton",
            path=path,
            expected=", ".join(wanted),
            got="; ".join(f"{what}: {', '.join(names)}" for what, names in lists.items() if names),
            fix="rename or reorder the keypoints, or leave the skeleton out",
        )
    clip.skeleton = skeleton
    return clip


def _take_as_loose(clip: Clip, path: PathLike) -> None:
    """Number the instances of each image, since nobody is followed from one to another, in place."""
    if not clip.labelled_frames <= clip.frame_names.keys():
        raise LabelsError(
            "these labels do not name the images that they were made on",
            path=path,
            expected="file names of images, as COCO keypoints JSON and CollectedData tables have them",
            fix="export the labels together with the images, or train on the video itself (data.clips)",
        )
    seen: dict[int, int] = {}
    for instance in clip.instances:
        instance.track = seen[instance.frame] = seen.get(instance.frame, -1) + 1
    clip.track_names, clip.image_size = {}, None


def _build(clip: Clip, path: PathLike, video: VideoFacts | None, *, frame_offset: int) -> Labels:
    """Return what was read as labels, checked against the video."""
    if clip.another_video is not None and video is not None:
        check_video(clip, path, video, frame_offset)
    if frame_offset:
        _shift(clip, frame_offset, path)
    if video is not None:
        check_image_size(clip.image_size, video.image_size, path=path)
        if clip.n_frames not in (None, video.n_frames):
            text = f"the labels were made on a video of {clip.n_frames} frames, this one has {video.n_frames}"
            warn(path, f"{text}; check that they belong together")
        clip.n_frames, clip.image_size = video.n_frames, video.image_size
    if clip.n_frames is not None:
        _leave_out_moved(clip, frame_offset, path, clip.n_frames)
        _check_frames(clip, path, clip.n_frames)
    _warn_of_outside(clip, path)
    return Labels(
        clip.skeleton,
        _tracks(clip, path),
        _as_frames(clip.labelled_frames),
        clip.image_size,
        clip.n_frames,
        clip.video or (Path(video.path).name if video is not None else None),
        clip.frame_names,
        clip.ignore_regions,
        clip.track_names,
    )


def _settle_unlabelled(labels: Labels, path: PathLike) -> Labels:
    """Return the labels with what is not labelled as whoever reads them says that it is."""
    is_absent = isinstance(path, LabelFile) and path.unlabelled == "absent"
    return labels.with_unlabelled_absent() if is_absent else labels


def _as_frames(frames: set[int]) -> np.ndarray:
    return np.array(sorted(frames), dtype=np.int64)


def _stack(arrays: Sequence[Floats | None], columns: int) -> Floats:
    """Return arrays (columns,) as rows, NaN for those that are not there."""
    empty = np.full(columns, np.nan)
    return np.stack([empty if array is None else array for array in arrays])


def _tracks(clip: Clip, path: PathLike) -> dict[int, Track]:
    """Return the tracks; scores and expected errors of keypoints that are not there are left out."""
    k, tracks = len(clip.skeleton), {}
    for track_id, rows in group_by_track(clip.instances, path).items():
        visibility = np.stack([row.visibility for row in rows])
        scores = _stack([row.scores for row in rows], k)
        error = _stack([row.expected_error for row in rows], k)
        tracks[track_id] = Track(
            np.array([row.frame for row in rows]),
            np.stack([row.keypoints for row in rows]),
            visibility=visibility,
            labelled=np.stack([row.visibility > 0 if row.labelled is None else row.labelled for row in rows]),
            boxes=_stack([row.box for row in rows], 4),
            head_boxes=_stack([row.head_box for row in rows], 4),
            keypoint_scores=np.where(visibility > 0, scores, np.nan),
            expected_error=np.where(visibility > 0, error, np.nan),
        )
    return tracks


def labels_on(span: range, labels: Labels) -> Labels:
    """Return the labels on a part of a video.

    Raises:
        LabelsError: if there are none.
    """
    kept = labels.at(span)
    if not kept.tracks:
        raise LabelsError(
            f"there are no labels on the frames {span.start} to {span.stop - 1}",
            path=labels.video,
            expected=f"some; labelled are the frames {few_of(labels.labelled_frames.tolist())}",
            fix="name a part of the clip that has labels",
        )
    return kept


def check_image_size(
    size: tuple[int, int] | None,
    wanted: tuple[int, int],
    *,
    what: str = "labels",
    path: PathLike | None = None,
) -> None:
    """Refuse labels or poses that were made on frames of another (height, width) than ``wanted``, a video's.

    Raises:
        LabelsError: unless the sizes are equal, or that of the labels is not known.
    """
    if size is None or tuple(size) == tuple(wanted):
        return
    (height, width), (video_height, video_width) = size, wanted
    fix = f"the video was resized or cropped: use the video that the {what} were made on, or scale them"
    if (width, height) == (video_height, video_width):
        fix = f"the video is rotated: make the {what} on the upright video, or use the one they were made on"
    raise LabelsError(
        f"the {what} were made on frames of another size than the video has",
        path=path,
        expected=f"{video_width} x {video_height} pixels (width x height)",
        got=f"{width} x {height} pixels",
        fix=fix,
    )


def _frames_in(clip: Clip) -> set[int]:
    return clip.labelled_frames | {instance.frame for instance in clip.instances}


def _check_frames(clip: Clip, path: PathLike, n_frames: int) -> None:
    beyond = sorted(frame for frame in _frames_in(clip) if frame >= n_frames)
    if beyond:
        raise LabelsError(
            "a label lies beyond the last frame of the video",
            path=path,
            expected=f"frame indices from 0 to {n_frames - 1}",
            got=f"frame {beyond[-1]}" + (f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""),
            fix="check that they belong together; labels that count from 1 are fixed by "
            "'posewarper convert --frame-offset -1'",
        )


def _shift(clip: Clip, offset: int, path: PathLike) -> None:
    frames = _frames_in(clip)
    if frames and not (min(frames) + offset >= 0 and max(frames) + offset <= LARGEST_INDEX):
        what = "the frame offset moves labels before the first frame or out of reach"
        expected = f"an offset of at least {-min(frames)}"
        raise LabelsError(what, path=path, expected=expected, got=offset, fix="give another offset")
    for instance in clip.instances:
        instance.frame += offset
    clip.labelled_frames = {frame + offset for frame in clip.labelled_frames}
    clip.ignore_regions = {frame + offset: r for frame, r in clip.ignore_regions.items()}
    clip.frame_names = {}


def _leave_out_moved(clip: Clip, offset: int, path: PathLike, n_frames: int) -> None:
    """Leave out, with a warning, what only the offset has moved beyond the last frame, in place.

    Networks (OpenPose) label every frame, the last ones too. What has no scores may come from a person, and
    is not left out.
    """
    moved = {frame for frame in _frames_in(clip) if n_frames <= frame < n_frames + offset}
    by_person = any(i.scores is None or np.isnan(i.scores).all() for i in clip.instances if i.frame in moved)
    if by_person or not moved or moved == _frames_in(clip):
        return
    clip.instances = [instance for instance in clip.instances if instance.frame not in moved]
    clip.labelled_frames -= moved
    warn(path, f"the offset moves some frames beyond the last one; they are left out: {len(moved)}")


def _warn_of_outside(clip: Clip, path: PathLike) -> None:
    """Warn of labelled keypoints that lie outside of the image; they are kept."""
    if clip.image_size is None:
        return
    # The centre of the first pixel is 0, so the image reaches from -0.5 to size - 0.5.
    edge = np.array(clip.image_size[::-1]) - 0.5
    where: list[str] = []
    for instance in clip.instances:
        if instance.frame in clip.labelled_frames:
            outside = ((instance.keypoints < -0.5) | (instance.keypoints > edge)).any(axis=1)
            where += [instance.where] * int(outside.sum())
    if where:
        warn(path, f"{len(where)} labelled keypoints lie outside of the image, the first in {where[0]}")
