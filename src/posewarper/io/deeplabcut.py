"""DeepLabCut: tables of labels, tables of predictions, and projects. Reading and writing.

The individuals become tracks 0, 1, ... in the order of the columns, and keep their names. Keypoints that only
some of them have (those of ``single``) join the skeleton, and stay without label in the others. A label is
always visible here (visibility 2), an empty cell is no label, and a row without any label is a frame that
nobody has labelled. Coordinates are taken as they are: the centre of a pixel is a whole number, as
everywhere here.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from posewarper.errors import PosewarperWarning
from posewarper.io import deeplabcut_project
from posewarper.io.clips import Clip, VideoFacts
from posewarper.io.deeplabcut_csv import parse_csv, write_csv
from posewarper.io.deeplabcut_hdf5 import read_hdf5, write_hdf5
from posewarper.io.deeplabcut_table import (
    ONE_ANIMAL,
    SEVERAL_ANIMALS,
    Header,
    Table,
    default_individual,
    read_clip,
    video_of,
)
from posewarper.io.frame_names import base_name, folder_name, number_in, stem_of
from posewarper.io.hdf5 import SIGNATURE
from posewarper.io.losses import refuse_too_many
from posewarper.io.records import PathLike, read_text
from posewarper.structures import Floats, Labels

PREDICTIONS_CANNOT_HOLD = frozenset(
    {
        *("which keypoints are hidden", "boxes", "head boxes", "expected errors"),
        *("labelled frames that show nobody", "track ids", "edges", "mirror pairs", "ignore regions"),
        *("the image size", "the names of the frames' files", "what an instance is called"),
    }
)
CANNOT_HOLD = frozenset(
    {
        *("which keypoints are hidden", "boxes", "head boxes", "scores", "expected errors"),
        *("which poses are predictions", "labelled frames that show nobody", "track ids", "edges"),
        *("mirror pairs", "ignore regions", "the image size", "the number of frames"),
        "what an instance is called",
    }
)
# The individual that holds the keypoints which no animal has, in DeepLabCut's projects of several animals.
_SINGLE = "single"


def read(path: PathLike, video: VideoFacts | None = None) -> Clip:
    """Return what a DeepLabCut table or project says about one video.

    Args:
        path: a table of labels or predictions (.csv or .h5), a project's ``config.yaml``, or its folder.
        video: the opened video; picks one of several, and knows the frames' names.

    Raises:
        LabelsError: if anything in the file is not as it should be.
    """
    if Path(path).is_dir() or Path(path).suffix.lower() in (".yaml", ".yml"):
        return deeplabcut_project.read_project(path, video, _read_table)
    return _read_table(path, video)


def _read_table(path: PathLike, video: VideoFacts | None) -> Clip:
    table = read_hdf5(path) if _is_hdf5(path) else parse_csv(read_text(path), path)
    return read_clip(table, path, video)


def _is_hdf5(path: PathLike) -> bool:
    try:
        with Path(path).open("rb") as handle:
            return handle.read(len(SIGNATURE)) == SIGNATURE
    except (OSError, ValueError):
        return False  # reading it as text says what is wrong


# --- writing ----------------------------------------------------------------------------------------------


def write_labels(path: PathLike, labels: Labels) -> None:
    """Write labels as DeepLabCut's table, exactly as given: as HDF5 if the suffix is .h5, else as CSV.

    The scorer is that of a file name like ``CollectedData_Ann.csv``, else "posewarper". Where a track is
    called ``single``, keypoints that it alone has are written for it alone, as DeepLabCut does.

    Raises:
        LabelsError: if packages are missing.
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: if the frames' indices can be told only with the folder of frames.
    """
    stem = Path(path).stem
    scorer = stem.removeprefix("CollectedData_") if stem.startswith("CollectedData_") else "posewarper"
    images = _name_images(labels)
    points, _ = _arrange(labels, list(images))
    _write(path, labels, scorer, tuple(images.values()), points, "xy")
    if any(number_in(name) != frame for frame, name in images.items()):
        warnings.warn(
            f"{path}: the images are numbered otherwise than the frames; read it with the folder of frames",
            PosewarperWarning,
            stacklevel=4,
        )
    if labels.frame_names.keys() - images.keys():
        lost = "the names of the frames' files where nobody is"
        warnings.warn(f"{path}: a DeepLabCut table cannot hold: {lost}", PosewarperWarning, stacklevel=4)


def write_predictions(path: PathLike, labels: Labels) -> None:
    """Write every pose as DeepLabCut's table of predictions: a row for each frame, and a likelihood.

    The likelihood is the score, and 1 for labels that have none. The scorer is what stands behind the video's
    name in the file's name, from ``DLC`` on, else "DLC_posewarper".

    Raises:
        LabelsError: if packages are missing.
        OutputError: if the file cannot be written.

    Warns:
        PosewarperWarning: if some of the poses are labels.
    """
    stem = Path(path).stem
    scorer = stem[stem.index("DLC") :] if "DLC" in stem else "DLC_posewarper"
    count = labels.n_frames or max(labels.instance_frames.tolist(), default=-1) + 1
    refuse_too_many(path, count, "rows")
    points, scores = _arrange(labels, list(range(count)))
    _write(path, labels, scorer, tuple(range(count)), np.concatenate([points, scores[..., None]], -1), "xyl")
    labels_alone = labels.only_labelled()
    lost = ["which poses are predictions, and which labels"] if labels_alone.tracks else []
    if any((np.isnan(t.keypoint_scores) & (t.visibility > 0)).any() for t in labels_alone.tracks.values()):
        lost.append("which keypoints have no score: labels get a likelihood of 1")
    if labels.video is not None and video_of(path, scorer) != stem_of(labels.video):
        lost.append("the video's name, unless the file is called <video>DLC_<anything>")
    if lost:
        text = f"{path}: a DeepLabCut table of predictions cannot hold: {'; '.join(lost)}"
        warnings.warn(text, PosewarperWarning, stacklevel=4)


def _arrange(labels: Labels, frames: list[int]) -> tuple[Floats, Floats]:
    """Return points (n, tracks, K, 2) and scores (n, tracks, K) on some frames, NaN where nobody is."""
    points = np.full((len(frames), len(labels.tracks), len(labels.skeleton), 2), np.nan)
    scores = points[..., 0].copy()
    row_of = {frame: row for row, frame in enumerate(frames)}
    for n, track in enumerate(labels.tracks.values()):
        rows = [row_of[frame] for frame in track.frames.tolist()]
        is_label = np.isin(track.frames, labels.labelled_frames)[:, None] & (track.visibility > 0)
        points[rows, n] = track.keypoints
        scores[rows, n] = np.where(is_label & np.isnan(track.keypoint_scores), 1.0, track.keypoint_scores)
    return points, scores


def _write(
    path: PathLike, labels: Labels, scorer: str, images: tuple[str | int, ...], values: Floats, coords: str
) -> None:
    """Write values (n, tracks, K, coords) as a table of n rows."""
    individuals = _name_individuals(labels)
    several = list(labels.tracks) != [0] or 0 in labels.track_names
    names = labels.skeleton.names
    columns = [(n, k, c) for n, k in _choose_columns(labels, individuals) for c in range(len(coords))]
    titles = SEVERAL_ANIMALS if several else ONE_ANIMAL
    cells = {
        "scorer": [scorer] * len(columns),
        "individuals": [individuals[n] for n, _, _ in columns],
        "bodyparts": [names[k] for _, k, _ in columns],
        "coords": [{"x": "x", "y": "y", "l": "likelihood"}[coords[c]] for _, _, c in columns],
    }
    n, k, c = np.array(columns, np.int64).reshape(-1, 3).T
    header = Header(scorer, individuals, names, tuple(columns))
    table = Table(header, images, tuple(f"row {i + 1}" for i in range(len(images))), values[:, n, k, c])
    write = write_hdf5 if Path(path).suffix.lower() in (".h5", ".hdf5", ".hdf") else write_csv
    write(path, table, titles, [cells[title] for title in titles])


def _name_individuals(labels: Labels) -> tuple[str, ...]:
    """Return a name for each track, no two alike."""
    names: list[str] = []
    for n, track in enumerate(labels.tracks):
        name = labels.track_names.get(track) or default_individual(n)
        while name in names:
            name += "_"
        names.append(name)
    return tuple(names)


def _choose_columns(labels: Labels, individuals: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return the pairs (individual, keypoint) that get columns, in order."""
    count = len(labels.skeleton)
    every = [(n, k) for n in range(len(individuals)) for k in range(count)]
    if _SINGLE not in individuals:
        return every
    single = individuals.index(_SINGLE)
    seen = np.array([(track.visibility > 0).any(0) for track in labels.tracks.values()])
    alone = seen[single] & ~np.delete(seen, single, axis=0).any(0)
    some = [(n, k) for n, k in every if alone[k] == (n == single)]
    # The keypoints are read back in the order of the columns, and must not change it.
    keeps = list(dict.fromkeys(k for _, k in some)) == list(range(count)) and not seen[single][~alone].any()
    return some if keeps else every


def _name_images(labels: Labels) -> dict[int, str]:
    """Return the image name of each frame with an instance, and of labelled ones, as DeepLabCut has it."""
    frames = np.union1d(labels.instance_frames, labels.labelled_frames).tolist()
    folders = [folder_name(labels.frame_names[f]) for f in frames if f in labels.frame_names]
    folder = stem_of(labels.video) if labels.video else next(filter(None, folders), "video")
    digits = max(4, len(str(labels.n_frames or 0)))
    return {
        frame: f"labeled-data/{folder}/"
        + (
            base_name(labels.frame_names[frame])
            if frame in labels.frame_names
            else f"img{frame:0{digits}d}.png"
        )
        for frame in frames
    }
