"""Pictures of training samples: what a network was shown, what it should say, and what it said."""

from __future__ import annotations

import os

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.crops import Image
from posewarper.errors import OutputError
from posewarper.heatmaps import paper_argmax
from posewarper.reporting.overlay import Colour, draw_pose, write_picture, write_text
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats

_CROP = 240  # height of a crop in the picture, in pixels
_GAP, _TITLE = 6, 34
_BACKGROUND: Colour = (30, 32, 36)
_PLATE: Colour = (235, 235, 235)
_LABELLED: Colour = (255, 215, 0)


def write_debug_picture(
    path: str | os.PathLike[str],
    images: ArrayLike,
    target: ArrayLike,
    predicted: ArrayLike,
    weights: ArrayLike,
    skeleton: Skeleton,
    *,
    most: int = 8,
) -> None:
    """Write one picture (.png or .jpg), a row for each sample.

    A row shows the crop with the label's keypoints, the crop with the predicted ones, of a pair the neighbour
    as well, and then the heatmaps of each keypoint on the crop: the label's above, the prediction's below. A
    frame in yellow says that the keypoint counts. Predicted keypoints that do not count are left out.

    Args:
        path: where to write.
        images: (n, F, h, w, 3) uint8 RGB, the labelled frame first.
        target: (n, K, H, W) the label's heatmaps.
        predicted: (n, K, H, W) the network's heatmaps.
        weights: (n, K), above 0 where a keypoint counts.
        skeleton: the K keypoints.
        most: samples to show.

    Raises:
        OutputError: if there is nothing to show, the place cannot be written, or its name is not that of a
            picture.
    """
    crops = np.asarray(images, np.uint8)[:most]
    labels, said = (np.asarray(maps, np.float64)[:most] for maps in (target, predicted))
    counts = np.asarray(weights)[:most] > 0
    if not len(crops):
        raise OutputError("there are no samples to show", path=path, mend="give at least one")
    rows = [_draw_row(crops[n], labels[n], said[n], counts[n], skeleton) for n in range(len(crops))]
    width = max(row.shape[1] for row in rows)
    picture = np.concatenate([_draw_titles(crops, skeleton, width), *rows])
    write_picture(path, picture)


def _sizes(crops: NDArray[np.uint8]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (width, height) of crops and of heatmaps in the picture."""
    height, width = crops.shape[-3:-1]
    half = (_CROP - _GAP) // 2
    return (round(_CROP * width / height), _CROP), (round(half * width / height), half)


def _draw_titles(crops: NDArray[np.uint8], skeleton: Skeleton, width: int) -> Image:
    (across, _), (narrow, _) = _sizes(crops)
    titles = np.full((_TITLE, width, 3), _BACKGROUND, np.uint8)
    left = _GAP
    for title in ["label", "prediction", "neighbour"][: crops.shape[1] + 1]:
        write_text(titles, title, (left, 6), 13, _PLATE)
        left += across + _GAP
    for name in skeleton.names:
        short = name if len(name) <= narrow // 8 else f"{name[: narrow // 8 - 1]}."
        write_text(titles, short.encode("ascii", "replace").decode(), (left, 6), 12, _PLATE)
        left += narrow + _GAP
    return titles


def _draw_row(
    crops: NDArray[np.uint8],
    target: Floats,
    predicted: Floats,
    counts: NDArray[np.bool_],
    skeleton: Skeleton,
) -> Image:
    large, small = _sizes(crops)
    cells: list[Image] = []
    for maps in (target, predicted):
        points, scores = _points(maps, counts, crops.shape[1:3], large)
        cells.append(draw_pose(_resized(crops[0], large), points, skeleton, scores=scores))
    cells += [_resized(crop, large) for crop in crops[1:2]]
    picture = _resized(crops[0], small)
    for k in range(len(skeleton)):
        tiles = [_draw_map(picture, maps[k]) for maps in (target, predicted)]
        if counts[k]:
            for tile in tiles:
                cv2.rectangle(tile, (0, 0), (small[0] - 1, small[1] - 1), _LABELLED, 1)
        gap = np.full((_CROP - 2 * small[1], small[0], 3), _BACKGROUND, np.uint8)
        cells.append(np.concatenate([tiles[0], gap, tiles[1]]))
    space = np.full((_CROP, _GAP, 3), _BACKGROUND, np.uint8)
    row = np.concatenate([part for cell in cells for part in (space, cell)] + [space], axis=1)
    return np.concatenate([row, np.full((_GAP, row.shape[1], 3), _BACKGROUND, np.uint8)])


def _points(
    maps: Floats, counts: NDArray[np.bool_], crop_size: tuple[int, ...], large: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return the peaks (K, 2) in pixels of the large crop, NaN for what does not count, and scores (K,)."""
    points, scores = paper_argmax(maps[None])
    stride = np.array([large[0] / maps.shape[2], large[1] / maps.shape[1]])
    shown = counts & (scores[0] > 0)
    return np.where(shown[:, None], (points[0] + 0.5) * stride - 0.5, np.nan), np.clip(scores[0], 0, 1)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _draw_map(picture: Image, heatmap: Floats) -> Image:
    """Return a heatmap in colours from blue (0 and below) to red (1 and above) over a crop."""
    height, width = picture.shape[:2]
    levels = np.clip(np.nan_to_num(heatmap) * 255, 0, 255).astype(np.uint8)
    large = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    coloured = cv2.cvtColor(cv2.applyColorMap(large, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.addWeighted(coloured, 0.7, picture, 0.3, 0), np.uint8)
