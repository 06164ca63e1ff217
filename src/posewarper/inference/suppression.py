"""Suppression of doubles: of instances that lie on one another, only the best is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.inference.similarity import box_overlap, confident, shared_similarity
from posewarper.structures import Floats

DOUBLE_THRESHOLD = 0.9


def suppress_doubles(similarity: Floats, scores: Floats, threshold: float) -> NDArray[np.bool_]:
    """Return which instances stay when each, best first, removes those that are more similar than allowed.

    Args:
        similarity: (n, n), 1 for equal instances, such as object keypoint similarity; a row says how similar
            the others are to the instance.
        scores: (n,); of equal scores the earlier instance goes first.
        threshold: instances with a similarity above it are doubles.

    Example:
        >>> similarity = np.array([[1, 0.95, 0.1], [0.95, 1, 0.1], [0.1, 0.1, 1]])
        >>> suppress_doubles(similarity, np.array([0.5, 0.8, 0.3]), threshold=0.9)
        array([False,  True,  True])
    """
    stays = np.ones(len(scores), bool)
    for best in np.argsort(-scores, kind="stable"):
        if stays[best]:
            doubles = similarity[best] > threshold
            doubles[best] = False
            stays &= ~doubles
    return stays


def single_poses(
    keypoints: Floats,
    keypoint_scores: Floats,
    boxes: Floats,
    scores: Floats,
    sigmas: ArrayLike,
    *,
    threshold: float = DOUBLE_THRESHOLD,
    keypoint_threshold: float = 0.2,
) -> NDArray[np.bool_]:
    """Return which poses (n,) of one frame stay when doubles of better ones are removed.

    Each pose, best first, removes those that it explains: their object keypoint similarity to it, over all
    of their own confident keypoints, is above the threshold. A keypoint that it lacks counts as 0, so that a
    part of a body does not remove the whole, and somebody who stands half behind another stays. A pose
    without any confident keypoint is judged by the overlap of its box (intersection over union) with the
    same threshold.

    Args:
        keypoints: (n, K, 2) xy in pixels, NaN where there is none.
        keypoint_scores: (n, K).
        boxes: (n, 4) xywh in pixels, from which the areas are taken.
        scores: (n,) of the instances; of equal scores the earlier instance is the better.
        sigmas: (K,) how far keypoints scatter, as a share of the square root of the area
            (:func:`posewarper.evaluation.oks.usual_sigmas`).
        threshold: similarity above which a pose is a double. At 0.9 all keypoints lie within about one
            labeller's deviation of each other, which two people who cross do not come to.
        keypoint_threshold: score from which a keypoint is confident.

    Example:
        >>> pose = np.array([[10.0, 10.0], [20.0, 50.0]])
        >>> keypoints, boxes = np.stack([pose, pose + 0.2, pose + 20]), np.tile([5.0, 5, 20, 50], (3, 1))
        >>> single_poses(keypoints, np.ones((3, 2)), boxes, np.array([0.7, 0.8, 0.6]), [0.05, 0.05])
        array([False,  True,  True])
    """
    sure = confident(keypoints, keypoint_scores, keypoint_threshold)
    shown = np.where(sure[..., None], keypoints, np.nan)
    alike, n_shared = shared_similarity(shown, boxes, shown, boxes, np.asarray(sigmas, np.float64))
    n_sure = sure.sum(-1)
    explained = alike * n_shared / np.maximum(n_sure, 1)
    return suppress_doubles(
        np.where(n_sure > 0, explained, box_overlap(boxes, boxes)), np.asarray(scores, np.float64), threshold
    )
