"""Poses drawn on pictures: one pose, a video of all tracks, and a sheet of sample frames."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.errors import LabelsError, OutputError
from posewarper.files import replacing
from posewarper.formats.labels import check_image_size
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Poses, Progress, Track, is_there, silent
from posewarper.video.source import Video, ahead
from posewarper.video.writing import write_video

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

LEFT: Colour = (64, 170, 255)
RIGHT: Colour = (255, 140, 40)
# The middle of the body and the tag bear the colour of the track.
TRACK_COLOURS: tuple[Colour, ...] = (
    *((120, 230, 100), (240, 110, 220), (250, 230, 80), (90, 235, 225), (255, 105, 105), (190, 150, 255)),
)
_DARK: Colour = (16, 16, 16)
_WHITE: Colour = (255, 255, 255)
_LABEL: Colour = (255, 215, 0)
_SHIFT = 4  # cv2 takes coordinates in sixteenths of a pixel
_OPACITIES = (0.3, 0.5, 0.75, 1.0)  # for scores below 1/4, 1/2, 3/4 and above


def draw_pose(
    image: Image,
    keypoints: ArrayLike,
    skeleton: Skeleton,
    *,
    scores: ArrayLike | None = None,
    visibility: ArrayLike | None = None,
    colour: Colour = TRACK_COLOURS[0],
    thickness: int | None = None,
) -> Image:
    """Return a copy of the image with one instance drawn on it, limbs and dots scaled to its size.

    The left side is blue, the right side orange. What has a low score is more transparent; keypoints that
    are labelled as hidden are rings.

    Args:
        image: (H, W, 3) uint8 RGB.
        keypoints: (K, 2) xy in pixels, the centre of the top-left pixel at (0, 0); NaN is left out.
        skeleton: which keypoints are joined, and which is on which side.
        scores: (K,) from 0 to 1; left out, all count as 1.
        visibility: (K,) as in labels: 2 visible, 1 hidden, 0 none.
        colour: RGB of what lies in the middle.
        thickness: pixels of a limb's width; left out, it follows from the size of the instance.
    """
    drawn = image.copy()
    _draw_upon(
        drawn,
        keypoints,
        skeleton,
        scores=scores,
        visibility=visibility,
        colour=colour,
        thickness=thickness,
    )
    return drawn


def _draw_upon(
    drawn: Image,
    keypoints: ArrayLike,
    skeleton: Skeleton,
    *,
    scores: ArrayLike | None,
    visibility: ArrayLike | None,
    colour: Colour,
    thickness: int | None,
) -> None:
    """Draw one instance on the image itself; arguments as for :func:`draw_pose`."""
    points = np.asarray(keypoints, np.float64)
    shown = np.full(len(points), 2) if visibility is None else np.asarray(visibility)
    there: NDArray[np.bool_] = is_there(points) & (shown > 0)
    if not there.any():
        return
    score = np.ones(len(points)) if scores is None else np.nan_to_num(np.asarray(scores, np.float64))
    level = np.clip(score * len(_OPACITIES), 0, len(_OPACITIES) - 1).astype(int)
    sides = keypoint_sides(skeleton)
    colours = [LEFT if side == "left" else RIGHT if side == "right" else colour for side in sides]
    thickness = thickness or _thickness(float(np.ptp(points[there], axis=0).max()), drawn.shape)
    region, points = _region(drawn, points, there, 4 * thickness + 4)
    if not region.size:
        return
    places = _fixed(points)
    for n, opacity in enumerate(_OPACITIES):
        if not np.any(there & (level == n)):
            continue
        layer = region.copy() if opacity < 1 else region
        for a, b in skeleton.edges:
            if there[a] and there[b] and min(level[a], level[b]) == n:
                limb = colours[a] if sides[a] == sides[b] else colour
                _draw_limb(layer, places[a], places[b], limb, thickness)
        for k in np.flatnonzero(there & (level == n)):
            _draw_dot(layer, places[k], colours[k], 1.1 * thickness + 0.9, ring=bool(shown[k] == 1))
        if opacity < 1:
            region[:] = cv2.addWeighted(layer, opacity, region, 1 - opacity, 0)


def keypoint_sides(skeleton: Skeleton) -> list[str]:
    """Return the side of each keypoint: of a mirror pair, by the letter in which their names first differ."""
    sides = ["middle"] * len(skeleton)
    for a, b in skeleton.flip_pairs:
        letters = zip(skeleton.names[a].lower(), skeleton.names[b].lower(), strict=False)
        swapped = next((pair for pair in letters if pair[0] != pair[1]), None) == ("r", "l")
        sides[a], sides[b] = ("right", "left") if swapped else ("left", "right")
    return sides


def _thickness(extent: float, shape: tuple[int, ...]) -> int:
    # A lone keypoint has no size: then that of the image serves.
    return int(np.clip(round((extent or max(shape) / 4) / 110), 1, 10))


def _region(image: Image, points: Floats, there: NDArray[np.bool_], margin: int) -> tuple[Image, Floats]:
    """Return the part of the image (a view) in which the pose lies, and the points in its coordinates."""
    height, width = image.shape[:2]
    low = np.clip(np.floor(points[there].min(0)) - margin, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(points[there].max(0)) + margin + 1, 0, (width, height)).astype(int)
    return image[low[1] : high[1], low[0] : high[0]], points - low


def _fixed(points: Floats) -> list[tuple[int, int]]:
    # cv2 counts pixel centres as whole numbers, as we do; far points are kept within its integers.
    scaled = np.rint(np.nan_to_num(points) * (1 << _SHIFT))
    return [(x, y) for x, y in np.clip(scaled, -(2**24), 2**24).astype(int).tolist()]


def _draw_limb(image: Image, a: tuple[int, int], b: tuple[int, int], colour: Colour, thickness: int) -> None:
    if thickness > 1:
        cv2.line(image, a, b, _DARK, thickness + 2, cv2.LINE_AA, _SHIFT)
    cv2.line(image, a, b, colour, thickness, cv2.LINE_AA, _SHIFT)


def _draw_dot(image: Image, centre: tuple[int, int], colour: Colour, radius: float, *, ring: bool) -> None:
    discs = [(radius + 1, _DARK), (radius, colour), (radius * 0.55, _DARK)]
    for extent, fill in discs if ring else discs[:2]:
        cv2.circle(image, centre, round(extent * (1 << _SHIFT)), fill, -1, cv2.LINE_AA, _SHIFT)


def write_text(
    image: Image, text: str, corner: Sequence[float] | Floats, height: int, colour: Colour
) -> None:
    """Write dark text on a plate of the given colour, whose top-left corner is kept inside the image."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, height / 30
    (width, tall), base = cv2.getTextSize(text, font, scale, 1)
    pad = max(2, height // 5)
    plate = width + 2 * pad, tall + base + 2 * pad
    x = int(np.clip(corner[0], 0, max(0, image.shape[1] - plate[0])))
    y = int(np.clip(corner[1], 0, max(0, image.shape[0] - plate[1])))
    cv2.rectangle(image, (x, y), (x + plate[0] - 1, y + plate[1] - 1), colour, -1)
    origin = x + pad, y + pad + tall
    cv2.putText(image, text, origin, font, scale, _DARK, max(1, height // 14), cv2.LINE_AA)


def _scale_for(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return the (height, width) to draw in: at most ``max_side``, and even, as video formats require."""
    factor = min(1.0, max_side / max(size))
    if factor == 1.0:
        return size
    return max(2, round(size[0] * factor / 2) * 2), max(2, round(size[1] * factor / 2) * 2)


def instances_on(poses: Poses, frame: int) -> Iterator[tuple[int, Track, int, Colour]]:
    """Yield what is on a frame: a track's id, the track, its row for the frame, and its colour."""
    for n, (track_id, track) in enumerate(poses.tracks.items()):
        row = int(np.searchsorted(track.frames, frame))
        if row < len(track.frames) and track.frames[row] == frame:
            yield track_id, track, row, TRACK_COLOURS[n % len(TRACK_COLOURS)]


def _drawn_frame(image: Image, i: int, poses: Poses, extents: Mapping[int, float]) -> Image:
    """Draw every instance on a frame, shrunk already, with its track's id and a badge; returns the frame."""
    size = image.shape[:2]
    factor = np.array([size[1] / poses.image_size[1], size[0] / poses.image_size[0]])
    text_height = max(12, round(max(size) / 50))
    tags: list[tuple[str, Floats, Colour]] = []
    for track_id, track, row, colour in instances_on(poses, i):
        # Pixel centres lie on whole numbers, so half a pixel comes off before scaling.
        points = (track.keypoints[row] + 0.5) * factor - 0.5
        _draw_upon(
            image,
            points,
            poses.skeleton,
            scores=track.keypoint_scores[row],
            visibility=track.visibility[row],
            colour=colour,
            thickness=_thickness(extents[track_id] * factor[0], size),
        )
        there = points[is_there(points)]
        if len(there):
            corner = np.array([there[:, 0].max() + text_height / 2, there[:, 1].min() - text_height])
            tags.append((str(track_id), np.rint(corner), colour))
    for text, corner, colour in tags:
        write_text(image, text, corner, text_height, colour)
    badge, plate = (f"{i} label", _LABEL) if i in poses.labelled_frames else (str(i), _WHITE)
    write_text(image, badge, (0, 0), text_height, plate)
    return image


def _extents(poses: Poses) -> dict[int, float]:
    """Return how large each track's instance is, in pixels: so that its limbs do not change width in time."""
    extents = {}
    for track_id, track in poses.tracks.items():
        some = track.keypoints[np.isfinite(track.keypoints).all(-1).any(-1)]
        longer = (np.nanmax(some, axis=1) - np.nanmin(some, axis=1)).max(-1) if len(some) else np.zeros(1)
        extents[track_id] = float(np.median(longer))
    return extents


def write_overlay(
    path: str | os.PathLike[str],
    video: Video,
    poses: Poses,
    *,
    span: range | None = None,
    progress: Progress = silent,
    max_side: int = 1080,
) -> None:
    """Write a video (.mp4) with the poses of all tracks drawn on it, frame by frame.

    Each instance bears the id of its track; every frame has its index in the corner, and labelled frames
    a golden badge there. With a ``span`` it holds those frames alone. Pictures whose longer side has more
    than ``max_side`` pixels become smaller.

    Raises:
        LabelsError: if the poses belong to another image size.
        OutputError: if the place cannot be written.
    """
    check_image_size(poses.image_size, video.image_size, what="poses", path=video.path)
    size, extents = _scale_for(video.image_size, max_side), _extents(poses)

    def drawn() -> Iterator[Image]:
        wanted = span or range(video.n_frames)
        for n, (i, image) in enumerate(ahead((i, video.shrunk(i, size)) for i in wanted), start=1):
            yield _drawn_frame(image, i, poses, extents)
            progress("overlay", n, len(wanted))

    write_video(path, drawn(), fps=video.fps, preset="superfast", crf=21)


def write_sheet(
    path: str | os.PathLike[str],
    video: Video,
    poses: Poses,
    frames: Sequence[int],
    *,
    max_side: int = 1600,
) -> None:
    """Write one picture (.png or .jpg) with the given frames side by side, poses drawn on them.

    The frames come in the order of reading; the sheet's longer side has at most ``max_side`` pixels.

    Raises:
        LabelsError: if the poses belong to another image size, or no frame is asked for.
        OutputError: if the place cannot be written, or its name is not that of a picture.
    """
    check_picture_name(path)
    check_image_size(poses.image_size, video.image_size, what="poses", path=video.path)
    if not len(frames):
        raise LabelsError("no frames to show", expected="at least one frame index", got=0, fix="name frames")
    height, width = video.image_size
    # As many columns as make the frames largest.
    columns = min(
        range(1, len(frames) + 1), key=lambda c: (max(-(-len(frames) // c) * height, c * width), -c)
    )
    rows = -(-len(frames) // columns)
    side = int(max_side * max(height, width) / max(rows * height, columns * width))
    cell = _scale_for((height, width), max(side, 2))
    extents = _extents(poses)
    sheet = np.full((rows * cell[0], columns * cell[1], 3), 32, np.uint8)
    for n, i in enumerate(frames):
        y, x = n // columns * cell[0], n % columns * cell[1]
        sheet[y : y + cell[0], x : x + cell[1]] = _drawn_frame(video.shrunk(i, cell), i, poses, extents)
    write_picture(path, sheet)


def check_picture_name(path: str | os.PathLike[str]) -> None:
    """Raise an :class:`OutputError` for a name that does not end in .png, .jpg or .jpeg."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise OutputError(
            "cannot write this kind of picture",
            path=path,
            expected=".png or .jpg",
            got=suffix or "no suffix",
            fix="change the name",
        )


def write_picture(path: str | os.PathLike[str], image: Image) -> None:
    """Write an image (H, W, 3) uint8 RGB as .png or .jpg, as the name says.

    Raises:
        OutputError: if the place cannot be written, or its name is not that of a picture.
    """
    check_picture_name(path)
    _, data = cv2.imencode(Path(path).suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())
