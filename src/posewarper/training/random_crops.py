"""Random crops: one way to cut and mirror them, and two policies that draw them.

For one clip (:func:`draw`, :func:`cut_sample`) a crop is cut and then mirrored. The recipes draw by the
paper's distributions (:func:`draw_framing`) and, as the original, mirror the frame before the cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.crops import Image, crop_image, flip_keypoints, instance_transform, smooth_crop
from posewarper.geometry import CropTransform, crop_transform, keypoint_boxes, pad_box
from posewarper.options import AugmentationSettings, FitConfig
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Floats, is_there
from posewarper.video.track_crops import Region

# Half of the body is shown alone only if it has more than so many labelled keypoints, and with so much room.
_HALF_BODY_KEYPOINTS, _HALF_BODY_PADDING = 2, 1.5


class Sample(NamedTuple):
    """A picture, either a frame or a crop, with what is known of one instance in it."""

    image: Image  # (h, w, 3) uint8 RGB
    keypoints: Floats  # (K, 2) xy in pixels of the image, NaN where there is no label
    visibility: NDArray[np.uint8]  # (K,) as in labels


def cut(sample: Sample, transform: CropTransform, *, smooth: bool = False) -> Sample:
    """Cut a crop out of a picture, without aliasing if ``smooth``; the keypoints move with it."""
    image = (smooth_crop if smooth else crop_image)(sample.image, transform)
    return Sample(image, transform.to_crop(sample.keypoints), sample.visibility)


def mirror(sample: Sample, skeleton: Skeleton) -> Sample:
    """Mirror a picture left to right; keypoints take the names that they have there."""
    image = np.asarray(cv2.flip(sample.image, 1), np.uint8)
    return Sample(image, *flip_keypoints(sample.keypoints, sample.visibility, skeleton, image.shape[1]))


@dataclass(frozen=True)
class Draw:
    """One outcome of the random choices, to be applied to one crop or to both crops of a pair."""

    rotation: float = 0.0  # degrees, counter-clockwise as seen
    scale: float = 1.0  # factor on the size of the box
    shift: tuple[float, float] = (0.0, 0.0)  # displacement of the box as a share of its size
    flip: bool = False  # mirror left to right
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors on red, green and blue
    lift: float = 0.0  # added to all colours, from -255 to 255


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


def half_body_box(region: Region, skeleton: Skeleton, rng: np.random.Generator) -> Floats | None:
    """Return the padded box (4,) around the upper or the lower body, or None if it has too few keypoints."""
    for part in rng.permutation(2):
        names = list(skeleton.halves[part])
        shown = region.keypoints[names][region.visibility[names] > 0]
        if len(shown) > _HALF_BODY_KEYPOINTS:
            box = keypoint_boxes(shown)
            size = np.maximum(box[2:], region.box[3] / 4)
            box = np.concatenate([box[:2] + box[2:] / 2 - size / 2, size])
            return pad_box(box, aspect_ratio=region.box[2] / region.box[3], padding=_HALF_BODY_PADDING)
    return None


def cut_sample(
    region: Region, choice: Draw, skeleton: Skeleton, size: tuple[int, int], box: Floats | None = None
) -> Sample:
    """Cut the crop (height, width) = ``size`` of a region that a draw describes.

    ``box`` (4,) is a padded box in region pixels in place of the region's own.
    """
    box = region.box if box is None else box
    grown = box[2:] * choice.scale
    centre = box[:2] + box[2:] * (0.5 + np.array(choice.shift))
    transform = crop_transform(np.concatenate([centre - grown / 2, grown]), size, rotation=choice.rotation)
    sample = cut(Sample(region.image, region.keypoints, region.visibility), transform)
    if choice.flip:
        sample = mirror(sample, skeleton)
    coloured = sample.image * np.array(choice.gain, np.float32) + np.float32(choice.lift)
    return sample._replace(image=np.clip(coloured, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Framing:
    """Where one sample's crops lie, after all random choices.

    ``center`` (2,) float32 is the xy of the crop's centre in pixels of the image, of its mirror image if
    ``flip``; ``scale`` (2,) float32 is the crop's width and height in units of 200 pixels.
    """

    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    rotation: float = 0.0  # degrees, counter-clockwise as seen, after the mirroring
    flip: bool = False  # the image is mirrored before it is cut
    offset: int = 0  # frames from the sample's own frame to its neighbour

    def cut(self, frame: Sample, size: tuple[int, int], skeleton: Skeleton, *, paper: bool) -> Sample:
        """Cut the crop (height, width) = ``size``: the mirroring first, as the original does, then the cut.

        With ``paper`` the crop is the original's to the last digit. Otherwise it is one as for own clips: of
        the same box, cut without aliasing; see :func:`posewarper.crops.instance_transform`.
        """
        transform = instance_transform(self.center, self.scale, size, rotation=self.rotation, exact=not paper)
        return cut(mirror(frame, skeleton) if self.flip else frame, transform, smooth=not paper)


def sample_generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """Return the source of chance of one sample in one epoch."""
    return np.random.default_rng((seed, epoch, sample))


def half_body(
    keypoints: ArrayLike, normal: float, aspect_ratio: float, skeleton: Skeleton = POSETRACK
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return centre and scale of the crop around the upper or the lower body.

    The upper body is taken if ``normal`` lies below 0.5 (69 percent of the draws) and more than two of its
    keypoints are visible; otherwise the lower body if more than two of its are, else the upper.

    Args:
        keypoints: (K, 2) xy in pixels, NaN where there is none.
        normal: a draw from the normal distribution.
        aspect_ratio: width divided by height of the crop.
        skeleton: its ``halves`` are the upper and the lower body.

    Returns:
        The mean (2,) of the keypoints chosen and the scale (2,) in units of 200 pixels, padded by 1.5, both
        float32; None with fewer than two keypoints.
    """
    keypoints = np.asarray(keypoints, np.float64)
    there = is_there(keypoints)
    # In float32 from here on, as the original.
    upper, lower = (keypoints[[k for k in half if there[k]]].astype(np.float32) for half in skeleton.halves)
    prefers_upper = normal < 0.5 and len(upper) > _HALF_BODY_KEYPOINTS
    chosen = upper if prefers_upper or len(lower) <= _HALF_BODY_KEYPOINTS else lower
    if len(chosen) < 2:
        return None
    width, height = chosen.max(0) - chosen.min(0)
    ratio = np.float32(aspect_ratio)
    if width > ratio * height:
        height = width / ratio
    elif width < ratio * height:
        width = height * ratio
    scale = np.array([width, height], np.float32) / np.float32(200)
    return chosen.mean(0), scale * np.float32(_HALF_BODY_PADDING)


