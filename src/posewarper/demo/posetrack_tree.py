"""A made-up download of PoseTrack: rendered clips and their labels, where and as the official ones are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from posewarper.demo.crowd import Clothes, Crowd, CrowdFrame, film_crowd, stage_crowd, tell_crowd
from posewarper.errors import ConfigError
from posewarper.files import replacing
from posewarper.posetrack.annolist import write_annolist, write_annolist_mat
from posewarper.posetrack.posetrack18 import write_posetrack18
from posewarper.structures import Floats, InstanceTable, Ints

NOBODY = -1
# Half the width that hides what is behind it, in heights of the person.
_HALF_WIDTH = 0.11
# Shares of keypoints that are far off, and of hidden ones that are drawn to the person in front.
_STRAY_SHARE, _DRAWN_SHARE = 0.03, 0.5
_FEWEST = 3  # keypoints in the frame, of somebody who is found


@dataclass(frozen=True)
class Sightings:
    """The instances that were found in one frame, n in number, in an order that says nothing.

    Args:
        keypoints: (n, 17, 2) xy in pixels.
        keypoint_scores: (n, 17) from 0 to 1.
        boxes: (n, 4) xywh in pixels.
        scores: (n,) from 0 to 1.
        people: (n,) who they truly are, ``NOBODY`` for an invention.
    """

    keypoints: Floats
    keypoint_scores: Floats
    boxes: Floats
    scores: Floats
    people: Ints


def sight_crowd(
    crowd: Crowd,
    times: Floats,
    *,
    seed: int = 0,
    noise: float = 0.02,
    missed: float = 0.03,
    invented: float = 0.1,
    hidden: float = 0.5,
) -> Iterator[tuple[CrowdFrame, Sightings]]:
    """Give for each frame what is true of it and what is found in it.

    Args:
        crowd: the staged clip.
        times: (T,) of the frames; larger steps are faster people.
        seed: of everything random.
        noise: deviation of the keypoints, in heights of the person's box.
        missed: share of the people who are not found although they are seen.
        invented: share of the frames with an instance where nobody is.
        hidden: a person of whom a larger share of the keypoints is hidden is not found.
    """
    rng = np.random.default_rng(seed)
    for t in times.tolist():
        truth = tell_crowd(crowd, t)
        found = []
        for g, person in enumerate(truth.tracks.tolist()):
            behind, drawn_to = _hidden_keypoints(crowd, truth, g)
            there = np.isfinite(truth.keypoints[g]).all(-1)
            share = behind[there].mean() if there.sum() >= _FEWEST else 1.0
            lost = rng.uniform() < missed
            if share <= hidden and not lost:
                found.append((*_see_person(rng, truth, g, behind, drawn_to, noise), person))
        if len(truth.tracks) and rng.uniform() < invented:
            found.append((*_invent_person(rng, crowd, truth), NOBODY))
        yield truth, _collect(found, rng.permutation(len(found)))


def _hidden_keypoints(crowd: Crowd, truth: CrowdFrame, g: int) -> tuple[NDArray[np.bool_], Floats]:
    """Return which keypoints (17,) somebody stands before, and that one's keypoints (17, 2) there."""
    points = truth.keypoints[g]
    behind, drawn_to = np.zeros(len(points), bool), points.copy()
    for other, person in enumerate(truth.tracks.tolist()):
        if person <= truth.tracks[g]:
            continue
        x, y, width, height = truth.boxes[other]
        half = min(width / 2, _HALF_WIDTH * crowd.people[person].height)
        with np.errstate(invalid="ignore"):
            inside = np.abs(points[:, 0] - (x + width / 2)) < half
            inside &= (points[:, 1] > y) & (points[:, 1] < y + height)
        theirs = truth.keypoints[other]
        use = inside & np.isfinite(theirs).all(-1)
        behind |= inside
        drawn_to[use] = theirs[use]
    return behind, drawn_to


