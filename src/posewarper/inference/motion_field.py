"""How a track's keypoints move from frame to frame, measured inside its crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posewarper.frames import TrackCrops
from posewarper.geometry import CropTransform
from posewarper.motion.flow import dense_flow, sample_flow, to_grey
from posewarper.structures import Floats


@dataclass(frozen=True)
class MotionField:
    """Dense flow between the consecutive crops of a track.

    Because a crop follows its track, the flow inside the crops is small; the motion of the crop itself is
    known and added back.

    Args:
        there: (t - 1, h, w, 2) from each crop to the next, in crop pixels.
        back: (t - 1, h, w, 2) from each next crop to the one before.
        transforms: t maps from image to crop pixels.
    """

    there: NDArray[np.float16]
    back: NDArray[np.float16]
    transforms: tuple[CropTransform, ...]

    def steps(self, points: Floats) -> tuple[Floats, Floats]:
        """Read the motion at a guess of the trajectory.

        Args:
            points: (t, K, 2) xy in image pixels; NaN gives NaN.

        Returns:
            ``(t - 1, K, 2)`` displacements from each frame to the next, read at the earlier frame's points;
            and the same displacements as read at the later frame's points. Where both agree, the flow is
            consistent forward and backward, and the guess lies on it.
        """
        inside = [t.to_crop(p) for t, p in zip(self.transforms, points, strict=True)]
        forward, backward = np.full((2, *points[1:].shape), np.nan)
        for n in range(len(points) - 1):
            after = inside[n] + sample_flow(self.there[n], inside[n])
            forward[n] = self.transforms[n + 1].to_image(after) - points[n]
            before = inside[n + 1] + sample_flow(self.back[n], inside[n + 1])
            backward[n] = points[n + 1] - self.transforms[n].to_image(before)
        return forward, backward


def measure_motion(crops: TrackCrops) -> MotionField:
    """Compute the flow between consecutive crops, both ways."""
    grey = [to_grey(image, 1.0) for image in crops.images]
    shape = (max(len(grey) - 1, 0), *crops.images.shape[1:3], 2)
    there, back = np.zeros(shape, np.float16), np.zeros(shape, np.float16)
    for n in range(len(grey) - 1):
        there[n], back[n] = dense_flow(grey[n], grey[n + 1]), dense_flow(grey[n + 1], grey[n])
    return MotionField(there, back, crops.transforms)
