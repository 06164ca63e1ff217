"""Poses in NetCDF files of movement: read and written through xarray, as movement itself does.

A file holds dense arrays over time, space, keypoints and individuals: ``position`` in pixels and
``confidence``. Beside them stand what movement has no place for and passes over: ``expected_error`` in
pixels, ``visibility``, ``is_label`` for each frame, ``labelled`` for each keypoint, and the index of each
frame. Files without these hold predictions alone. On a labelled frame a keypoint that is labelled and not
there is absent; a track all of whose keypoints are is not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from posewarper.files import replacing
from posewarper.formats.clips import (
    Clip,
    Instance,
    VideoFacts,
    frames_of_times,
    frames_to_write,
    has_one_nameless_track,
    identify_tracks,
    name_all_tracks,
    settle,
)
from posewarper.formats.frame_names import choose_video, is_telling
from posewarper.formats.records import PathLike, import_extra, open_hdf5, quiet, reading
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Ints, Labels

_WHAT = "a NetCDF file of movement"
_FIX = "save it again with movement: ds.to_netcdf(FILE, engine='h5netcdf')"
_DIMENSIONS = ("time", "keypoints", "individuals", "space")
# Other versions of movement name some dimensions in the singular.
_SINGULAR = {"keypoint": "keypoints", "individual": "individuals"}
_ENGINE = "h5netcdf"


def read_clip(path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | None = None) -> Clip:
    """Return what a NetCDF file says about its video. ``skeleton`` is not used, since the file has its own.

    Frames are told by ``frame`` where the file has it, else by the times and the frame rate.

    Raises:
        LabelsError: if the file is damaged or holds no poses in two dimensions, or xarray is not installed.
    """
    xarray = import_extra("xarray", path)
    import_extra(_ENGINE, path)
    with open_hdf5(path, _WHAT, _FIX):
        pass  # refuses what reaches out of the file
    with reading(path, _WHAT, _FIX), xarray.open_dataset(path, engine=_ENGINE) as opened:
        data = opened.load().rename({old: new for old, new in _SINGULAR.items() if old in opened.dims})
        return _read(data, path, video)


def _read(data: Any, path: PathLike, video: VideoFacts | None) -> Clip:
    if data.sizes.get("space") != 2:
        raise ValueError(f"its space is {data.space.values.tolist()}, not x and y")
    points = np.asarray(data.position.sel(space=["x", "y"]).transpose(*_DIMENSIONS), np.float64)
    shape = points.shape[:3]

    def get(name: str, otherwise: float, dimensions: tuple[str, ...] = _DIMENSIONS[:3]) -> Floats:
        if name not in data:
            return np.full([data.sizes[d] for d in dimensions], otherwise)
        return np.asarray(data[name].transpose(*dimensions), np.float64)

    visibility = np.where(np.isfinite(points).all(-1), get("visibility", 2), 0).astype(np.uint8)
    scores, error = get("confidence", np.nan), get("expected_error", np.nan)
    frames = _frames_of(data, path)
    is_label = get("is_label", 0, ("time",)) > 0
    points[visibility == 0] = np.nan
    shown, labelled = visibility.any(1), None
    if "labelled" in data:
        labelled = get("labelled", 0) > 0
        shown |= is_label[:, None] & ~labelled.all(1)
    names = [str(name) for name in data.individuals.values]
    alone = len(names) == 1 and names[0] == _default_name(0)
    tracks, track_names = ([None], {}) if alone else identify_tracks(names)
    instances = [
        Instance(
            int(frames[t]),
            tracks[n],
            points[t, :, n],
            visibility[t, :, n],
            f"frame {frames[t]}, {names[n]}",
            scores=scores[t, :, n],
            expected_error=error[t, :, n],
            labelled=None if labelled is None else labelled[t, :, n],
        )
        for t, n in np.argwhere(shown).tolist()
    ]
    name = str(data.attrs.get("video", ""))
    _, another = choose_video(path, {name: {name} if is_telling(name) else ()}, video)
    size = data.attrs.get("image_size")
    edges = np.asarray(data.attrs.get("edges", ()), np.int64).reshape(-1, 2).tolist()
    clip = Clip(
        Skeleton(tuple(map(str, data.keypoints.values)), tuple((a, b) for a, b in edges), name="animal"),
        instances,
        set(frames[is_label].tolist()),
        None if size is None else (int(size[0]), int(size[1])),
        shape[0] if "frame" in data and data.attrs.get("is_whole", 0) else None,
        name or None,
        track_names=dict(track_names),
        another_video=another,
    )
    return settle(clip, path, _FIX)


def _frames_of(data: Any, path: PathLike) -> Ints:
    """Return the frame index of each row."""
    if "frame" in data:
        return np.asarray(data.frame, np.int64)
    rate = data.attrs.get("fps") if data.attrs.get("time_unit") == "seconds" else 1.0
    return frames_of_times(np.asarray(data.time, np.float64), path, rate=rate)


def _default_name(number: int) -> str:
    return f"id_{number}"  # as movement calls those without a name


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels and predictions of every frame as a NetCDF file of movement.

    The times are those of the opened video, in seconds; without one, time counts frames.

    Returns:
        What NetCDF has a place for, but cannot hold in this case: nothing.

    Raises:
        LabelsError: if xarray is not installed.
        OutputError: if the file cannot be written, or has too many frames.
    """
    xarray = import_extra("xarray", path)
    import_extra(_ENGINE, path)
    k, n = len(labels.skeleton), len(labels.tracks)
    count = frames_to_write(path, labels, "rows", room=3 * k * n)
    position = np.full((count, 2, k, n), np.nan)
    confidence, error = np.full((count, k, n), np.nan), np.full((count, k, n), np.nan)
    visibility = np.zeros((count, k, n), np.uint8)
    # A track without a row on a labelled frame is not there.
    labelled = np.zeros((count, k, n), bool)
    labelled[labels.labelled_frames] = True
    for i, track in enumerate(labels.tracks.values()):
        position[track.frames, :, :, i] = track.keypoints.transpose(0, 2, 1)
        confidence[track.frames, :, i] = track.keypoint_scores
        error[track.frames, :, i] = track.expected_error
        visibility[track.frames, :, i] = track.visibility
        labelled[track.frames, :, i] = track.labelled
    dense, frames = ("time", "keypoints", "individuals"), np.arange(count)
    timed = video is not None and not video.frame_names and video.n_frames == count
    names = [_default_name(0)] if has_one_nameless_track(labels) else list(name_all_tracks(labels).values())
    facts: dict[str, Any] = {
        "ds_type": "poses",
        "source_software": "posewarper",
        "time_unit": "seconds" if timed else "frames",
        "is_whole": int(labels.n_frames is not None),
    }
    if timed and video is not None and count > 1:
        facts["fps"] = (count - 1) / float(video.times[-1] - video.times[0])
    if labels.video is not None:
        facts["video"] = labels.video
    if labels.image_size is not None:
        facts["image_size"] = np.array(labels.image_size)
    if labels.skeleton.edges:
        facts["edges"] = np.array(labels.skeleton.edges).ravel()
    data = xarray.Dataset(
        {
            "position": (("time", "space", "keypoints", "individuals"), position),
            "confidence": (dense, confidence),
            "expected_error": (dense, error, {"units": "pixels"}),
            "visibility": (dense, visibility, {"meaning": "2 visible, 1 hidden, 0 not there"}),
            "labelled": (dense, labelled.astype(np.uint8)),
            "is_label": ("time", np.isin(frames, labels.labelled_frames).astype(np.uint8)),
        },
        {
            "time": video.times if timed and video is not None else frames,
            "space": ["x", "y"],
            "keypoints": list(labels.skeleton.names),
            "individuals": names,
            "frame": ("time", frames),
        },
        facts,
    )
    with replacing(path) as temporary, quiet():
        data.to_netcdf(temporary, engine=_ENGINE)
    return []
