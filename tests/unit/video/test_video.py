"""Every access must give exactly the frame asked for: each test picture says its own number."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from clip_files import encode_clip, turned
from posewarper.errors import PosewarperWarning, VideoError
from posewarper.video import decoding
from posewarper.video.source import Video, open_video

H, W = 48, 64
X264 = {"x264-params": "scenecut=0:bframes=3:keyint=12"}
LONG_GOP = {"x264-params": "scenecut=0:bframes=8:ref=5:keyint=500"}


def picture(number: int) -> np.ndarray:
    """A picture that bears a number from 0 to 255 as eight bars, and red at the left of its foot."""
    image = np.full((H, W, 3), 40, np.uint8)
    for bit in range(8):
        image[8:24, 8 * bit : 8 * bit + 8] = 220 if number >> bit & 1 else 40
    image[32:, :24] = (200, 30, 30)
    return image


def number_of(image: np.ndarray) -> int:
    assert image.shape == (H, W, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    return sum(int(image[10:22, 8 * bit + 2 : 8 * bit + 6].mean() > 130) << bit for bit in range(8))


def numbers_of(video: Video) -> list[int]:
    return [number_of(image) for _, image in video.frames(range(len(video)))]


def make_clip(path: Path, n: int = 50, *, images: list[np.ndarray] | None = None, **options) -> Path:
    return encode_clip(path, [picture(i) for i in range(n)] if images is None else images, **options)


def remux(source: Path, target: Path, change) -> Path:
    """Copy packets; ``change(number, packet)`` alters a packet and returns False for one to leave out."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copy = write.add_stream_from_template(stream)
        packets = (packet for packet in read.demux(stream) if packet.size)
        for number, packet in enumerate(packets):
            if change(number, packet) is not False:
                packet.stream = copy
                write.mux(packet)
    return target


