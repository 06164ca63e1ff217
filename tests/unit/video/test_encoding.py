"""Written videos read back as they were, play anywhere, and are never half-written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from posewarper.errors import OutputError, VideoError
from posewarper.video.source import open_video
from posewarper.video.writing import write_video

COLOURS = np.array(
    [(200, 60, 30), (30, 160, 60), (40, 50, 210), (128, 128, 128), (250, 250, 250), (10, 10, 10)]
)


def frames(n: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Six patches of colour that move on by one place each frame."""
    patches = [np.roll(COLOURS, i, axis=0).reshape(2, 3, 3) for i in range(n)]
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 3 // width
    return [p[rows][:, columns].astype(np.uint8) for p in patches]


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
def test_round_trip(tmp_path: Path, height: int, width: int) -> None:
    images = frames(33, height, width)
    write_video(tmp_path / "clip.mp4", iter(images), fps=25)
    with open_video(tmp_path / "clip.mp4") as video:
        assert len(video) == 33 and video.fps == 25
        assert video.image_size == (height + height % 2, width + width % 2)
        for i in (32, 0, 17):
            for y in (10, height - 10):
                for x in (8, width // 2, width - 8):
                    np.testing.assert_allclose(video[i][y, x], images[i][y, x].astype(int), atol=8)


def test_browsers_can_play_it(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", frames(5), fps=30)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        assert (stream.codec_context.name, frame.format.name) == ("h264", "yuv420p")
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(29.97002997, Fraction(30000, 1001)), (23.976, Fraction(2997, 125)), (12.5, Fraction(25, 2))],
)
def test_frame_rate_is_an_exact_fraction(tmp_path: Path, fps: float, rate: Fraction) -> None:
    write_video(tmp_path / "clip.mp4", frames(12), fps=fps)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].average_rate == rate


def test_nothing_is_left_when_the_frames_fail(tmp_path: Path) -> None:
    def failing():
        yield from frames(7)
        raise RuntimeError("no more")

    (tmp_path / "clip.mp4").write_bytes(b"the one before")
    with pytest.raises(RuntimeError, match="no more"):
        write_video(tmp_path / "clip.mp4", failing(), fps=30)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"the one before"


def test_what_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    with pytest.raises(VideoError, match="no frames to write"):
        write_video(target, [], fps=30)
    with pytest.raises(VideoError, match="frame 1 cannot be written"):
        write_video(target, [*frames(1), *frames(1, 40, 40)], fps=30)
    with pytest.raises(VideoError, match="frame 0 cannot be written"):
        write_video(target, [np.zeros((8, 8), np.uint8)], fps=30)
    with pytest.raises(VideoError, match="fps > 0"):
        write_video(target, frames(1), fps=0)
    assert list(tmp_path.iterdir()) == []
    target.write_bytes(b"a file, not a folder")
    with pytest.raises(OutputError):
        write_video(target / "clip.mp4", frames(1), fps=30)


# The last matrix is one that the scaler does not know: then it is read as BT.601, not refused.
@pytest.mark.parametrize(("space", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (10, 0.299, 0.114)])
@pytest.mark.parametrize("full", [False, True])
def test_reading_respects_matrix_and_range_of_the_stream(
    tmp_path: Path, space: int, kr: float, kb: float, full: bool
) -> None:
    colour = np.array([200, 60, 30])
    r, g, b = colour / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    scales = (255 * y, 255 * u + 128, 255 * v + 128) if full else (16 + 219 * y, 128 + 224 * u, 128 + 224 * v)
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, value in zip(frame.planes, scales, strict=True):
        plane.update(np.full(plane.buffer_size, round(value), np.uint8).tobytes())
    with av.open(str(tmp_path / "clip.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 2 if full else 1
        frame.pts, frame.colorspace, frame.color_range = 0, space, 2 if full else 1
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with open_video(tmp_path / "clip.mp4") as video:
        np.testing.assert_allclose(video[0].mean((0, 1)), colour, atol=3)


def test_a_title_that_is_no_utf_8_is_no_reason_not_to_read_a_video(tmp_path: Path) -> None:
    place = tmp_path / "clip.mkv"
    with av.open(str(place), "w") as container:
        container.metadata["title"] = "a title"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in [*frames(3, 48, 64)]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    content = place.read_bytes()
    assert content.count(b"a title") == 1
    place.write_bytes(content.replace(b"a title", b"B\xe4r \xff\xfe!"))  # as long as before
    with open_video(place) as video:
        assert video.n_frames == 3
