"""One labelled frame's instances, carried to other frames along optical flow, or left where they are."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from torchvision.models.optical_flow import RAFT

from posewarper.crops import Image
from posewarper.inference.label_warping import Carried, InstanceCrops
from posewarper.motion.flow import Flow, dense_flow, sample_flow, to_grey, working_scale
from posewarper.motion.raft import raft_flow
from posewarper.structures import Floats, is_there

_PAPER_UNIT = 200.0  # pixels, in which the scale of a crop is given
# RAFT compares every place with every other: its memory grows with the fourth power of the side.
_RAFT_LONGEST_SIDE = 960


def carry_by_copying(keypoints: Floats, n_frames: int) -> Carried:
    """Return labels (n, K, 2) where they are, on ``n_frames`` frames, with score 1."""
    points = np.repeat(keypoints[None], n_frames, axis=0)
    return Carried(points, _ones(points))


def carry_by_flow(
    labelled: Image,
    others: Iterable[Image],
    keypoints: Floats,
    where: InstanceCrops,
    *,
    subject: float,
    raft: RAFT | None = None,
    cycle: bool = False,
) -> Carried:
    """Carry labels along the flow from their frame directly to each other frame.

    Args:
        labelled: (H, W, 3) uint8 RGB.
        others: m images of the same size.
        keypoints: (n, K, 2) labels in image pixels.
        where: crops of the instances, for the unit of the cycle.
        subject: longer side of a typical instance in pixels, which sets the resolution of the flow.
        raft: computes the flow; dense inverse search (DIS) if left out.
        cycle: also carry back, along the flow from the other frame.

    Returns:
        Points, with score 1.
    """
    factor = working_scale(labelled.shape[:2], subject)
    if raft is None:
        shrink, flow_between = to_grey, dense_flow
    else:
        factor = min(factor, _RAFT_LONGEST_SIDE / max(labelled.shape[:2]))
        shrink, flow_between = _shrink, lambda a, b: raft_flow(raft, a, b)
    start = shrink(labelled, factor)
    sides = _PAPER_UNIT * where.scales.max(axis=-1)
    points, shares = [], []
    for image in others:
        end = shrink(image, factor)
        points.append(_move(keypoints, flow_between(start, end), labelled.shape))
        if cycle:
            back = _move(points[-1], flow_between(end, start), labelled.shape)
            shares.append(np.linalg.norm(back - keypoints, axis=-1) / sides[:, None])
    moved = np.stack(points)
    return Carried(moved, _ones(moved), np.stack(shares) if cycle else None)


def _move(points: Floats, flow: Flow, shape: tuple[int, ...]) -> Floats:
    """Move points in pixels of an image of ``shape`` along a flow that may be smaller."""
    # Sizes are whole numbers, so the scale differs a little by axis. Pixel edges lie on pixel edges.
    scale = np.array([flow.shape[1] / shape[1], flow.shape[0] / shape[0]])
    return points + sample_flow(flow, (points + 0.5) * scale - 0.5) / scale


def _shrink(image: Image, factor: float) -> Image:
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    if size == image.shape[1::-1]:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _ones(points: Floats) -> Floats:
    return np.where(is_there(points), 1.0, np.nan)
