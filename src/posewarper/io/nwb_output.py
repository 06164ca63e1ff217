"""Poses in NWB files (ndx-pose). Writing, through pynwb.

Labels become ``PoseTraining`` in the module "behavior", predictions one ``PoseEstimation`` a track in a
module of the video, both named as sleap-io names them, which reads such files. Tracks are listed in the
``SubjectsTable`` of ndx-multisubjects. NWB asks for a time of each frame: that of the opened video, and
without one a frame counts as a second.
"""

from __future__ import annotations

import datetime
import uuid
import warnings
from typing import Any

import numpy as np

from posewarper.errors import PosewarperWarning
from posewarper.files import replacing
from posewarper.io.clips import VideoFacts
from posewarper.io.frame_names import stem_of
from posewarper.io.hdf5 import import_extra, quiet
from posewarper.io.nwb_content import TRACK, safe_name
from posewarper.io.projects import losses_of_names, name_all_tracks
from posewarper.io.records import PathLike
from posewarper.structures import Floats, Labels, LabelTrack

CANNOT_HOLD = frozenset(
    {
        *("boxes", "head boxes", "expected errors", "mirror pairs", "ignore regions"),
        "the names of the frames' files",
    }
)
_REFERENCE = "x to the right, y down; (0, 0) is the centre of the top-left pixel"


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> None:
    """Write labels and predictions as an NWB file of ndx-pose.

    Args:
        path: the file to write.
        labels: what to write. A single track without a name is written without subjects.
        video: the opened video, whose times are written.

    Raises:
        LabelsError: if pynwb and its extensions are not installed.
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: about what the format has a place for, but not in this case.
    """
    pynwb, ndx_pose = import_extra("pynwb", path), import_extra("ndx_pose", path)
    subjects = import_extra("ndx_multisubjects", path)
    names = name_all_tracks(labels)
    with quiet():
        tracked = list(labels.tracks) != [0] or 0 in labels.track_names
        build = subjects.NdxMultiSubjectsNWBFile if tracked else pynwb.NWBFile
        nwb = build(
            session_description="Keypoints by posewarper",
            identifier=str(uuid.uuid4()),
            session_start_time=datetime.datetime.now(
                datetime.UTC
            ),  # which the format wants, and nobody knows
        )
        if tracked:
            nwb.subjects_table = _list_subjects(subjects, list(names.values()))
        times = _times(labels, video)
        series = _describe_video(pynwb, labels, times)
        skeleton = _build_skeleton(ndx_pose, labels)
        behavior = nwb.create_processing_module(name="behavior", description="keypoints")
        behavior.add(ndx_pose.Skeletons(skeletons=[skeleton]))
        if labels.labelled_frames.size:
            behavior.add(_build_training(ndx_pose, labels, series, skeleton))
        else:
            nwb.add_acquisition(series)
        module = None
        for i, track in labels.tracks.items():
            rows = ~np.isin(track.frames, labels.labelled_frames) & (track.visibility > 0).any(1)
            if not rows.any():
                continue
            if module is None:
                name = f"SLEAP_VIDEO_000_{safe_name(stem_of(labels.video or 'video'))}"
                module = nwb.create_processing_module(name=name, description="predicted keypoints")
            module.add(
                _build_estimation(
                    ndx_pose, labels, track.at(track.frames[rows]), names[i], times, series, skeleton
                )
            )
        with replacing(path) as temporary, pynwb.NWBHDF5IO(str(temporary), "w") as output:
            output.write(nwb)
    _warn_of_losses(path, labels)


def _times(labels: Labels, video: VideoFacts | None) -> Floats | None:
    """Return the times of all frames in seconds, None without a video file of that length."""
    if video is None or video.frame_names or labels.n_frames not in (None, video.n_frames):
        return None
    return np.asarray(video.times, np.float64)


def _list_subjects(subjects: Any, names: list[str]) -> Any:
    table = subjects.SubjectsTable(description="the tracks")
    for name in names:
        table.add_row(subject_id=name, sex="U", species="unknown")
    return table


def _describe_video(pynwb: Any, labels: Labels, times: Floats | None) -> Any:
    clock: dict[str, Any] = {"rate": 1.0, "starting_time": 0.0, "num_samples": labels.n_frames or 0}
    if times is not None:
        clock = {"timestamps": times}
    sides = {} if labels.image_size is None else {"dimension": list(labels.image_size[::-1])}
    return pynwb.image.ImageSeries(
        name="video_0",
        description="the video" if times is not None else "the video; a frame counts as a second",
        unit="NA",
        format="external",
        external_file=[labels.video or "video"],
        starting_frame=[0],
        **sides,
        **clock,
    )


def _build_skeleton(ndx_pose: Any, labels: Labels) -> Any:
    edges = np.array(labels.skeleton.edges, np.uint32).reshape(-1, 2)
    name, nodes = safe_name(labels.skeleton.name), list(labels.skeleton.names)
    return ndx_pose.Skeleton(name=name, nodes=nodes, edges=edges)


def _build_training(ndx_pose: Any, labels: Labels, series: Any, skeleton: Any) -> Any:
    people: dict[int, list[Any]] = {frame: [] for frame in labels.labelled_frames.tolist()}
    for number, track in enumerate(labels.tracks.values()):
        for row, frame in enumerate(track.frames.tolist()):
            if frame in people and track.visibility[row].any():
                person = ndx_pose.SkeletonInstance(
                    name=f"instance_{number}",
                    id=np.uint32(number),
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


def _build_estimation(
    ndx_pose: Any,
    labels: Labels,
    track: LabelTrack,
    name: str,
    times: Floats | None,
    series: Any,
    skeleton: Any,
) -> Any:
    clock: Any = track.frames.astype(np.float64) if times is None else times[track.frames]
    points = []
    for k, node in enumerate(labels.skeleton.names):
        points.append(
            ndx_pose.PoseEstimationSeries(
                name=safe_name(node),
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
    return ndx_pose.PoseEstimation(
        name=TRACK + safe_name(name),
        pose_estimation_series=points,
        description="predicted keypoints of one track",
        original_videos=[labels.video or "video"],
        scorer="posewarper",
        source_software="posewarper",
        skeleton=skeleton,
        source_video=series,
    )


def _warn_of_losses(path: PathLike, labels: Labels) -> None:
    lost = losses_of_names(labels)
    on_labels = [track.at(labels.labelled_frames) for track in labels.tracks.values()]
    if any(np.isfinite(track.keypoint_scores).any() for track in on_labels):
        lost.append("scores of labels")
    predicted = [
        track.visibility[~np.isin(track.frames, labels.labelled_frames)] for track in labels.tracks.values()
    ]
    if any((visibility == 1).any() for visibility in predicted):
        lost.append("which keypoints are hidden in predictions")
    if safe_name(labels.skeleton.name) != labels.skeleton.name:
        lost.append("what an instance is called, if with a slash or colon")
    if lost:
        text = f"{path}: an NWB file cannot hold: {'; '.join(lost)}"
        warnings.warn(text, PosewarperWarning, stacklevel=5)