X265 = {"x265-params": "log-level=none:keyint=12:bframes=4:open-gop=1"}
FORMATS = {
    "b-frames.mp4": {"options": X264},
    "long-gop.mp4": {"options": LONG_GOP},
    "open-gop.mkv": {"options": {"x264-params": "open-gop=1:scenecut=0:bframes=3:keyint=12"}},
    "refresh.mkv": {"options": {"x264-params": "intra-refresh=1:scenecut=0:bframes=0:keyint=20"}},
    "stream.ts": {"options": X264},
    "no-times.h264": {"options": X264},
    "no-times-open-gop.hevc": {"codec": "libx265", "options": X265},
    "open-gop.mp4": {"codec": "libx265", "options": X265},
    "divx.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "disc.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "web.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "g": "20"}},
    "intra.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ten-bit.mp4": {"pix_fmt": "yuv420p10le", "options": X264},
    "grey.mp4": {"pix_fmt": "gray", "options": X264},
    "grey-16.mkv": {"codec": "ffv1", "pix_fmt": "gray16le"},
    "palette.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "alpha.mov": {"codec": "png", "pix_fmt": "rgba"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_access_gives_the_frame_asked_for(tmp_path: Path, name: str) -> None:
    path = make_clip(tmp_path / name, **FORMATS[name])
    with open_video(path) as video:
        assert video.n_frames == len(video) == 50 and video.image_size == (H, W)
        in_order = [video[i] for i in range(50)]
    assert [number_of(image) for image in in_order] == list(range(50))
    order = random.Random(name).sample(range(50), 20)
    with open_video(path, cache_bytes=0) as video:  # so that each access decodes
        for i, image in video.frames([49, 0, 48, *order]):
            np.testing.assert_array_equal(image, in_order[i])


def test_steps_forward_and_back_do_not_lose_the_place(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", options=X264)
    with open_video(path, cache_bytes=0) as video:
        for i in [5, 6, 7, 7, 6, 20, 21, 45, 12, 13, 11, 49, 49, 0]:
            assert number_of(video[i]) == i


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = [3 * i * i + 5 for i in range(40)]
    path = make_clip(tmp_path / "clip.mkv", 40, options=X264, pts=times, time_base=Fraction(1, 1000))
    with open_video(path) as video:
        np.testing.assert_allclose(video.times, (np.array(times) - 5) / 1000, atol=1e-9)
        assert video.fps == pytest.approx(39 / (3 * 39 * 39 / 1000))
        assert [number_of(video[i]) for i in (39, 3, 20)] == [39, 3, 20]


def test_constant_frame_rate_and_times(tmp_path: Path) -> None:
    with open_video(make_clip(tmp_path / "clip.ts", options=X264)) as video:  # begins at 1.4 s
        assert video.fps == 30
        np.testing.assert_allclose(video.times, np.arange(50) / 30, atol=1e-4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_negative_times_count_where_the_decoder_shows_the_frames(tmp_path: Path, suffix: str) -> None:
    options = {"avoid_negative_ts": "disabled", "use_editlist": "0"} if suffix == "mp4" else {}
    path = make_clip(
        tmp_path / f"clip.{suffix}", 40, options=X264, pts=list(range(-10, 30)), container_options=options
    )
    with open_video(path, cache_bytes=0) as video:
        assert numbers_of(video) == list(range(40))
        assert [number_of(video[i]) for i in (30, 2)] == [30, 2]


def test_frames_cut_away_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", 40, options=X264)

    def earlier(_: int, packet: av.Packet) -> None:
        shift = round(Fraction(3, 10) / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift

    with open_video(remux(whole, tmp_path / "cut.mp4", earlier), cache_bytes=0) as video:
        assert numbers_of(video) == list(range(9, 40))
        assert [number_of(video[i]) for i in (30, 0, 12)] == [39, 9, 21]


def test_pictures_before_the_first_key_frame_do_not_count(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", 40, codec="libx265", options=X265)
    with av.open(str(whole)) as container:
        keys = [n for n, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    cut = remux(whole, tmp_path / "cut.mkv", lambda number, packet: number >= keys[1])
    with open_video(cut, cache_bytes=0) as video:
        assert numbers_of(video) == list(range(40 - len(video), 40))
        assert video.times[0] == 0 and number_of(video[len(video) - 1]) == 39


def test_a_stream_joined_between_key_frames_begins_at_the_next(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "whole.ts", 40, options=X264).read_bytes()
    (tmp_path / "joined.ts").write_bytes(
        data[: 3 * 188] + data[9 * 188 :]
    )  # the tables, then frames from 5 on
    with open_video(tmp_path / "joined.ts", cache_bytes=0) as video:
        assert numbers_of(video) == list(range(12, 40))


def test_equal_times_fall_back_to_counting(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", 40, options=X264)

    def doubled(number: int, packet: av.Packet) -> None:
        packet.pts += round(Fraction(1, 30) / packet.time_base) if number == 20 else 0

    with open_video(remux(whole, tmp_path / "clip.mkv", doubled), cache_bytes=0) as video:
        assert [number_of(video[i]) for i in (39, 2, 21, 20, 22)] == [39, 2, 21, 20, 22]


def test_joined_streams_whose_times_begin_anew(tmp_path: Path) -> None:
    one = make_clip(tmp_path / "one.ts", 30, options=X264).read_bytes()
    (tmp_path / "two.ts").write_bytes(one + one)
    with open_video(tmp_path / "two.ts", cache_bytes=0) as video:
        assert numbers_of(video) == [*range(30), *range(30)]
        assert [number_of(video[i]) for i in (59, 30, 29)] == [29, 0, 29]
        assert np.all(np.diff(video.times) > 0)


def test_a_packet_without_a_frame_is_found_out_late_but_never_shifts_frames(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:keyint=100:bframes=3:scenecut=0"}
    whole = make_clip(tmp_path / "whole.mkv", codec="libx265", options=options)

    with av.open(str(whole)) as read, av.open(str(tmp_path / "clip.mkv"), "w") as write:
        copy = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(p for p in read.demux(video=0) if p.size):
            if number == 30:  # an access unit delimiter and nothing else
                empty = av.Packet(bytes.fromhex("00000003460150"))
                empty.pts, empty.dts, empty.time_base = packet.pts + 7, packet.dts, packet.time_base
                empty.stream = copy
                write.mux(empty)
            packet.stream = copy
            write.mux(packet)
    video = open_video(tmp_path / "clip.mkv", cache_bytes=0)
    with pytest.warns(PosewarperWarning, match="of 51 frames promised 50 can be decoded"):
        assert number_of(video[49]) == 49
    # The number of frames does not change once it has been told.
    assert len(video) == len(video.times) == 51 and numbers_of(video) == [*range(50), 49]


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        # A phone held upright writes (0, 1, -1, 0): the picture has to be turned clockwise to be upright.
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    ],
)
def test_display_rotation(tmp_path: Path, matrix: tuple[int, ...], upright) -> None:
    plain = make_clip(tmp_path / "clip.mp4", 20, options=X264)
    with open_video(plain) as video:
        as_stored = video[9]
    with open_video(turned(plain, matrix)) as video:
        expected = upright(as_stored)
        assert video.image_size == expected.shape[:2]
        assert video[9].flags.c_contiguous
        np.testing.assert_array_equal(video[9], expected)
        # Its brightness, and shrunk in one step: both turned alike.
        of_colours = video[9].astype(float) @ (0.299, 0.587, 0.114)
        grey = video.grey(9)
        assert grey.shape == video.image_size and grey.flags.c_contiguous and grey.flags.writeable
        assert np.abs(grey - of_colours).mean() < 2
        size = video.image_size[0] // 2, video.image_size[1] // 2
        small = cv2.resize(video[9], size[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(video.shrunk(9, size).astype(float) - small).mean() < 3
        np.testing.assert_array_equal(video.shrunk(9, video.image_size), video[9])
    with av.open(str(plain)) as container:  # the sign agrees with what FFmpeg calls the angle
        angle = next(container.decode(video=0)).rotation
    if matrix in ((0, 1, -1, 0), (0, -1, 1, 0)):
        np.testing.assert_array_equal(expected, np.rot90(as_stored, angle // 90))


def places_of_packets(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_a_truncated_file_gives_what_is_there(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "clip.mp4" else {}
    path = make_clip(tmp_path / name, options=X264, container_options=options)
    data, places = path.read_bytes(), places_of_packets(path)
    for k in (15, 22, 31, 46):
        position, size = places[k]
        path.write_bytes(data[: position + size // 2])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            video = open_video(path, cache_bytes=0)
        assert f"cut off; {len(video)} frames can be read" in str(caught[0].message)
        # The frame that the cut goes through may be shown as the one before it, but none moves up.
        late = [(i, number) for i, number in enumerate(numbers_of(video)) if number != i]
        assert len(late) <= 1 and all(number < i for i, number in late)
        assert k - 2 <= len(video) <= k + 2 and number_of(video[3]) == 3


def blank(path: Path, numbers: Iterable[int]) -> None:
    """Overwrite what some packets of an mp4 file hold."""
    data, places = bytearray(path.read_bytes()), places_of_packets(path)
    for position, size in (places[n] for n in numbers):
        data[position + 4 : position + size] = bytes(size - 4)
    path.write_bytes(data)


def test_damaged_frames_keep_their_place(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", 30, options={"g": "1"})
    blank(path, [0, 20, 21])
    with pytest.warns(PosewarperWarning, match="3 damaged frames"):
        video = open_video(path, cache_bytes=0)
        numbers = numbers_of(video)
    assert numbers == [1, *range(1, 20), 19, 19, *range(22, 30)]
    assert [number_of(video[i]) for i in (25, 20, 0)] == [25, 19, 1]


def test_change_of_the_picture_size(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.h264", 20, options=X264)
    images = [picture(i).repeat(2, 0).repeat(2, 1) for i in range(20)]
    large = make_clip(tmp_path / "large.h264", options=X264, images=images)
    (tmp_path / "both.h264").write_bytes(small.read_bytes() + large.read_bytes())
    with open_video(tmp_path / "both.h264") as video:
        assert video.image_size == (H, W)
        with pytest.warns(PosewarperWarning, match="picture size changes"):
            assert numbers_of(video) == [*range(20), *range(20)]


def test_cover_art_is_not_the_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        stream = out.add_stream("libx264", rate=30)
        for s in (cover, stream):
            s.height, s.width, s.pix_fmt = H, W, "yuvj420p" if s is cover else "yuv420p"
        cover.disposition = Disposition.attached_pic
        art = av.VideoFrame.from_ndarray(picture(255), "rgb24")
        art.pts = 0
        out.mux(cover.encode(art) + cover.encode(None))
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(picture(i), "rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with open_video(tmp_path / "clip.mp4") as video:
        assert numbers_of(video) == list(range(10))


def test_the_cache_is_bounded_and_saves_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "clip.mp4", options=LONG_GOP)
    limit = 200_000  # about ten frames
    with open_video(path, cache_bytes=limit) as video:
        for i in (0, 49, 3, *range(20, 40)):
            assert number_of(video[i]) == i
            assert video._frames._cache.n_bytes <= limit
        monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("decoded again"))
        for i in range(39, 31, -1):
            assert number_of(video[i]) == i


def test_frames_that_are_wanted_again_need_not_be_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(tmp_path / "clip.mp4", options=LONG_GOP)
    with open_video(path, cache_bytes=100_000) as video:  # about five frames
        with video.keeping([4, 30, *range(6, 20)]):
            for i in range(50):
                assert number_of(video[i]) == i
            assert video._frames._cache._held_bytes <= 100_000
            monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("decoded again"))
            for i in (4, 6, 7):
                assert number_of(video[i]) == i
        monkeypatch.undo()
        assert not video._frames._cache._held
        assert number_of(video[4]) == 4
        with pytest.raises(IndexError, match="no frame 50"), video.keeping([50]):
            pass
    with open_video(np.zeros((3, 8, 8, 3), np.uint8)) as video, video.keeping([1]):
        assert video[1].shape == (8, 8, 3)


@pytest.mark.parametrize("options", [{"options": X264}, {"codec": "png", "pix_fmt": "rgb24"}])
def test_drawing_on_a_frame_does_not_change_it_for_others(tmp_path: Path, options: dict) -> None:
    with open_video(make_clip(tmp_path / "clip.mov", 5, **options)) as video:
        video[3][:] = 0
        assert number_of(video[3]) == 3


@pytest.mark.parametrize("options", [{}, {"codec": "ffv1", "pix_fmt": "bgr0"}])
def test_brightness_and_small_pictures_are_those_of_the_colours(tmp_path: Path, options: dict) -> None:
    path = make_clip(tmp_path / "clip.mkv", 6, **options)
    with open_video(path) as video, open_video(np.stack([video[i] for i in range(6)])) as frames:
        assert np.abs(video.grey(3).astype(float) - frames.grey(3)).mean() < 2
        assert np.abs(video.shrunk(3, (20, 30)).astype(float) - frames.shrunk(3, (20, 30))).mean() < 3
        for read in (video.grey, frames.grey, lambda i: video.shrunk(i, (20, 30))):
            with pytest.raises(IndexError, match="no frame 6"):
                read(6)


@pytest.mark.parametrize("matrix", [None, (0, 1, -1, 0)])
def test_large_pictures_are_shrunk_before_their_colours_are_computed(tmp_path: Path, matrix) -> None:
    images = [cv2.resize(picture(n), (960, 720), interpolation=cv2.INTER_NEAREST) for n in (5, 90)]
    path = make_clip(tmp_path / "clip.mp4", 2, images=images, options=X264)
    with open_video(path if matrix is None else turned(path, matrix)) as video:
        size = (396, 540) if matrix is None else (540, 396)
        before = video[1].copy()
        small = video.shrunk(1, size)
        wanted = cv2.resize(video[1], size[::-1], interpolation=cv2.INTER_AREA).astype(float)
        assert small.shape == (*size, 3) and small.flags.c_contiguous and small.flags.writeable
        assert np.abs(small - wanted).mean() < 2
        assert np.abs(small.mean((0, 1)) - wanted.mean((0, 1))).max() < 1
        small[:] = 0
        np.testing.assert_array_equal(video[1], before)


def test_index_errors_leave_the_video_usable(tmp_path: Path) -> None:
    video = open_video(make_clip(tmp_path / "clip.mp4", 10))
    for i in (-1, 10, 1000):
        with pytest.raises(IndexError, match=f"no frame {i}; the frames go from 0 to 9"):
            video[i]
    assert number_of(video[np.int64(7)]) == 7
    video.close()
    with pytest.raises(ValueError, match="closed"):
        video[0]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        open_video(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="cannot be read as a video"):
        open_video(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.wav"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        out.mux(stream.encode(sound) + stream.encode(None))
    with pytest.raises(VideoError, match=r"holds no video[\s\S]*audio"):
        open_video(tmp_path / "sound.wav")
    clip = make_clip(tmp_path / "clip.mp4", 5, options={"g": "1"})
    blank(clip, range(5))
    with pytest.raises(VideoError, match="no frame that can be decoded"):
        open_video(clip)


@pytest.mark.parametrize("name", ["walking/walking.mp4", "juggling/juggling.mp4"])
def test_real_clips(shared_data: Path, name: str) -> None:
    with open_video(shared_data / name) as video:
        in_order = {i: image for i, image in video.frames(range(28)) if i % 13 == 0}
    with open_video(shared_data / name, cache_bytes=0) as video:
        for i in (26, 0, 13):
            np.testing.assert_array_equal(video[i], in_order[i])
