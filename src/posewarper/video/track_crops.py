"""From a clip to crops: where each track's crop lies on each frame, and cutting it out.

Training and inference share this. A crop follows its track: the box comes from the labels, interpolated in
time and corrected by where optical flow says that the keypoints went, so that a track cannot leave its crop
unnoticed. A pair of frames therefore shares the crop's framing of the subject, not its place in the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posewarper.crops import Image, smooth_crop
from posewarper.geometry import CropTransform, crop_transform, keypoint_boxes, pad_box
from posewarper.structures import Floats, Ints, Track, is_there
from posewarper.video.source import Video

# Boxes of labels are kept at least this many pixels large, so that a lone keypoint gets a crop too.
_SMALLEST_BOX = 16.0


def without_strays(track: Track, image_size: tuple[int, int]) -> Track:
    """Return the labels (of images ``(height, width)``) without the keypoints that lie outside of the image.

    Such a label is kept in the result as it was given, but a slip of the mouse must not blow up the crops.
    """
    limits = np.array([image_size[1], image_size[0]]) - 0.5
    with np.errstate(invalid="ignore"):
        inside = ((track.keypoints >= -0.5) & (track.keypoints <= limits)).all(-1)
    return replace(track, visibility=np.where(inside, track.visibility, 0))


def instance_boxes(keypoints: Floats, boxes: Floats | None = None) -> Floats:
    """Return (t, 4) xywh around the keypoints (t, K, 2), at least 16 pixels a side; NaN without keypoints.

    Args:
        keypoints: xy in pixels, NaN where there is none.
        boxes: (t, 4) given boxes; they serve where there are fewer than two keypoints to go by.
    """
    tight = keypoint_boxes(keypoints)
    if boxes is not None:
        few = is_there(keypoints).sum(-1) < 2
        given = is_there(boxes) & (boxes[:, 2:] > 0).all(-1)
        tight = np.where((few & given)[:, None], boxes, tight)
    centre = tight[:, :2] + tight[:, 2:] / 2
    size = np.maximum(tight[:, 2:], _SMALLEST_BOX)
    return np.concatenate([centre - size / 2, size], axis=1)


def _fill(values: Floats, frames: Ints, known: Ints, missing: float) -> Floats:
    # Linear in time between the known rows, held at the ends.
    good = np.isfinite(values)
    return np.interp(frames, known[good], values[good]) if good.any() else np.full(len(frames), missing)


def track_boxes(track: Track, frames: Ints, rough: Floats, aspect_ratio: float) -> Floats:
    """Return the padded boxes of a track on every frame asked for.

    The size is the labels' size interpolated in time. The centre is the interpolated labels' centre, moved
    by the median over keypoints of how far ``rough`` lies from the interpolated keypoints: a few keypoints
    that optical flow has lost do not move the crop.

    Args:
        track: its labels.
        frames: (t,) rising frame indices.
        rough: (t, K, 2) rough positions, NaN where unknown.
        aspect_ratio: width divided by height of the crop.

    Returns:
        (t, 4) xywh in pixels, grown to the aspect ratio and padded by 1.25.
    """
    # A keypoint that one label lacks does not shrink the crop there: it is filled in from the others.
    filled = np.where(np.isnan(track.keypoints), _interpolated(track, track.frames), track.keypoints)
    boxes = instance_boxes(filled, track.boxes)
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    middle = np.stack([_fill(centre[:, n], frames, track.frames, 0.0) for n in (0, 1)], axis=1)
    size = np.stack([_fill(boxes[:, n], frames, track.frames, _SMALLEST_BOX) for n in (2, 3)], axis=1)
    off = rough - _interpolated(track, frames)
    some = is_there(off).any(-1)
    drift = np.zeros_like(middle)
    drift[some] = np.nanmedian(off[some], axis=1)
    middle = middle + drift
    return pad_box(np.concatenate([middle - size / 2, size], axis=1), aspect_ratio=aspect_ratio)


def _interpolated(track: Track, frames: Ints) -> Floats:
    """Return (t, K, 2): straight lines between each keypoint's own labels, held at the ends."""
    per_keypoint = [
        np.stack([_fill(k[:, n], frames, track.frames, np.nan) for n in (0, 1)], axis=1)
        for k in np.moveaxis(track.keypoints, 1, 0)
    ]
    return np.stack(per_keypoint, axis=1)


@dataclass(frozen=True)
class TrackCrops:
    """Crops of one track on rising frames.

    Args:
        frames: (t,) frame indices.
        images: (t, h, w, 3) uint8 RGB.
        transforms: t maps from image to crop pixels.
    """

    frames: Ints
    images: NDArray[np.uint8]
    transforms: tuple[CropTransform, ...]


def cut_track(video: Video, frames: Ints, boxes: Floats, size: tuple[int, int]) -> TrackCrops:
    """Cut one crop (height, width) = ``size`` out of every frame asked for; ``boxes`` (t, 4) are padded."""
    transforms = tuple(crop_transform(box, size) for box in boxes)
    images = np.empty((len(frames), *size, 3), np.uint8)
    for n, (_, image) in enumerate(video.frames(int(f) for f in frames)):
        images[n] = smooth_crop(image, transforms[n])
    return TrackCrops(np.asarray(frames), images, transforms)


@dataclass(frozen=True)
class Region:
    """A piece of a frame around one instance, larger than its crop, from which augmented crops are cut.

    Args:
        frame: frame index.
        track: track id.
        image: (h, w, 3) uint8 RGB.
        box: (4,) padded box xywh in pixels of ``image``.
        keypoints: (K, 2) xy in pixels of ``image``, NaN where there is no label.
        visibility: (K,) as in labels.
    """

    frame: int
    track: int
    image: Image
    box: Floats
    keypoints: Floats
    visibility: NDArray[np.uint8]


@dataclass(frozen=True)
class RegionRequest:
    """What is to be cut: frame, track, padded box xywh in image pixels, keypoints (K, 2), visibility (K,)."""

    frame: int
    track: int
    box: Floats
    keypoints: Floats
    visibility: NDArray[np.uint8]


def read_regions(
    video: Video, requests: Sequence[RegionRequest], crop_size: tuple[int, int], margin: float
) -> Iterator[Region]:
    """Cut regions ``margin`` times as large as their boxes, at the resolution of the crops.

    Args:
        video: the clip.
        requests: sorted by frame.
        crop_size: (height, width) of the crops to be cut later.
        margin: how much larger than the box a region is.
    """
    size = round(crop_size[0] * margin), round(crop_size[1] * margin)
    frames = sorted({r.frame for r in requests})
    by_frame: dict[int, list[RegionRequest]] = {f: [] for f in frames}
    for request in requests:
        by_frame[request.frame].append(request)
    for index, image in video.frames(frames):
        for request in by_frame[index]:
            x, y, w, h = request.box
            grown = np.array([x + w / 2 - w * margin / 2, y + h / 2 - h * margin / 2, w * margin, h * margin])
            transform = crop_transform(grown, size)
            # Corners in the region are half a pixel outside of its outermost centres.
            low = transform.to_crop(request.box[:2])
            high = transform.to_crop(request.box[:2] + request.box[2:])
            yield Region(
                frame=index,
                track=request.track,
                image=smooth_crop(image, transform),
                box=np.concatenate([low, high - low]),
                keypoints=transform.to_crop(request.keypoints),
                visibility=request.visibility,
            )
