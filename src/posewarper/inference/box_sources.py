"""Where instances are looked for: given boxes, labels, a detector, the whole frame, or the tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from posewarper.crops import Image
from posewarper.frames import instance_boxes
from posewarper.inference.streaming import FrameBoxes
from posewarper.inference.tracking import Tracker
from posewarper.structures import Floats, Labels

NOBODY = FrameBoxes(np.zeros((0, 4)), np.zeros(0))


@dataclass(frozen=True)
class BoxSource:
    """Finds the boxes of one frame after another.

    Args:
        known: frame index -> boxes that are given.
        detect: image -> boxes, where there is a detector.
        detect_every: frames from one detection to the next; between them tracks are followed.
        follows: whether boxes of frames without any come from the tracks' own previous poses.
        whole_frame: wherever nobody is known, whoever uses this has to look at the whole frame.
    """

    known: Mapping[int, FrameBoxes] = field(default_factory=dict)
    detect: Callable[[Image], FrameBoxes] | None = None
    detect_every: int = 1
    follows: bool = False
    whole_frame: bool = False

    def find(self, frame: int, image: Image, new_scene: bool, tracker: Tracker) -> FrameBoxes:
        """Return the boxes of a frame, given the tracks of the frames before it."""
        if frame in self.known:
            return self.known[frame]
        if self.detect is not None and (new_scene or frame % self.detect_every == 0):
            return self.detect(image)
        if not self.follows:
            return NOBODY
        boxes = tracker.expected_boxes(frame)[1]
        if len(boxes):
            return FrameBoxes(boxes, np.ones(len(boxes)))
        return NOBODY if self.detect is None else self.detect(image)


def boxes_of_labels(labels: Labels, *, around_keypoints: bool = True) -> dict[int, FrameBoxes]:
    """Return the boxes around the labels of every labelled frame, by frame index.

    Args:
        labels: boxes that they give serve where there are fewer than two keypoints to go by.
        around_keypoints: False takes the boxes that they give, whatever the keypoints.
    """
    found: dict[int, list[Floats]] = {int(frame): [] for frame in labels.labelled_frames}
    for track in labels.tracks.values():
        keypoints = track.keypoints if around_keypoints else np.full_like(track.keypoints, np.nan)
        for frame, box in zip(track.frames.tolist(), instance_boxes(keypoints, track.boxes), strict=True):
            if np.isfinite(box).all():
                found.setdefault(frame, []).append(box)
    return {
        frame: FrameBoxes(np.array(boxes).reshape(-1, 4), np.ones(len(boxes)))
        for frame, boxes in found.items()
    }
