"""Write a video that any browser plays."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from posewarper.errors import VideoError
from posewarper.files import replacing

_BT709, _LIMITED = 1, 1  # as FFmpeg numbers matrices, primaries and transfer curves, and ranges


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: float,
    preset: str = "veryfast",
    crf: int = 18,
) -> None:
    """Write frames as H.264 in mp4 (yuv420p, BT.709, index at the front).

    The file appears when it is complete; if ``frames`` raises midway nothing is left behind. An odd height
    or width gets one more row or column, a copy of the last, for yuv420p takes even sizes only.

    Args:
        path: where to write, a name that ends in .mp4.
        frames: (H, W, 3) uint8 RGB, all of one size.
        preset: of x264, from ``ultrafast`` on: the slower, the smaller the file.
        crf: of x264: the lower, the better the pictures and the larger the file.
        fps: frames a second; figures such as 29.97 become the fraction that they stand for.

    Raises:
        VideoError: if there is no frame, a frame has another size or type, or fps is no positive number.
        OutputError: if the place cannot be written.
    """
    if not math.isfinite(fps) or fps <= 0:
        what = "cannot write a video"
        raise VideoError(what, path=path, expected="fps > 0", got=fps, fix="give frames a second")
    rate = Fraction(fps).limit_denominator(1001)
    shape: tuple[int, ...] | None = None
    with (
        replacing(path) as temporary,
        # Absolute, for FFmpeg would take what stands before a colon in a relative name for a protocol.
        av.open(
            os.path.abspath(temporary), "w", format="mp4", options={"movflags": "+faststart"}
        ) as container,
        ThreadPoolExecutor(1) as encoder,
    ):
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        reformatter = VideoReformatter()  # one for all: it keeps its tables
        # A thread encodes a frame while the next one is made.
        coded: Future[list[av.Packet]] | None = None
        for n, image in enumerate(frames):
            if shape is None:
                shape = image.shape
                stream.height, stream.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
            if image.shape != shape or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise VideoError(
                    f"frame {n} cannot be written",
                    path=path,
                    expected="uint8 RGB frames of one size" if n == 0 else f"uint8 {shape}",
                    got=f"{image.dtype} {image.shape}",
                    fix="convert the frames before writing",
                )
            if shape[0] % 2 or shape[1] % 2:
                image = np.pad(image, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
            frame = reformatter.reformat(
                VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts, frame.time_base = n, 1 / rate
            if coded is not None:
                container.mux(coded.result())
            coded = encoder.submit(stream.encode, frame)
        if coded is None:
            what = "there are no frames to write"
            raise VideoError(what, path=path, expected="at least one", got=0, fix="give some frames")
        container.mux(coded.result())
        container.mux(stream.encode(None))