def _see_person(
    rng: np.random.Generator,
    truth: CrowdFrame,
    g: int,
    behind: NDArray[np.bool_],
    drawn_to: Floats,
    noise: float,
) -> tuple[Floats, Floats, Floats, float]:
    points, tall = truth.keypoints[g], truth.boxes[g, 3]
    there = np.isfinite(points).all(-1)
    drawn = behind & (rng.uniform(size=len(points)) < _DRAWN_SHARE)
    stray = there & ~behind & (rng.uniform(size=len(points)) < _STRAY_SHARE)
    spread = np.where(stray, 0.25, np.where(behind & ~drawn, 0.1, noise)) * tall
    seen = np.where(drawn[:, None], drawn_to, points) + rng.normal(size=points.shape) * spread[:, None]
    sure = np.where(behind, rng.uniform(0.1, 0.5, len(points)), rng.uniform(0.6, 0.95, len(points)))
    box = truth.boxes[g] + rng.normal(0, 0.03 * tall, 4)
    box[2:] = np.maximum(box[2:], 4)
    score = rng.uniform(0.6, 1.0) * (1 - behind[there].mean() / 2)
    return seen, np.where(there, sure, 0.0), box, score


def _invent_person(
    rng: np.random.Generator, crowd: Crowd, truth: CrowdFrame
) -> tuple[Floats, Floats, Floats, float]:
    """Return the disturbed pose of somebody at another place."""
    model = rng.integers(len(truth.tracks))
    points = truth.keypoints[model] - np.nanmean(truth.keypoints[model], axis=0)
    points = points + rng.uniform(0, 1, 2) * crowd.size[::-1]
    points = points + rng.normal(0, 0.1 * truth.boxes[model, 3], points.shape)
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    scores = np.where(np.isfinite(points).all(-1), rng.uniform(0.2, 0.7, len(points)), 0.0)
    return points, scores, np.concatenate([low, np.maximum(high - low, 4)]), rng.uniform(0.2, 0.7)


def _collect(found: list[tuple[Floats, Floats, Floats, float, int]], order: Ints) -> Sightings:
    if not found:
        none = np.zeros(0)
        return Sightings(
            np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)), none, none.astype(np.int64)
        )
    keypoints, keypoint_scores, boxes, scores, people = (
        np.array(column)[order] for column in zip(*found, strict=True)
    )
    return Sightings(keypoints, keypoint_scores, boxes, scores, people)


Kind = Literal["posetrack17", "posetrack18", "posetrack21"]
Labelled = Literal["posetrack", "all"]
Form = Literal["json", "mat"]

_SPLITS = ("train", "val", "test")
# Names of the official kind: PoseTrack17 sorts videos by where they come from, whatever the split.
_FOLDERS_17 = ("bonn", "bonn_5sec", "mpii", "mpii_5sec")
_MIDDLE = 30  # labelled frames in a row in the middle of PoseTrack's videos


