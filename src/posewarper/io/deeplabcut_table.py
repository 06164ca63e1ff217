"""DeepLabCut's table in memory, whatever file it came from, and what it says about a video.

A table has one row an image and one column a coordinate; the columns' header names the scorer, the
individual (several animals only), the keypoint, and x, y or likelihood.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.io.clips import Clip, Instance, VideoFacts
from posewarper.io.frame_names import choose_video, find_frame_indices, folder_name
from posewarper.io.records import LARGEST_COORDINATE, LARGEST_INDEX, PathLike
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, is_there

ONE_ANIMAL = ("scorer", "bodyparts", "coords")
SEVERAL_ANIMALS = ("scorer", "individuals", "bodyparts", "coords")
_COORDS = ("x", "y", "likelihood")
_MEND = "give the table that DeepLabCut wrote, unchanged"


@dataclass(frozen=True)
class Header:
    """What the columns of a table hold.

    Args:
        scorer: who labelled, or the network that predicted.
        individuals: names of the animals, in order; one that is empty where the table has no such row.
        names: names of the keypoints, in order.
        places: for each column (individual, keypoint, 0 for x, 1 for y, 2 for likelihood).
    """

    scorer: str
    individuals: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[tuple[int, int, int], ...]

    @property
    def has_scores(self) -> bool:
        """Whether these are predictions."""
        return any(coord == 2 for _, _, coord in self.places)


@dataclass(frozen=True)
class Table:
    """The content of a table of n rows.

    Args:
        header: what the columns hold.
        images: of each row, the path of the image, or the index of the frame.
        where: of each row, its place in the file.
        cells: (n, columns) pixels and likelihoods, NaN for empty ones.
    """

    header: Header
    images: tuple[str | int, ...]
    where: tuple[str, ...]
    cells: Floats


def problem(path: PathLike, where: str, what: str, expected: object, got: object) -> LabelsError:
    """Return the error that names a place in a table."""
    return LabelsError(f"{where}: {what}", path=path, expected=expected, got=got, mend=_MEND)


def read_header(path: PathLike, where: str, levels: Sequence[Sequence[str]]) -> Header:
    """Return what the columns hold.

    Args:
        path: the file.
        where: the header's place in it.
        levels: the cells of the rows :data:`ONE_ANIMAL` or :data:`SEVERAL_ANIMALS`, without their titles.

    Raises:
        LabelsError: if the columns are not those of a table of labels or predictions.
    """
    scorers, parts, coords = levels[0], levels[-2], levels[-1]
    owners = levels[1] if len(levels) == len(SEVERAL_ANIMALS) else [""] * len(parts)
    individuals, names = tuple(dict.fromkeys(owners)), tuple(dict.fromkeys(parts))
    unknown = sorted(set(coords) - set(_COORDS))
    if unknown:
        raise problem(
            path, where, "the header is wrong", "coords x, y and likelihood", ", ".join(unknown)[:80]
        )
    if len(set(scorers)) > 1:
        got = ", ".join(dict.fromkeys(scorers))[:80]
        raise problem(path, where, "the table mixes several scorers", "the columns of one scorer", got)
    places = [
        (individuals.index(owner), names.index(part), _COORDS.index(coord))
        for owner, part, coord in zip(owners, parts, coords, strict=True)
    ]
    known = set(places)
    alone = [p for p in places if not {(*p[:2], 0), (*p[:2], 1)} <= known]
    if alone or len(known) < len(places) or "" in names or not places:
        got = "a column twice, without a name, or x without y" + (
            ", in a table of predictions" if "likelihood" in coords else ""
        )
        raise problem(path, where, "the columns do not pair", "x and y of each keypoint", got)
    return Header(scorers[0], individuals, names, tuple(places))


def read_clip(table: Table, path: PathLike, video: VideoFacts | None) -> Clip:
    """Return what a table says about one video.

    Raises:
        LabelsError: if a number is no coordinate, or the rows cannot be told apart.

    Warns:
        PosewarperWarning: about coordinates that stand alone.
    """
    header = table.header
    if not table.images:
        raise LabelsError("the table has no rows", path=path, mend="label some frames in DeepLabCut and save")
    points, scores = _arrange(table, path)
    folders = [folder_name(image) or "" if isinstance(image, str) else "" for image in table.images]
    chosen = choose_video(path, {folder: () for folder in folders}, video)
    keep = [i for i, folder in enumerate(folders) if folder == chosen]
    images = [table.images[i] for i in keep]
    frames = find_frame_indices(
        path,
        [table.where[i] for i in keep],
        [image if isinstance(image, str) else None for image in images],
        [image if isinstance(image, int) else None for image in images],
        video,
    )
    there = is_there(points)
    instances = [
        Instance(
            frame,
            track,
            points[i, track],
            there[i, track].astype(np.uint8) * 2,
            table.where[i],
            scores=None if scores is None else scores[i, track],
        )
        for frame, i in zip(frames, keep, strict=True)
        for track in np.flatnonzero(there[i].any(-1)).tolist()
    ]
    # Predictions have a row for every frame of the video, labels only those images that were picked.
    whole = images == list(range(len(images)))
    return Clip(
        Skeleton(header.names, name="animal"),
        instances,
        labelled_frames=set() if header.has_scores else {instance.frame for instance in instances},
        n_frames=len(images) if whole and header.has_scores else None,
        video=chosen or video_of(path, header.scorer),
        frame_names={f: image for f, image in zip(frames, images, strict=True) if isinstance(image, str)},
        track_names=name_tracks(header.individuals),
    )


def video_of(path: PathLike, scorer: str) -> str | None:
    """Return the video that a table of predictions is about: in its file's name the scorer's follows."""
    video, found, _ = Path(path).stem.partition(scorer) if scorer else ("", "", "")
    return video if found and video else None


def default_individual(n: int) -> str:
    """Return what the n-th individual is called whose track has no name."""
    return f"ind{n + 1}"


def name_tracks(individuals: Sequence[str]) -> dict[int, str]:
    """Return the tracks' names, without those that only stand for a track that has none."""
    return {n: name for n, name in enumerate(individuals) if name not in ("", default_individual(n))}


