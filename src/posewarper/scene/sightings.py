"""What a detector and a pose network might say of a made-up crowd: with noise, gaps and inventions.

It stands in for predictions where tracks are tested: people who cross are hidden, wholly or in part, the
keypoints of the hidden are drawn to those of the person in front, and the order of the instances is chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posewarper.scene.crowd import Crowd, CrowdFrame, tell_crowd
from posewarper.structures import Floats, Ints

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