def write_posetrack_tree(
    folder: str | Path,
    kind: Kind = "posetrack18",
    *,
    n_videos: tuple[int, ...] = (2, 1),
    n_frames: int = 40,
    size: tuple[int, int] = (120, 160),
    n_people: tuple[int, int] = (2, 4),
    seed: int = 0,
    labelled: Labelled = "posetrack",
    form: Form = "json",
    quality: int = 95,
    with_frames: bool = True,
    clothes: Clothes = "alike",
    pace: float = 1.0,
) -> Path:
    """Write clips and labels as a download of PoseTrack would have them.

    Ears are never labelled, nor what is outside the frame or behind somebody. Each video has an ignore region
    on some of its frames, and nobody in the first labelled one, but for the first video. Videos of the test
    split have label files without people. As in the official files, PoseTrack17 has no boxes of people.
    ``KIND_precomputed_boxes/val_boxes.json`` holds boxes as of a detector: those of all people in labelled
    frames of val, shifted a little, some missed and some made up.

    Args:
        folder: where to write; files that are there are replaced.
        kind: "posetrack17" (frames from 1, eight digits, annolist), "posetrack18" or "posetrack21" (frames
            from 0, six digits, COCO JSON).
        n_videos: videos of train, val and test; later ones may be left out.
        n_frames: frames of each video.
        size: (height, width) of the frames in pixels.
        n_people: least and most people in a video.
        seed: of everything.
        labelled: "posetrack" labels 30 frames in the middle of training videos (a third of shorter ones), and
            in val every fourth besides; "all" labels all.
        form: of PoseTrack17's label files.
        quality: of the JPEG files, 0 to 100.
        with_frames: whether to write the frames; labels alone are written some hundred times faster.
        clothes: "alike" or "varied"; see :func:`posewarper.demo.crowd.stage_crowd`.
        pace: how fast everybody moves: at 1 a step takes 8 to 14 frames, a quick one at 25 frames a second.

    Returns:
        The folder.

    Raises:
        ConfigError: if the kind is unknown or there are more than three numbers of videos.
    """
    if kind not in ("posetrack17", "posetrack18", "posetrack21") or len(n_videos) > len(_SPLITS):
        raise ConfigError(
            "no such tree",
            expected="posetrack17, posetrack18 or posetrack21, with videos of train, val and test",
            got=(kind, n_videos),
            fix="correct the kind or the numbers of videos",
        )
    folder = Path(folder)
    options = _Options(n_frames, size, n_people, labelled, form, quality, with_frames, clothes, pace)
    boxes: list[dict[str, object]] = []
    places = [split for split, number in zip(_SPLITS, n_videos, strict=False) for _ in range(number)]
    for count, split in enumerate(places, start=1):
        boxes += _write_video(folder, kind, _place(kind, split, count), options, seed, count)
    with replacing(folder / f"{kind}_precomputed_boxes" / "val_boxes.json") as temporary:
        temporary.write_text(json.dumps(boxes, separators=(",", ":")), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class _Options:
    """What all videos have in common; see :func:`write_posetrack_tree`."""

    n_frames: int
    size: tuple[int, int]
    n_people: tuple[int, int]
    labelled: Labelled
    form: Form
    quality: int
    with_frames: bool
    clothes: Clothes
    pace: float


@dataclass(frozen=True)
class _Place:
    """Names of one video."""

    split: str
    stem: str
    folder: str
    first: int
    digits: int

    def name(self, frame: int) -> str:
        return f"{self.folder}/{frame + self.first:0{self.digits}d}.jpg"


def _place(kind: str, split: str, count: int) -> _Place:
    if kind == "posetrack17":
        video = f"{_FOLDERS_17[count % len(_FOLDERS_17)]}/{count:06d}_mpii"
        return _Place(split, f"{count:06d}_mpii", video, 1, 8)
    stem = f"{count:06d}_{'bonn_train' if split == 'train' else 'mpii_test'}"
    return _Place(split, stem, f"{split}/{stem}", 0, 6)


def _write_video(
    folder: Path, kind: Kind, video: _Place, options: _Options, seed: int, count: int
) -> list[dict[str, object]]:
    """Write the frames and labels of a video; return boxes as of a detector for one of val, else none."""
    rng = np.random.default_rng([seed, count])
    n_people = int(rng.integers(options.n_people[0], options.n_people[1] + 1))
    crowd = stage_crowd(n_people, options.size, seed=int(rng.integers(2**31)), clothes=options.clothes)
    truth = _film(crowd, folder / "images" / video.folder, video, options)
    frames = _labelled_frames(options.n_frames, video.split, options.labelled)
    is_test = video.split == "test"
    table = _label(video, truth, frames, options.size, rng, is_test=is_test, empty=count > 1)
    _write_labels(folder, kind, video, table, options.form)
    if video.split != "val":
        return []
    prefix = "" if kind == "posetrack17" else "images/"
    return _detect(video, truth, frames, options.size, rng, prefix=prefix)


def _film(crowd: Crowd, folder: Path, video: _Place, options: _Options) -> list[CrowdFrame]:
    """Write the frames of a video, and return what is true of each."""
    if not options.with_frames:
        return [tell_crowd(crowd, options.pace * t) for t in range(options.n_frames)]
    folder.mkdir(parents=True, exist_ok=True)
    truth = []
    for t in range(options.n_frames):
        image, frame = film_crowd(crowd, options.pace * t)
        truth.append(frame)
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, options.quality])
        (folder / video.name(t).rsplit("/", 1)[1]).write_bytes(data.tobytes())
    return truth


