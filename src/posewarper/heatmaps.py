"""Heatmaps: keypoints in, targets out, and the way back, side by side.

Heatmap arrays are ``(..., K, h, w)``, points ``(x, y)`` in heatmap pixels with the centre of the top-left
pixel at (0, 0). :func:`encode` and :func:`decode` keep sub-pixel positions and undo each other;
:func:`paper_encode` and :func:`paper_decode` are those of the paper's code, which rounds positions to whole
heatmap pixels and moves the peak by a quarter of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Heatmaps = NDArray[np.float32]

_REACH = 3.0  # standard deviations beyond the map up to which a keypoint still leaves a trace
_NOTHING = 1e-18  # of a peak of 1; no loss in float32 sees it
_WINDOW = 5  # pixels across the window around a peak from which its sub-pixel position is read


def crop_to_heatmap(points: ArrayLike, stride: float) -> Floats:
    """Carry points (..., 2) from crop pixels to heatmap pixels, pixel edges on pixel edges.

    ``stride`` is crop width / heatmap width. The paper only divides by it, which shifts everything by half a
    heatmap pixel less half a crop pixel.
    """
    return (np.asarray(points, np.float64) + 0.5) / stride - 0.5


def heatmap_to_crop(points: ArrayLike, stride: float) -> Floats:
    """Carry points (..., 2) from heatmap pixels to crop pixels; the inverse of :func:`crop_to_heatmap`."""
    return (np.asarray(points, np.float64) + 0.5) * stride - 0.5


def udp_to_crop(points: ArrayLike, size: tuple[int, int], crop_size: tuple[int, int]) -> Floats:
    """Carry points (..., 2) from heatmap pixels to crop pixels, corner pixels on corner pixels.

    This is what unbiased data processing does (Huang et al., "The Devil is in the Details", CVPR 2020): the
    map's last pixel lies on the crop's last one, so a heatmap pixel is a little more than the stride.
    ``size`` and ``crop_size`` are (height, width).
    """
    return np.asarray(points, np.float64) * _udp_steps(size, crop_size)


def crop_to_udp(points: ArrayLike, size: tuple[int, int], crop_size: tuple[int, int]) -> Floats:
    """Carry points (..., 2) from crop pixels to heatmap pixels; the inverse of :func:`udp_to_crop`."""
    return np.asarray(points, np.float64) / _udp_steps(size, crop_size)


def _udp_steps(size: tuple[int, int], crop_size: tuple[int, int]) -> Floats:
    return (np.array(crop_size[::-1], np.float64) - 1) / (np.array(size[::-1], np.float64) - 1)


def encode(keypoints: ArrayLike, size: tuple[int, int], sigma: float) -> Heatmaps:
    """Draw an unrounded Gaussian of height 1 for every keypoint.

    Args:
        keypoints: (..., K, 2) xy in heatmap pixels, NaN where there is none.
        size: (height, width) of the maps.
        sigma: standard deviation in heatmap pixels.

    Returns:
        (..., K, h, w) float32; zero for a keypoint that is NaN or more than three sigma outside, and where a
        map is below 1e-18, nine sigma away.
    """
    keypoints = np.asarray(keypoints, np.float64)
    limits = np.array([size[1], size[0]]) - 0.5
    margin = _REACH * sigma
    with np.errstate(invalid="ignore"):
        near = np.all((keypoints >= -0.5 - margin) & (keypoints <= limits + margin), axis=-1, keepdims=True)
    centres = np.where(near, keypoints, 0.0)
    # A Gaussian is a product of one in x and one in y, which saves an exponential a pixel.
    across = np.exp(-((np.arange(size[1]) - centres[..., :1]) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(size[0]) - centres[..., 1:]) ** 2) / (2 * sigma**2)) * near
    maps = down.astype(np.float32)[..., :, None] * across.astype(np.float32)[..., None, :]
    # Numbers too small for float32's exponent, here or in gradients that they become part of, take some
    # processors many times as long.
    maps[maps < _NOTHING] = 0.0
    return maps


def decode(heatmaps: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Find the peak of every heatmap (..., K, h, w) to a fraction of a pixel.

    The values of 5 by 5 pixels around the highest pixel are summed over columns and over rows. A parabola is
    fitted to the logarithm of either profile by least squares, weighted by the squares of the values. On a
    Gaussian of any width this is exact, also beside the border.

    Returns:
        Points (..., K, 2) xy in heatmap pixels, never more than 1 from the highest pixel in x or y, and
        that pixel itself where the map is flat or nowhere positive; and scores (..., K), the value of the
        highest pixel as it is.
    """
    heatmaps = np.asarray(heatmaps)
    *leading, height, width = heatmaps.shape
    maps = heatmaps.reshape(-1, height, width)
    peaks, scores = _highest_pixels(maps)
    points = _refine(maps, np.arange(len(maps)), peaks)
    return points.reshape(*leading, 2), scores.reshape(leading)


