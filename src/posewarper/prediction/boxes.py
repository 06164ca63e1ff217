"""Where to look for instances: given boxes, labels, the whole frame, earlier tracks, a detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from posewarper.crops import Image
from posewarper.errors import ConfigError, did_you_mean, wrong_type
from posewarper.model.pretrained import PathLike, load_torchvision
from posewarper.motion.interpolation import fill_in
from posewarper.prediction.tracker import Tracker
from posewarper.structures import Floats, Labels
from posewarper.video.track_crops import instance_boxes

NOBODY: Floats = np.zeros((0, 4))


@dataclass(frozen=True)
class BoxSource:
    """Finds the boxes of one frame after another."""

    known: Mapping[int, Floats] = field(default_factory=dict)  # frame index -> boxes (n, 4) xywh given
    detect: Callable[[Image], Floats] | None = None
    detect_every: int = 1  # frames from one detection to the next; between them tracks are followed
    first: int = 0  # the frame from which these count
    follows: bool = False  # boxes of frames without any come from the tracks' own previous poses
    whole_frame: bool = False  # whoever uses this has to look at the whole frame where nobody is known

    def find(self, frame: int, image: Image, new_scene: bool, tracker: Tracker) -> Floats:
        """Return the boxes of a frame, given the tracks of the frames before it."""
        if frame in self.known:
            return self.known[frame]
        if self.detect is not None and (new_scene or (frame - self.first) % self.detect_every == 0):
            return self.detect(image)
        if not self.follows:
            return NOBODY
        boxes = tracker.expected_boxes(frame)[1]
        return boxes if len(boxes) or self.detect is None else self.detect(image)


def boxes_of_arrays(given: object, n_frames: int | None) -> dict[int, Floats]:
    """Return the boxes (n, 4) of each frame that has any, from what Python code gives.

    Args:
        given: frame index -> boxes, or a list with the boxes of each frame from the first on; the boxes of a
            frame are (n, 4) xywh in pixels, or one (4,) xywh. An array of one box a frame is such a list.
        n_frames: frames of the video, None if unknown.

    Raises:
        ConfigError: if these are no such boxes, or a frame lies beyond the last one.
    """
    items = given.items() if isinstance(given, Mapping) else None
    if items is None:
        if not isinstance(given, list | tuple | np.ndarray):
            raise wrong_type(
                "the boxes", given, "a file, frame index -> (n, 4) xywh, or a list over the frames"
            )
        if n_frames is not None and len(given) != n_frames:
            raise ConfigError(
                "the list of boxes does not fit the video",
                expected=f"the boxes of each of its {n_frames} frames, (n, 4) or (4,) xywh",
                got=f"a list of {len(given)}",
                fix="give an entry for each frame ([] for none), or a dict: frame index -> boxes",
            )
        items = enumerate(given)
    found = {}
    for frame, own in items:
        try:
            boxes = np.asarray(own, np.float64)
            boxes = boxes.reshape(-1, 4) if boxes.ndim < 2 else boxes
        except (TypeError, ValueError):
            boxes = np.full((1, 4), np.nan)
        is_frame = isinstance(frame, int | np.integer) and 0 <= frame < (n_frames or frame + 1)
        if (
            not is_frame
            or boxes.shape[1:] != (4,)
            or not np.isfinite(boxes).all()
            or (boxes[:, 2:] <= 0).any()
        ):
            raise ConfigError(
                f"the boxes of frame {frame} are wrong",
                expected="a frame of the video, and (n, 4) left, top, width, height in pixels, sizes above 0",
                got=str(own)[:80],
                fix="correct them, or leave the frame out",
            )
        found[int(frame)] = boxes
    return found


def boxes_of_labels(labels: Labels, *, around_keypoints: bool = True) -> dict[int, Floats]:
    """Return the boxes around the labels of every labelled frame, by frame index.

    Boxes that the labels give serve where there are fewer than two keypoints to go by; without
    ``around_keypoints`` they serve everywhere. Keypoints that nobody has looked at are guessed.
    """
    found: dict[int, list[Floats]] = {int(frame): [] for frame in labels.labelled_frames}
    for track in labels.tracks.values():
        keypoints = fill_in(track).keypoints if around_keypoints else np.full_like(track.keypoints, np.nan)
        for frame, box in zip(track.frames.tolist(), instance_boxes(keypoints, track.boxes), strict=True):
            if np.isfinite(box).all():
                found.setdefault(frame, []).append(box)
    return {frame: np.array(boxes).reshape(-1, 4) for frame, boxes in found.items()}


DEFAULT_DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
# The batch normalisation of torchvision's weights for these adds nothing to the variance.
_WITHOUT_EPSILON = {
    f"{kind}_resnet50_fpn" for kind in ("fasterrcnn", "keypointrcnn", "maskrcnn", "retinanet")
}


@dataclass(frozen=True, eq=False)
class Detector:
    """A network that finds boxes, and what it calls them.

    Args:
        network: takes a list of (3, H, W) images from 0 to 1 and returns for each a dict of ``boxes`` (n, 4)
            (left, top, right, bottom, counted from the image's corner), ``labels`` (n,) and ``scores`` (n,).
        categories: name of each label, from 0 on; the first is the background.
    """

    network: nn.Module
    categories: tuple[str, ...]


def load_detector(
    name: str = DEFAULT_DETECTOR, weights: PathLike | None = None, device: torch.device | str = "cpu"
) -> Detector:
    """Return one of torchvision's detectors, by its name there, with trained weights, in evaluation mode.

    ``weights`` is a ``.pth`` file of this detector for COCO's categories; torchvision's own if left out, see
    :func:`~posewarper.model.pretrained.load_torchvision`.

    Raises:
        ConfigError: if torchvision has no such detector.
        ModelError: if the file is missing or holds other weights, or the download fails.
    """
    from torchvision import models  # takes two seconds, and only detectors need it

    known = models.list_models(models.detection)
    if name not in known:
        fix = did_you_mean(name, known, "name one of these")
        raise ConfigError("torchvision has no such detector", expected=" or ".join(known), got=name, fix=fix)
    best = models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    categories = tuple(best.meta["categories"])
    network = load_torchvision(
        lambda _: models.get_model(name, weights=None, weights_backbone=None, num_classes=len(categories)),
        best,
        weights,
        what=f"the detector {name}",
        otherwise="give it by --detector-weights FILE; or give boxes from a file",
    )
    if name in _WITHOUT_EPSILON:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    return Detector(network.to(device).eval(), categories)


def detect(
    detector: Detector, image: Image, category: str = "person", threshold: float = 0.5
) -> tuple[Floats, Floats]:
    """Return the boxes (n, 4) xywh of one category in an image, and their scores (n,), the best first.

    A detector counts from the corner of the image; here the centre of the top-left pixel is at (0, 0), so
    half a pixel is taken off left and top. Boxes without area are left out.

    Args:
        detector: on its device.
        image: (H, W, 3) uint8 RGB.
        category: as COCO calls it ("person", "dog", ...).
        threshold: score (0 to 1) from which a box counts; detectors leave out what is below about 0.05.

    Raises:
        ConfigError: if the detector knows no such category.
    """
    known = [c for c in detector.categories[1:] if c != "N/A"]
    if category not in known:
        expected, fix = "one of " + ", ".join(known), did_you_mean(category, known, "name one of these")
        raise ConfigError("the detector knows no such category", expected=expected, got=category, fix=fix)
    place = next(detector.network.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(place).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        found = detector.network([pixels])[0]
    corners, scores = found["boxes"].double().cpu().numpy(), found["scores"].double().cpu().numpy()
    size = corners[:, 2:] - corners[:, :2]
    wanted = found["labels"].cpu().numpy() == detector.categories.index(category)
    chosen = np.flatnonzero(wanted & (scores >= threshold) & (size > 0).all(1))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    return np.concatenate([corners[chosen, :2] - 0.5, size[chosen]], axis=1), scores[chosen]
