"""The paper's random crops: half of the body, scale, rotation, mirror image, and the neighbour of a pair.

The distributions are the original's; the order of the draws is our own. Each sample of each epoch has a
generator of its own, so that samples do not depend on who loads them (in the original, workers could draw the
same numbers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import is_there

_PAPER_UNIT = 200.0  # pixels in one unit of the paper's scale
_HALF_BODY_PADDING = 1.5
# Half of the body is the upper one if a normal draw lies below this: in 69 percent of the cases.
_UPPER_BELOW = 0.5
_FEWEST_TO_PREFER = 3


@dataclass(frozen=True)
class PaperAugmentation:
    """Settings of the paper's random crops.

    Args:
        scale: standard deviation of the factor on the crop's size, which stays within this of 1.
        rotation: standard deviation in degrees; angles stay within twice this.
        rotated: share of the samples that are rotated.
        flipped: share of the samples that are mirrored.
        half_body: share of the samples reduced to half of the body.
        half_body_keypoints: only samples with more visible keypoints than this are.
        reach: the neighbour of a pair lies up to this many frames to either side, 0 included.
    """

    scale: float = 0.35
    rotation: float = 45.0
    rotated: float = 0.6
    flipped: float = 0.5
    half_body: float = 0.3
    half_body_keypoints: int = 8
    reach: int = 2


@dataclass(frozen=True)
class Framing:
    """Where one sample's crops lie, after all random choices.

    Args:
        center: (2,) float32 xy of the crop's centre, in pixels of the image, of its mirror image if ``flip``.
        scale: (2,) float32 width and height of the crop in units of 200 pixels.
        rotation: degrees, counter-clockwise as seen, after the mirroring.
        flip: the image is mirrored before it is cut.
        offset: frames from the sample's own frame to its neighbour.
    """

    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    rotation: float = 0.0
    flip: bool = False
    offset: int = 0


def sample_generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """Return the source of chance of one sample in one epoch."""
    return np.random.default_rng((seed, epoch, sample))


def half_body(
    keypoints: ArrayLike, normal: float, aspect_ratio: float, skeleton: Skeleton = POSETRACK
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return centre and scale of the crop around the upper or the lower body.

    The upper body is taken if ``normal`` lies below 0.5 and more than two of its keypoints are visible;
    otherwise the lower body if more than two of its are, else the upper.

    Args:
        keypoints: (K, 2) xy in pixels, NaN where there is none.
        normal: a draw from the normal distribution.
        aspect_ratio: width divided by height of the crop.
        skeleton: says which keypoints are the upper body.

    Returns:
        The mean (2,) of the keypoints chosen and the scale (2,) in units of 200 pixels, padded by 1.5, both
        float32; None with fewer than two keypoints.
    """
    keypoints = np.asarray(keypoints, np.float64)
    there = is_there(keypoints)
    # In float32 from here on, as the original.
    upper, lower = (keypoints[[k for k in half if there[k]]].astype(np.float32) for half in skeleton.halves)
    prefers_upper = normal < _UPPER_BELOW and len(upper) >= _FEWEST_TO_PREFER
    chosen = upper if prefers_upper or len(lower) < _FEWEST_TO_PREFER else lower
    if len(chosen) < 2:
        return None
    width, height = chosen.max(0) - chosen.min(0)
    ratio = np.float32(aspect_ratio)
    if width > ratio * height:
        height = width / ratio
    elif width < ratio * height:
        width = height * ratio
    scale = np.array([width, height], np.float32) / np.float32(_PAPER_UNIT)
    return chosen.mean(0), scale * np.float32(_HALF_BODY_PADDING)


def draw_framing(
    keypoints: ArrayLike,
    center: ArrayLike,
    scale: ArrayLike,
    aspect_ratio: float,
    image_width: int,
    settings: PaperAugmentation,
    rng: np.random.Generator,
    skeleton: Skeleton = POSETRACK,
) -> Framing:
    """Draw the framing of a training sample.

    Args:
        keypoints: (K, 2) xy in pixels, NaN where there is none.
        center: (2,) of the sample's own crop.
        scale: (2,) of the sample's own crop, in units of 200 pixels.
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
