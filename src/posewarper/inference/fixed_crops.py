"""The paper's propagation: the labelled frame's crop, the nearest label, the learned warp alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from posewarper.frames import cut_track, instance_boxes, without_strays
from posewarper.geometry import pad_box
from posewarper.inference.evidence import find_peaks, labelled_crop, see_heatmaps, warp_label
from posewarper.io.video import Video
from posewarper.model.network import PoseWarper
from posewarper.structures import Floats, Ints, LabelTrack

# Crops in memory at a time.
_LONGEST = 256


def nearest_labels(frames: Ints, labelled: Ints) -> Ints:
    """Return for each frame the position in ``labelled`` (rising) of the nearest, the earlier on a tie."""
    return np.abs(frames[:, None] - labelled[None]).argmin(axis=1).astype(np.int64)


def warp_in_fixed_crops(
    video: Video, track: LabelTrack, frames: Ints, model: PoseWarper, advance: Callable[[int], None]
) -> tuple[Floats, Floats]:
    """Warp each frame's nearest label to it, both seen in the crop of the labelled frame (paper, section 3).

    A subject that has left that crop is lost; the peak is then low.

    Args:
        video: the clip.
        track: the labels.
        frames: (t,) rising frames.
        model: its head warps.
        advance: is told how many frames were done.

    Returns:
        Points (t, K, 2) in image pixels, NaN where the label has no such keypoint, and scores (t, K).
    """
    size = model.spec.crop_size
    points = np.full((len(frames), *track.keypoints.shape[1:]), np.nan)
    scores = np.zeros(points.shape[:2])
    framed = without_strays(track, video.image_size)
    usable = np.flatnonzero(np.any(framed.visibility > 0, axis=1))
    if not len(usable):
        return points, scores
    boxes = pad_box(instance_boxes(framed.keypoints, framed.boxes), aspect_ratio=size[1] / size[0])
    nearest = usable[nearest_labels(frames, track.frames[usable])]
    for label in np.unique(nearest):
        own = np.flatnonzero(nearest == label)
        for rows in np.array_split(own, -(-len(own) // _LONGEST)):
            # The labelled frame comes first: it is the source of every warp.
            wanted = np.concatenate([[track.frames[label]], frames[rows]])
            crops = cut_track(video, wanted, np.repeat(boxes[label][None], len(wanted), axis=0), size)
            heatmaps = see_heatmaps(model, crops.images)
            source = labelled_crop(
                0, track.keypoints[label], track.visibility[label], crops.transforms[0], model
            )
            warped = warp_label(model, source, heatmaps, np.arange(1, len(wanted)))
            seen = find_peaks(warped, crops.transforms[1:])
            points[rows] = np.where(source.has[:, None], seen.points, np.nan)
            scores[rows] = np.clip(seen.scores, 0, 1) * source.has
            advance(len(rows))
    return points, scores
