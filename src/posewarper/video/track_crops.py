"""Boxes around labelled instances, and what is cut out of a video around one: crops, and larger regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posewarper.crops import Image, smooth_crop
from posewarper.geometry import CropTransform, crop_transform, keypoint_boxes
from posewarper.structures import Floats, Ints, Track, is_there
from posewarper.video.source import Video

# Boxes of labels are kept at least this many pixels large, so that a lone keypoint gets a crop too.
SMALLEST_BOX = 16.0


def without_strays(track: Track, image_size: tuple[int, int]) -> Track:
    """Return the labels (of images ``(height, width)``) without the keypoints that lie outside of the image.

    Such a label is kept in the result as it was given, but a slip of the mouse must not blow up the crops.
    The keypoint counts as absent there, as nobody can guess where else it is.
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
    size = np.maximum(tight[:, 2:], SMALLEST_BOX)
    return np.concatenate([centre - size / 2, size], axis=1)


def instance_sizes(track: Track) -> Floats:
    """Return (t,) the longer side of each label's box in pixels, NaN without keypoints."""
    return instance_boxes(track.keypoints, track.boxes)[:, 2:].max(1)


@dataclass(frozen=True)
class TrackCrops:
    """Crops of one track on rising frames (t,)."""

    frames: Ints
    images: NDArray[np.uint8]  # (t, h, w, 3) RGB
    transforms: tuple[CropTransform, ...]  # t maps from image to crop pixels


def cut_track(video: Video, frames: Ints, boxes: Floats, size: tuple[int, int]) -> TrackCrops:
    """Cut one crop (height, width) = ``size`` out of every frame asked for; ``boxes`` (t, 4) are padded."""
    transforms = tuple(crop_transform(box, size) for box in boxes)
    images = np.empty((len(frames), *size, 3), np.uint8)
    for n, (_, image) in enumerate(video.frames(int(f) for f in frames)):
        images[n] = smooth_crop(image, transforms[n])
    return TrackCrops(np.asarray(frames), images, transforms)


@dataclass(frozen=True)
class RegionRequest:
    """What is to be cut out of a video around one instance: a labelled track on one frame."""

    frame: int
    track: int
    box: Floats  # (4,) padded xywh in pixels
    keypoints: Floats  # (K, 2) xy in pixels, NaN where there is no label
    visibility: NDArray[np.uint8]  # (K,) as in labels


@dataclass(frozen=True)
class Region(RegionRequest):
    """A piece of a frame around one instance, larger than its crop, from which augmented crops are cut.

    Box and keypoints are those of the request, in pixels of the ``image`` (h, w, 3) uint8 RGB.
    """

    image: Image


def read_regions(
    video: Video, requests: Sequence[RegionRequest], crop_size: tuple[int, int], margin: float
) -> Iterator[Region]:
    """Cut regions ``margin`` times as large as their boxes, at the resolution of crops (height, width)."""
    size = round(crop_size[0] * margin), round(crop_size[1] * margin)
    by_frame: dict[int, list[RegionRequest]] = {}
    for request in requests:
        by_frame.setdefault(request.frame, []).append(request)
    for index, image in video.frames(sorted(by_frame)):
        for request in by_frame[index]:
            x, y, w, h = request.box
            grown = np.array([x + w / 2 - w * margin / 2, y + h / 2 - h * margin / 2, w * margin, h * margin])
            transform = crop_transform(grown, size)
            # Corners in the region are half a pixel outside of its outermost centres.
            low = transform.to_crop(request.box[:2])
            high = transform.to_crop(request.box[:2] + request.box[2:])
            yield Region(
                index,
                request.track,
                np.concatenate([low, high - low]),
                transform.to_crop(request.keypoints),
                request.visibility,
                smooth_crop(image, transform),
            )
