"""``posewarper info CKPT --offsets``: what the warp head of a checkpoint does to two frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posewarper.cli.convert_weights import is_checkpoint
from posewarper.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from posewarper.model.network import PoseWarper


def check_options(path: Path | None, offsets: bool, video: Path | None, frames: str | None) -> None:
    """Refuse offsets of anything but a checkpoint, and options that belong to them without them.

    Raises:
        ConfigError: saying so.
    """
    expected = "posewarper info CKPT --offsets [--video VIDEO --frames A,B] [--picture OUT.png]"
    if offsets and (path is None or not is_checkpoint(path)):
        got, mend = "no path" if path is None else path.name, "name a checkpoint (.pt, .pth)"
        raise ConfigError(
            "--offsets shows the warp head of a checkpoint", expected=expected, got=got, mend=mend
        )
    if not offsets and (video is not None or frames is not None):
        mend = "add --offsets; a video to be described is named without --video"
        raise ConfigError("--video and --frames belong to --offsets", expected=expected, mend=mend)
    if (video is None) != (frames is None):
        raise ConfigError(
            "--video and --frames belong together",
            expected=expected,
            got="--video alone" if frames is None else "--frames alone",
            mend="give both, or neither to see made-up heatmaps moved",
        )


def describe_offsets(
    path: Path, *, video: Path | None, frames: str | None, labels: Path | None, picture: Path | None
) -> dict[str, Any]:
    """Return the offsets of a checkpoint's head by keypoint and dilation, and draw them if asked.

    Args:
        path: the checkpoint.
        video: whose frames are looked at; made-up heatmaps if left out.
        frames: ``SOURCE,TARGET``, two frame indices of the video.
        labels: of the video, which tell where to look; the whole frame if left out.
        picture: where to draw.

    Raises:
        ModelError: if the checkpoint cannot be read, or its head was not trained.
        ConfigError: if the frames are not two of the video.
        OutputError: if the picture cannot be written.
    """
    from posewarper.model.checkpoint import load_model
    from posewarper.reporting.offset_pictures import (
        MADE_UP_STEP,
        check_head,
        made_up_pair,
        probe_offsets,
        tabulate_offsets,
        write_offset_picture,
    )
    from posewarper.reporting.overlay import check_picture_name

    if picture is not None:
        check_picture_name(picture)
    model = load_model(path)
    check_head(model, path)
    if video is None or frames is None:
        source, target = made_up_pair(model)
        looked_at = f"made-up heatmaps, each moved by {MADE_UP_STEP:g} heatmap pixels in its own direction"
    else:
        source, target = _see_frames(model, video, frames, labels)
        looked_at = f"{video}, source and target frame {frames}"
    probe = probe_offsets(model, source, target)
    facts = {"looked at": looked_at, "unit": "heatmap pixels, x right and y down"}
    if picture is not None:
        write_offset_picture(picture, probe)
        facts["picture"] = str(picture)
    return facts | {"offsets": tabulate_offsets(probe)}


def _see_frames(model: PoseWarper, path: Path, frames: str, labels: Path | None) -> tuple[Tensor, Tensor]:
    """Return the heatmaps (1, K, h, w) that the network sees in two frames, in one crop."""
    import numpy as np
    import torch

    from posewarper.crops import normalise, smooth_crop
    from posewarper.geometry import crop_transform, keypoint_boxes, pad_box
    from posewarper.io.labels import read_annotations
    from posewarper.io.video import open_video

    video = open_video(path)
    indices = [int(part) for part in frames.split(",") if part.strip().isdecimal()]
    if len(indices) != 2 or len(frames.split(",")) != 2 or max(indices) >= video.n_frames:
        raise ConfigError(
            "cannot look at these frames",
            expected=f"two frame indices from 0 to {video.n_frames - 1}, such as --frames 10,12",
            got=frames,
            mend="name the source and the target frame",
        )
    height, width = model.spec.crop_size
    boxes = np.array([[-0.5, -0.5, video.image_size[1], video.image_size[0]]])
    if labels is not None:
        track = next(iter(read_annotations(labels, video=video).tracks.values()))
        near = np.abs(track.frames - indices[0]).argmin()
        boxes = keypoint_boxes(track.keypoints[[near]])
    transform = crop_transform(pad_box(boxes, aspect_ratio=width / height)[0], (height, width))
    crops = np.stack([smooth_crop(video[index], transform) for index in indices])
    with torch.inference_mode():
        heatmaps = model.heatmaps(torch.from_numpy(normalise(crops, model.spec.mean, model.spec.std)))
    source, target = heatmaps.split(1)
    return source, target
