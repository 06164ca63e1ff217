"""Pictures of what networks do: heatmaps in training, and the offsets that a warp head predicts.

An offset tells from where a dilation reads a keypoint's heatmap. A head that has learned to follow motion
reads a target frame's peak from the source frame's peak: the arrows lead from the ring to the bright spot. A
head without training has offsets of zero, and no arrows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from posewarper.crops import Image
from posewarper.errors import ModelError, OutputError
from posewarper.heatmaps import decode, encode, paper_argmax
from posewarper.model.deformable import TAPS
from posewarper.model.network import PoseWarper
from posewarper.reporting.overlay import Colour, draw_pose, write_picture, write_text
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Ints

_GAP, _TITLE = 6, 34  # pixels between cells and above them
_CROP = 240  # height of a crop in the picture, in pixels
_CELL, _NAMES = 132, 150  # side of a cell with offsets, and room for the keypoints' names beside them
_REACH = 11  # heatmap pixels from the middle of a cell with offsets to its border
_BACKGROUND: Colour = (30, 32, 36)
_PLATE: Colour = (235, 235, 235)
_LABELLED: Colour = (255, 215, 0)
_RING: Colour = (64, 170, 255)
_ARROW: Colour = (255, 140, 40)
_DRAWN = 0.3  # arrows are drawn where the target's heatmap is above this share of its peak


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
        OutputError: if there is nothing to show, or the picture cannot be written there.
    """
    crops = np.asarray(images, np.uint8)[:most]
    labels, said = (np.asarray(maps, np.float64)[:most] for maps in (target, predicted))
    counts = np.asarray(weights)[:most] > 0
    if not len(crops):
        raise OutputError("there are no samples to show", path=path, fix="give at least one")
    height, width = crops.shape[-3:-1]
    half = (_CROP - _GAP) // 2
    large, small = (round(_CROP * width / height), _CROP), (round(half * width / height), half)
    names = [n if len(n) <= small[0] // 8 else f"{n[: small[0] // 8 - 1]}." for n in skeleton.names]
    titles = [(title, large[0], 13) for title in ("label", "prediction", "neighbour")[: crops.shape[1] + 1]]
    titles += [(name, small[0], 12) for name in names]
    rows = []
    for own, *both, counting in zip(crops, labels, said, counts, strict=True):
        poses = [_points(maps, counting, large) for maps in both]
        cells = [draw_pose(_resized(own[0], large), xy, skeleton, scores=scores) for xy, scores in poses]
        cells += [_resized(crop, large) for crop in own[1:2]]
        picture = _resized(own[0], small)
        for k in range(len(skeleton)):
            column = np.full((_CROP, small[0], 3), _BACKGROUND, np.uint8)
            for maps, tile in zip(both, (column[:half], column[-half:]), strict=True):
                tile[:] = _draw_map(picture, maps[k])
                if counting[k]:
                    cv2.rectangle(tile, (0, 0), (small[0] - 1, half - 1), _LABELLED, 1)
            cells.append(column)
        rows.append(cells)
    write_picture(path, _lay_out(titles, rows, _GAP))


def _lay_out(titles: Sequence[tuple[str, int, int]], rows: Sequence[Sequence[Image]], left: int) -> Image:
    """Return cells in rows of one height; each column has a title, a width and the height of its title."""
    pitch = len(rows[0][0]) + _GAP
    width = left + sum(across + _GAP for _, across, _ in titles)
    picture = np.full((_TITLE + len(rows) * pitch, width, 3), _BACKGROUND, np.uint8)
    for n, (title, across, text_height) in enumerate(titles):
        _write(picture, title, (left, 6), text_height)
        for m, row in enumerate(rows):
            top = _TITLE + m * pitch
            picture[top : top + len(row[n]), left : left + across] = row[n]
        left += across + _GAP
    return picture


def _write(picture: Image, text: str, corner: tuple[int, int], height: int) -> None:
    # The font has no other letters than ASCII.
    write_text(picture, text.encode("ascii", "replace").decode(), corner, height, _PLATE)


def _points(maps: Floats, counts: NDArray[np.bool_], large: tuple[int, int]) -> tuple[Floats, Floats]:
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


MADE_UP_STEP = 3.0
"""How far each keypoint moves between the made-up frames, in heatmap pixels."""


@dataclass(frozen=True)
class OffsetProbe:
    """What a warp head does to a pair of frames, in heatmap pixels."""

    names: tuple[str, ...]  # K keypoint names
    dilations: tuple[int, ...]  # D dilations
    source: Floats  # (K, h, w) heatmaps of the source frame, which are moved
    target: Floats  # (K, h, w) heatmaps of the target frame
    output: Floats  # (K, h, w) the source's heatmaps, warped
    # (D, K, 2, h, w) xy: how far from each pixel a dilation reads, the mean over its nine taps weighted by
    # the kernel with which the keypoint reads its own heatmap.
    reads: Floats


def made_up_pair(model: PoseWarper) -> tuple[Tensor, Tensor]:
    """Return heatmaps (1, K, h, w) of two frames: Gaussians side by side, each of which moves its own way.

    The first keypoint moves to the right by :data:`MADE_UP_STEP` heatmap pixels, each next one in a direction
    turned a little further, until all have been.
    """
    height, width = model.spec.heatmap_size
    count = len(model.spec.skeleton)
    columns = max(1, round(np.sqrt(count * width / height)))
    rows = -(-count // columns)
    places = np.arange(count)
    x = (places % columns + 0.5) * width / columns - 0.5
    y = (places // columns + 0.5) * height / rows - 0.5
    start = np.stack([x, y], -1)
    angles = 2 * np.pi * places / count
    step = MADE_UP_STEP * np.stack([np.cos(angles), np.sin(angles)], -1)
    kind = model.final_layer.weight
    source, target = (
        torch.from_numpy(encode(points, (height, width), model.spec.sigma))[None].to(kind)
        for points in (start - step / 2, start + step / 2)
    )
    return source, target


def probe_offsets(model: PoseWarper, source: Tensor, target: Tensor) -> OffsetProbe:
    """Return what the warp head does to heatmaps (1, K, h, w) of a source and a target frame."""
    head = model.warp_head
    keypoints = source.shape[1]
    with torch.inference_mode():
        features = head.features(source, target)
        output = model.warp(source, source=source, target=target)
        reads = []
        for convolution, kernel in zip(head.offsets, head.kernels, strict=True):
            # Offsets are y before x, for each keypoint and tap.
            offsets = convolution(features)[0].unflatten(0, (keypoints, TAPS, 2)).flip(2)
            own = torch.stack([kernel[k, k].flatten() for k in range(keypoints)]).abs()
            shares = own / own.sum(1, keepdim=True).clamp(min=1e-12)
            reads.append((offsets * shares[:, :, None, None, None]).sum(1))
    maps = (source[0], target[0], output[0], torch.stack(reads))
    arrays = (values.double().cpu().numpy() for values in maps)
    return OffsetProbe(model.spec.skeleton.names, head.dilations, *arrays)


def tabulate_offsets(probe: OffsetProbe) -> list[dict[str, Any]]:
    """Return one row a keypoint: how far its peak moved, how far the head moved it, and the offsets.

    All are (x, y) in heatmap pixels from the source to the target; the offsets of a dilation are the mean
    around the target's peak, turned round, so that a head that follows motion shows that motion.
    """
    (source, heights), (target, others), (output, _) = map(decode, (probe.source, probe.target, probe.output))
    weights = _around_peaks(probe.target)
    means = -(probe.reads * weights[None, :, None]).sum((-2, -1)).transpose(1, 0, 2)
    rows = []
    for k, name in enumerate(probe.names):
        seen = heights[k] > 0 and others[k] > 0
        row = {"keypoint": name, "moved by": _pair(target[k] - source[k]) if seen else "not seen"}
        row["warped by"] = _pair(output[k] - source[k]) if seen else ""
        row |= {f"offset d={d}": _pair(mean) for d, mean in zip(probe.dilations, means[k], strict=True)}
        rows.append(row)
    return rows


def _around_peaks(heatmaps: Floats) -> Floats:
    """Return shares (K, h, w) that sum to 1, of the pixels near each peak; all zero where nothing is seen."""
    peaks = heatmaps.max((-2, -1), keepdims=True)
    near = np.where((heatmaps > _DRAWN * peaks) & (peaks > 0), heatmaps, 0.0)
    return near / np.maximum(near.sum((-2, -1), keepdims=True), 1e-12)


def _pair(xy: Floats) -> str:
    x, y = np.round(xy, 1) + 0.0  # no minus before a zero
    return f"{x:+.1f}, {y:+.1f}"


def write_offset_picture(path: str | os.PathLike[str], probe: OffsetProbe) -> None:
    """Write a picture (.png or .jpg): a row for each keypoint, a column for each dilation.

    Each cell shows the source's heatmap, a ring at the target's peak, and arrows from pixels around that peak
    to where the dilation reads. The last column is the warped heatmap.

    Raises:
        OutputError: if the place cannot be written, or its name is not that of a picture.
    """
    titles = ["source", *(f"dilation {d}" for d in probe.dilations), "warped"]
    rows = [_draw_offsets(probe, k) for k in range(len(probe.names))]
    picture = _lay_out([(title, _CELL, 13) for title in titles], rows, _NAMES)
    for k, name in enumerate(probe.names):
        short = name if len(name) <= 16 else f"{name[:14]}.."
        _write(picture, short, (_GAP, _TITLE + k * (_CELL + _GAP) + _CELL // 3), 13)
    write_picture(path, picture)


def _draw_offsets(probe: OffsetProbe, k: int) -> list[Image]:
    (source, target), (height, _) = decode(np.stack([probe.source[k], probe.target[k]]))
    middle = np.round((source + target) / 2 if height > 0 else target)
    cells = [_close_up(probe.source[k], middle)]
    _draw_arrows(cells[0], source[None], (target - source)[None], middle)
    # Every second pixel both ways, so that the arrows stay apart.
    ys, xs = 2 * np.array(np.nonzero(_around_peaks(probe.target)[k, ::2, ::2]))
    for reads in probe.reads[:, k]:
        cell = _close_up(probe.source[k], middle)
        _draw_arrows(cell, np.stack([xs, ys], -1), reads[:, ys, xs].T, middle)
        cells.append(cell)
    cells.append(_close_up(probe.output[k], middle))
    for cell in cells:
        cv2.circle(cell, _on_cell(target, middle), 6 * 16, _RING, 1, cv2.LINE_AA, 4)
    return cells


def _close_up(heatmap: Floats, middle: Floats) -> Image:
    """Return the part of a heatmap around a place, large, its peak white; beyond the map it is dark blue."""
    x, y = middle.astype(int)
    padded = np.pad(heatmap, _REACH + 1, constant_values=np.nan)
    part = padded[y + 1 : y + 2 * _REACH + 2, x + 1 : x + 2 * _REACH + 2]
    grey = np.nan_to_num(np.clip(part / max(heatmap.max(), 1e-6), 0, 1) * 255)
    image = np.repeat(grey[..., None], 3, -1)
    image[np.isnan(part)] = (20, 24, 60)
    return cv2.resize(image, (_CELL, _CELL), interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def _on_cell(point: Floats | Ints, middle: Floats) -> tuple[int, int]:
    # In sixteenths of a pixel, as cv2 takes them.
    x, y = ((np.asarray(point) - middle + _REACH + 0.5) * _CELL / (2 * _REACH + 1) - 0.5) * 16
    return round(float(np.clip(x, -1e5, 1e5))), round(float(np.clip(y, -1e5, 1e5)))


def _draw_arrows(cell: Image, points: Floats | Ints, steps: Floats, middle: Floats) -> None:
    for point, step in zip(points, steps, strict=True):
        start, end = _on_cell(point, middle), _on_cell(point + step, middle)
        cv2.line(cell, start, end, _ARROW, 1, cv2.LINE_AA, 4)
        cv2.circle(cell, end, 24, _ARROW, -1, cv2.LINE_AA, 4)


def check_head(model: PoseWarper, path: str | os.PathLike[str]) -> None:
    """Refuse to show the offsets of a head that has none.

    Raises:
        ModelError: if the warp head was not trained.
    """
    if not model.spec.trained.get("warp"):
        raise ModelError(
            "the warp head of this checkpoint was not trained: all its offsets are zero",
            path=path,
            expected="a checkpoint whose head was trained",
            got=f"trained: {', '.join(model.spec.trained) or 'nothing'}",
            fix="train the head, or take a PoseWarper's checkpoint rather than a pose network's",
        )