def _arrange(table: Table, path: PathLike) -> tuple[Floats, Floats | None]:
    """Return points (n, individuals, K, 2) and scores (n, individuals, K), NaN where there is nothing."""
    header, cells = table.header, table.cells
    wrong = np.asarray(np.abs(cells) > LARGEST_COORDINATE)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise wrong_cell(path, table.where[row], header, int(column), cells[row, column])
    values = np.full((len(cells), len(header.individuals), len(header.names), 3), np.nan)
    individual, keypoint, coord = np.array(header.places).T
    values[:, individual, keypoint, coord] = cells
    points, scores = values[..., :2], values[..., 2]
    alone = np.isfinite(points).any(-1) & ~is_there(points)
    for row, _, k in np.argwhere(alone)[:1]:
        more = f" and {alone.sum() - 1} more" if alone.sum() > 1 else ""
        warnings.warn(
            f"{path}: {table.where[row]}: {header.names[k]} has only one of x and y, and counts as not "
            f"labelled{more}",
            PosewarperWarning,
            stacklevel=2,
        )
    points[alone] = np.nan
    return points, scores if header.has_scores else None


def wrong_cell(path: PathLike, where: str, header: Header, column: int, got: object) -> LabelsError:
    """Return the error for a cell that is no coordinate."""
    name = header.names[header.places[column][1]]
    what, expected = f"a coordinate of {name} is wrong", "a number of pixels, or an empty cell"
    return problem(path, where, what, expected, got)


def frame_or_path(label: str) -> str | int:
    """Return what stands before a row, as the index of a frame if it is a whole number."""
    is_number = label.isascii() and label.isdigit() and len(label) <= 10 and int(label) <= LARGEST_INDEX
    return int(label) if is_number else label.replace("\\", "/")