def decode_peaks(heatmaps: NDArray[np.floating], n: int, least: float = 0.1) -> tuple[Floats, Floats]:
    """Find up to ``n`` peaks of every heatmap (..., K, h, w), refined as :func:`decode` does.

    A peak is a pixel above ``least`` that no other within two pixels exceeds.

    Returns:
        Points (..., K, n, 2) xy in heatmap pixels and scores (..., K, n), the higher ones first; NaN where a
        map has fewer peaks.
    """
    heatmaps = np.asarray(heatmaps)
    *leading, height, width = heatmaps.shape
    maps = heatmaps.reshape(-1, height, width)
    top = maximum_filter(maps, size=(1, _WINDOW, _WINDOW), mode="nearest")
    heights = np.where((maps >= top) & (maps > least), maps, -np.inf).reshape(len(maps), height * width)
    n_there = min(n, heights.shape[1])
    order = np.argsort(-heights, axis=1, kind="stable")[:, :n_there]
    scores = np.full((len(maps), n), np.nan)
    points = np.full((len(maps), n, 2), np.nan)
    which, slot = np.nonzero(np.isfinite(np.take_along_axis(heights, order, 1)))
    pixel = order[which, slot]
    peaks = np.stack([pixel % width, pixel // width], -1)
    scores[which, slot] = heights[which, pixel]
    points[which, slot] = _refine(maps, which, peaks)
    return points.reshape(*leading, n, 2), scores.reshape(*leading, n)


def _refine(maps: NDArray[np.floating], which: NDArray[np.int64], peaks: NDArray[np.int64]) -> Floats:
    # maps (M, h, w), which (N,) of them, peaks (N, 2) xy -> positions (N, 2) to a fraction of a pixel.
    rows = _window(peaks[:, 1], maps.shape[1])
    columns = _window(peaks[:, 0], maps.shape[2])
    values = maps[which[:, None, None], rows[:, :, None], columns[:, None, :]].astype(np.float64)
    x = _peak_of_profile(values.sum(1), columns, peaks[:, 0])
    return np.stack([x, _peak_of_profile(values.sum(2), rows, peaks[:, 1])], -1)


def _highest_pixels(maps: NDArray[np.floating]) -> tuple[NDArray[np.int64], Floats]:
    # (N, h, w) -> positions (N, 2) xy of the first maximum in row-major order, and its values (N,).
    flat = maps.reshape(len(maps), -1)
    index = flat.argmax(1)
    scores = flat[np.arange(len(flat)), index].astype(np.float64)
    return np.stack([index % maps.shape[2], index // maps.shape[2]], -1), scores


def _window(peaks: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    # (N,) peaks -> (N, n) positions around them; beside a border the window moves inwards and stays whole.
    n = min(_WINDOW, length)
    first = np.clip(peaks - n // 2, 0, length - n)
    return first[:, None] + np.arange(n)


def _peak_of_profile(profile: Floats, positions: NDArray[np.int64], peaks: NDArray[np.int64]) -> Floats:
    # profile, positions (N, n); peaks (N,) -> (N,) top of the parabola through the logarithms.
    pixel = peaks.astype(np.float64)
    if profile.shape[1] < 3:
        return pixel
    top = profile.max(1, keepdims=True)
    usable = (top > 0) & np.isfinite(profile).all(1, keepdims=True)
    share = np.where(usable, profile / np.where(usable, top, 1.0), 1.0)
    share = np.maximum(share, 1e-8)  # what is zero or negative has no logarithm, and next to no weight
    offset = positions - pixel[:, None]
    powers = np.stack([np.ones_like(offset), offset, offset**2], -1)
    weighted = powers * (share**2)[..., None]
    normal = np.swapaxes(weighted, 1, 2) @ powers
    right = np.swapaxes(weighted, 1, 2) @ np.log(share)[..., None]
    # A trace of ridge keeps the system solvable when only one or two values carry weight.
    _, slope, curvature = np.linalg.solve(normal + 1e-12 * np.eye(3), right)[..., 0].T
    bends = usable[:, 0] & (curvature < -1e-6)
    move = np.where(bends, -slope / np.where(bends, 2 * curvature, 1.0), 0.0)
    return pixel + np.clip(move, -1.0, 1.0)


def flip_heatmaps(heatmaps: torch.Tensor, flip_order: Sequence[int]) -> torch.Tensor:
    """Mirror heatmaps (..., K, h, w) left to right, each under the name that it has in the mirror image.

    ``flip_order`` is :attr:`posewarper.skeletons.Skeleton.flip_order`. Twice applied it gives back the input.
    """
    return heatmaps[..., list(flip_order), :, :].flip(-1)


def paper_encode(
    keypoints: ArrayLike,
    visibility: ArrayLike,
    image_size_wh: ArrayLike,
    heatmap_size_wh: ArrayLike,
    sigma: int,
    *,
    keypoint_weights: ArrayLike | None = None,
) -> tuple[Heatmaps, NDArray[np.float32]]:
    """Draw the paper's targets: Gaussians cut off at three sigma, centred on whole heatmap pixels.

    The centre is the position divided by the stride, plus 0.5, truncated towards zero. A blob that ends just
    before the first row or column is empty but keeps its weight; farther outside the weight is 0.

    Args:
        keypoints: (K, 2) xy in crop pixels; NaN counts as not visible.
        visibility: (K,) weight of each keypoint; a blob is drawn only if it is above 0.5.
        image_size_wh: (width, height) of the crop.
        heatmap_size_wh: (width, height) of the heatmaps.
        sigma: standard deviation in heatmap pixels, a whole number.
        keypoint_weights: (K,) factors on the weights, such as 1.5 for wrists; None for none.

    Returns:
        The target (K, h, w) and the weight (K, 1), both float32.
    """
    keypoints = np.asarray(keypoints, np.float64)
    width, height = (int(n) for n in np.asarray(heatmap_size_wh))
    stride = np.asarray(image_size_wh, np.float64) / np.array([width, height])
    there = np.all(np.isfinite(keypoints), axis=-1, keepdims=True)
    centres = np.trunc(np.where(there, keypoints, 0.0) / stride + 0.5)
    reach = 3 * int(sigma)
    outside = (centres - reach >= (width, height)) | (centres + reach + 1 < 0)
    inside = there[:, 0] & ~outside.any(-1)
    weights = np.where(inside, np.asarray(visibility, np.float32), 0).astype(np.float32)
    x = np.arange(width) - centres[:, None, :1]
    y = np.arange(height)[:, None] - centres[:, 1:, None]
    drawn = (np.abs(x) <= reach) & (np.abs(y) <= reach) & (weights > 0.5)[:, None, None]
    target = np.where(drawn, np.exp(-(x**2 + y**2) / (2.0 * int(sigma) ** 2)), 0).astype(np.float32)
    if keypoint_weights is not None:
        weights = weights * np.asarray(keypoint_weights, np.float32).reshape(-1)
    return target, weights[:, None]


def paper_argmax(heatmaps: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return the highest pixel of each map (B, K, h, w), as the paper does before its quarter-pixel shift.

    Returns:
        Points (B, K, 2) xy in heatmap pixels, the first in row-major order where values tie and (0, 0)
        where no value is positive; and the values (B, K).
    """
    heatmaps = np.asarray(heatmaps)
    *leading, height, width = heatmaps.shape
    peaks, scores = _highest_pixels(heatmaps.reshape(-1, height, width))
    points = np.where(scores[:, None] > 0, peaks, 0).astype(np.float64)
    return points.reshape(*leading, 2), scores.reshape(leading)


def paper_decode(heatmaps: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return the highest pixel of each map (B, K, h, w), moved 0.25 pixels towards its higher neighbours.

    The shift applies only if both coordinates are greater than 1 and less than the size minus 1.

    Returns:
        Points (B, K, 2) xy in heatmap pixels, carried to the image by
        :func:`posewarper.geometry.paper_points_to_image`; and the values (B, K).
    """
    heatmaps = np.asarray(heatmaps)
    points, scores = paper_argmax(heatmaps)
    height, width = heatmaps.shape[-2:]
    x, y = points.reshape(-1, 2).astype(np.int64).T
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    maps = heatmaps.reshape(-1, height, width)[inside]
    x, y, n = x[inside], y[inside], np.arange(len(maps))
    rise = np.stack([maps[n, y, x + 1] - maps[n, y, x - 1], maps[n, y + 1, x] - maps[n, y - 1, x]], -1)
    shift = np.zeros((len(inside), 2))
    shift[inside] = 0.25 * np.sign(rise)
    return points + shift.reshape(points.shape), scores
