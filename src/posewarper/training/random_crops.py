"""Whole samples as the original's dataset makes them: crops under one transform, keypoints, targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posewarper.crops import IMAGENET_MEAN, IMAGENET_STD, Image, crop_image, flip_keypoints, normalise
from posewarper.geometry import crop_transform, keypoint_boxes, pad_box, paper_crop_transform
from posewarper.heatmaps import paper_encode
from posewarper.options import FitConfig
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import Floats, is_there
from posewarper.video.track_crops import Region

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


@dataclass(frozen=True)
class TargetSpec:
    """Sizes of crops and targets.

    Args:
        crop_size: (height, width) of the crops in pixels.
        heatmap_size: (height, width) of the targets in heatmap pixels.
        sigma: of the targets' Gaussians, in heatmap pixels, a whole number.
        keypoint_weights: K factors on the weights, such as 1.5 for wrists; None for none.
        mean: (3,) of red, green and blue, in units of 255.
        std: (3,) of red, green and blue, in units of 255.
    """

    crop_size: tuple[int, int] = (384, 288)
    heatmap_size: tuple[int, int] = (96, 72)
    sigma: int = 3
    keypoint_weights: tuple[float, ...] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class PaperSample:
    """One instance in one frame, seen in that frame and in others.

    Args:
        inputs: (n, 3, h, w) float32, normalised crops, the sample's own frame first.
        keypoints: (K, 2) xy in crop pixels, NaN where there is none.
        target: (K, H, W) float32, zero where there is no keypoint.
        weights: (K,) float32, 0 where there is no keypoint or it lies far outside.
    """

    inputs: NDArray[np.float32]
    keypoints: Floats
    target: NDArray[np.float32]
    weights: NDArray[np.float32]


def cut_inputs(frames: Sequence[Image], framing: Framing, spec: TargetSpec) -> NDArray[np.float32]:
    """Cut and normalise the same crop of several frames.

    Args:
        frames: n images (H, W, 3) uint8 RGB, mirrored here if the framing says so.
        framing: where the crop lies.
        spec: its size and the normalisation.

    Returns:
        (n, 3, h, w) float32.
    """
    height, width = spec.crop_size
    transform = paper_crop_transform(framing.center, framing.scale, framing.rotation, (width, height))
    seen = [np.ascontiguousarray(frame[:, ::-1]) if framing.flip else frame for frame in frames]
    return normalise(np.stack([crop_image(frame, transform) for frame in seen]), spec.mean, spec.std)


def cut_paper_sample(
    frames: Sequence[Image],
    keypoints: ArrayLike,
    framing: Framing,
    spec: TargetSpec,
    skeleton: Skeleton = POSETRACK,
) -> PaperSample:
    """Make a sample: the mirroring first, then one transform for all crops and the keypoints.

    Args:
        frames: images (H, W, 3) uint8 RGB of one size, the sample's own first.
        keypoints: (K, 2) xy in pixels of the first image, NaN where there is none.
        framing: as drawn by :func:`posewarper.training.random_crops.draw_framing`, or the sample's own.
        spec: sizes and normalisation.
        skeleton: for the mirror image.
    """
    points = np.asarray(keypoints, np.float64)
    if framing.flip:
        points, _ = flip_keypoints(points, is_there(points), skeleton, frames[0].shape[1])
    height, width = spec.crop_size
    transform = paper_crop_transform(framing.center, framing.scale, framing.rotation, (width, height))
    points = transform.to_crop(points)
    target, weights = paper_encode(
        points,
        is_there(points),
        (width, height),
        spec.heatmap_size[::-1],
        spec.sigma,
        keypoint_weights=spec.keypoint_weights,
    )
    return PaperSample(cut_inputs(frames, framing, spec), points, target, weights[:, 0])
