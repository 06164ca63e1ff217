"""Random crops: rotation, scale, shift, mirror, half of the body, colour."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posewarper.config import FitConfig
from posewarper.crops import Image, crop_image, flip_keypoints
from posewarper.frames import Region
from posewarper.geometry import crop_transform, keypoint_boxes, pad_box
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats

# A half of the body is shown alone only if it has more than this many labelled keypoints.
_HALF_BODY_KEYPOINTS = 2


@dataclass(frozen=True)
class Draw:
    """One outcome of the random choices, to be applied to one crop or to both crops of a pair.

    Args:
        rotation: degrees, counter-clockwise as seen.
        scale: factor on the size of the box.
        shift: (2,) displacement of the box as a share of its size.
        flip: mirror left to right.
        gain: (3,) factor on red, green and blue.
        lift: added to all colours, from -255 to 255.
    """

    rotation: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    lift: float = 0.0


def draw(config: FitConfig, rng: np.random.Generator, strength: float = 1.0) -> Draw:
    """Draw rotation, scale, shift, mirror and colours; ``strength`` scales the geometric ones."""
    turned = rng.random() < 0.6
    angle = rng.uniform(-1, 1) * config.rotation * strength
    shift = rng.uniform(-1, 1, 2) * config.shift * strength
    common, single = rng.normal(0, 0.15), rng.normal(0, 0.05, 3)
    gain = np.clip(1 + common + single, 0.5, 1.6)
    return Draw(
        rotation=float(angle) if turned else 0.0,
        scale=float(1 + rng.uniform(-1, 1) * config.scale * strength),
        shift=(float(shift[0]), float(shift[1])),
        flip=bool(rng.random() < config.flip),
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        lift=float(rng.normal(0, 12)),
    )


def jitter(base: Draw, config: FitConfig, rng: np.random.Generator, strength: float) -> Draw:
    """Return ``base`` with a small further rotation, scale and shift, and colours of its own."""
    extra = draw(config, rng, strength)
    return replace(
        extra,
        rotation=base.rotation + extra.rotation,
        scale=base.scale * extra.scale,
        shift=(base.shift[0] + extra.shift[0], base.shift[1] + extra.shift[1]),
        flip=base.flip,
    )


@dataclass(frozen=True)
class Sample:
    """A crop with what is known of it.

    Args:
        image: (h, w, 3) uint8 RGB.
        keypoints: (K, 2) xy in crop pixels, NaN where there is no label.
        visibility: (K,) as in labels.
    """

    image: Image
    keypoints: Floats
    visibility: NDArray[np.uint8]


def half_body_box(region: Region, skeleton: Skeleton, rng: np.random.Generator) -> Floats | None:
    """Return the padded box (4,) around the upper or the lower body, or None if it has too few keypoints."""
    for part in rng.permutation(2):
        names = list(skeleton.halves[part])
        shown = region.keypoints[names][region.visibility[names] > 0]
        if len(shown) > _HALF_BODY_KEYPOINTS:
            box = keypoint_boxes(shown)
            smallest = region.box[3] / 4
            size = np.maximum(box[2:], smallest)
            box = np.concatenate([box[:2] + box[2:] / 2 - size / 2, size])
            return pad_box(box, aspect_ratio=region.box[2] / region.box[3], padding=1.5)
    return None


def cut_sample(
    region: Region, choice: Draw, skeleton: Skeleton, size: tuple[int, int], box: Floats | None = None
) -> Sample:
    """Cut the crop that a draw describes.

    Args:
        region: the piece of the frame.
        choice: the draw.
        skeleton: for the mirror image.
        size: (height, width) of the crop.
        box: (4,) padded box in region pixels in place of the region's own.
    """
    box = region.box if box is None else box
    grown = box[2:] * choice.scale
    centre = box[:2] + box[2:] * (0.5 + np.array(choice.shift))
    transform = crop_transform(np.concatenate([centre - grown / 2, grown]), size, rotation=choice.rotation)
    image = crop_image(region.image, transform)
    keypoints, visibility = transform.to_crop(region.keypoints), region.visibility
    if choice.flip:
        image = image[:, ::-1]
        keypoints, visibility = flip_keypoints(keypoints, visibility, skeleton, size[1])
    coloured = image * np.array(choice.gain, np.float32) + np.float32(choice.lift)
    return Sample(np.clip(coloured, 0, 255).astype(np.uint8), keypoints, visibility)