def draw_framing(
    keypoints: ArrayLike,
    center: ArrayLike,
    scale: ArrayLike,
    aspect_ratio: float,
    image_width: int,
    settings: AugmentationSettings,
    rng: np.random.Generator,
    skeleton: Skeleton = POSETRACK,
) -> Framing:
    """Draw the framing of a training sample.

    Args:
        keypoints: (K, 2) xy in pixels, NaN where there is none.
        center: (2,) of the sample's own crop in pixels.
        scale: (2,) of that crop in units of 200 pixels.
        aspect_ratio: width divided by height of the crop.
        image_width: in pixels.
        settings: the distributions.
        rng: the source of chance, see :func:`sample_generator`.
        skeleton: says which keypoints are the upper body.
    """
    center, scale = np.array(center, np.float32), np.array(scale, np.float32)
    chances, normals = rng.random(3), rng.standard_normal(3)
    offset = int(rng.integers(-settings.reach, settings.reach + 1))
    enough = int(is_there(np.asarray(keypoints, np.float64)).sum()) > settings.half_body_keypoints
    if enough and chances[0] < settings.half_body:
        half = half_body(keypoints, float(normals[0]), aspect_ratio, skeleton)
        center, scale = (center, scale) if half is None else half
    factor = np.clip(1 + normals[1] * settings.scale, 1 - settings.scale, 1 + settings.scale)
    angle = np.clip(normals[2] * settings.rotation, -2 * settings.rotation, 2 * settings.rotation)
    flip = bool(chances[2] < settings.flipped)
    if flip:
        center = np.array([image_width - 1 - center[0], center[1]], np.float32)
    return Framing(
        center,
        (scale * factor).astype(np.float32),
        float(angle) if chances[1] < settings.rotated else 0.0,
        flip,
        offset,
    )