def _labelled_frames(n_frames: int, split: str, labelled: Labelled) -> list[int]:
    """Return which frames are labelled, counted from 0."""
    if labelled == "all":
        return list(range(n_frames))
    length = _MIDDLE if n_frames >= 2 * _MIDDLE else max(n_frames // 3, min(n_frames, 2))
    begin = (n_frames - length) // 2
    middle = set(range(begin, begin + length))
    return sorted(middle if split == "train" else middle | set(range(0, n_frames, 4)))


def _label(
    video: _Place,
    truth: list[CrowdFrame],
    frames: list[int],
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    is_test: bool,
    empty: bool,
) -> InstanceTable:
    """Return the labels of a video; all frames are listed, as in the official files."""
    peopled = [] if is_test else frames[1:] if empty else frames
    height, width = size
    corner = rng.uniform(0, 0.7, 2) * (width, height)
    side = np.array([0.25 * width, 0.2 * height])
    region = np.round(corner + side * np.array([[0, 0], [1, 0], [1, 1], [0, 1]]), 1)
    parts = [truth[frame] for frame in peopled]
    rows = np.repeat(peopled, [len(part.tracks) for part in parts])
    keypoints = _joined([np.where(p.visible[..., None], p.keypoints, np.nan) for p in parts], (17, 2))
    tracks = _joined([p.tracks.astype(float) for p in parts], ())
    boxes, heads = _joined([p.boxes for p in parts], (4,)), _joined([p.head_boxes for p in parts], (4,))
    seen = np.isfinite(keypoints).all(-1).any(-1)
    return InstanceTable(
        video=video.stem,
        frame_names=tuple(video.name(t) for t in range(len(truth))),
        frame_numbers=np.arange(len(truth)) + video.first,
        rows=rows[seen].astype(np.int64),
        keypoints=np.round(keypoints[seen], 3),
        tracks=tracks[seen].astype(np.int64),
        boxes=np.round(boxes[seen], 3),
        head_boxes=np.round(heads[seen], 3),
        is_labelled=np.isin(np.arange(len(truth)), [] if is_test else frames),
        ignore_regions={} if is_test else {frame: (region,) for frame in frames[::3]},
        n_frames=len(truth),
        image_size=size,
    )


def _joined(parts: list[Floats], shape: tuple[int, ...]) -> Floats:
    return np.concatenate([np.zeros((0, *shape)), *parts])


def _write_labels(folder: Path, kind: str, video: _Place, table: InstanceTable, form: Form) -> None:
    top = folder / ("posetrack_data" if kind == "posetrack21" else "annotations") / video.split
    if kind != "posetrack17":
        write_posetrack18(top / f"{video.stem}.json", table)
        return
    nothing = np.full((table.n_instances, 4), np.nan)
    table = replace(table, boxes=nothing, n_frames=None, image_size=None)
    if form == "json":
        write_annolist(top / f"{video.stem}.json", table)
    else:
        write_annolist_mat(top / f"{video.stem}.mat", table)


def _detect(
    video: _Place,
    truth: list[CrowdFrame],
    frames: list[int],
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    prefix: str,
) -> list[dict[str, object]]:
    """Return boxes as a detector would find them, in the form of the original's box files."""
    records = []
    for frame in frames:
        found = [
            (box + rng.normal(0, 0.03, 4) * box[[2, 3, 2, 3]], rng.uniform(0.6, 1))
            for box in truth[frame].boxes
        ]
        found = [pair for pair in found if rng.uniform() > 0.03]
        if rng.uniform() < 0.3:  # where there is nobody, with a low score
            corner = rng.uniform(0, 0.6, 2) * size[::-1]
            found.append((np.array([*corner, 0.15 * size[1], 0.35 * size[0]]), rng.uniform(0.02, 0.3)))
        for box, score in found:
            record: dict[str, object] = {"bbox": np.round(box, 2).tolist(), "score": round(float(score), 4)}
            record |= {"category_id": 1, "image_name": prefix + video.name(frame)}
            records.append(record | {"nframes": len(truth), "frame_id": frame + video.first})
    return records
