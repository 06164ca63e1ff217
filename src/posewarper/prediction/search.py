"""Where the one instance of a frame is that nobody knows yet: crops of several sizes all over the frame.

A network knows instances that about fill their crops. In the whole frame, squeezed into a crop, a small
animal is not seen, so the frame is looked at in ever smaller pieces that overlap, and what seems best in each
size is looked at again closer by.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from posewarper.structures import Floats
from posewarper.video.track_crops import SMALLEST_BOX, instance_boxes

# Sides of the pieces, as shares of the largest piece that fits into the frame; they overlap by a half.
_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25)
# The best pieces of each size that are looked at again: what is no instance scores well in many a crop, but
# not when it is looked at again in a crop of its own size.
_CLOSER = 4

# (n, 4) tight boxes xywh -> what a network sees in their crops: keypoints (n, K, 2) and maxima (n, K).
Look = Callable[[Floats], tuple[Floats, Floats]]


def find_instance(
    look: Look, image_size: tuple[int, int], aspect_ratio: float, *, keypoint_score: float, thorough: bool
) -> Floats:
    """Return the box (1, 4) xywh around what is most like an instance, (0, 4) where nothing is.

    Args:
        look: shows crops of the frame to the network, many at once.
        image_size: (height, width) of the frame.
        aspect_ratio: width divided by height of crops.
        keypoint_score: maxima from which keypoints count.
        thorough: look at the pieces too, and not at the whole frame alone.
    """
    height, width = image_size
    levels = [np.array([[-0.5, -0.5, width, height]])]
    levels += frame_pieces(image_size, aspect_ratio) if thorough else []
    points, maxima = look(np.concatenate(levels))
    score, first, chosen = maxima.mean(1), 0, []
    for level in levels:
        chosen += (first + np.argsort(-score[first : first + len(level)], kind="stable")[:_CLOSER]).tolist()
        first += len(level)
    closer = _boxes_around(points[chosen], maxima[chosen], keypoint_score)
    if not len(closer):
        return closer
    points, maxima = look(closer)
    best = [int(maxima.mean(1).argmax())]
    return _boxes_around(points[best], maxima[best], keypoint_score)


def frame_pieces(image_size: tuple[int, int], aspect_ratio: float) -> list[Floats]:
    """Return boxes (n, 4) xywh that cover a frame (height, width), for each size, the largest first."""
    height, width = image_size
    largest = min(width, height * aspect_ratio)
    levels = []
    for share in _SHARES:
        w, h = largest * share, largest * share / aspect_ratio
        if min(w, h) >= 2 * SMALLEST_BOX:
            rows, columns = _starts(height, h), _starts(width, w)
            levels.append(np.array([[x, y, w, h] for y in rows for x in columns]))
    return levels


def _starts(length: int, piece: float) -> Floats:
    """Return where pieces begin that cover a side of the frame and overlap by a half or more."""
    count = int(np.ceil(2 * (length - piece) / piece - 1e-9)) + 1
    return np.linspace(-0.5, length - 0.5 - piece, count)


def _boxes_around(points: Floats, maxima: Floats, keypoint_score: float) -> Floats:
    """Return boxes around the keypoints that the network is sure of, without those that have none."""
    sure = maxima >= np.maximum(keypoint_score, 0.5 * maxima.max(1, keepdims=True))
    boxes = instance_boxes(np.where(sure[..., None], points, np.nan))
    return boxes[np.isfinite(boxes).all(1)]
