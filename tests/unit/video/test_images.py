"""Folders of frames: order, orientation, kinds of images, and what is refused."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from posewarper.errors import PosewarperWarning, VideoError
from posewarper.video.images import read_image
from posewarper.video.source import open_video

H, W = 20, 30


def picture(level: int) -> np.ndarray:
    image = np.full((H, W, 3), level, np.uint8)
    image[:6, :6] = (250, 20, 10)
    return image


def test_natural_order_of_names(tmp_path: Path) -> None:
    names = ["frame1.png", "frame2.jpg", "Frame10.png", "frame20.bmp", "frame100.tif"]
    for n in (3, 0, 4, 2, 1):
        Image.fromarray(picture(20 + 10 * n)).save(tmp_path / names[n])
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "._frame3.png").write_bytes(b"what another system leaves behind")
    (tmp_path / "frame4.png").mkdir()
    with open_video(tmp_path) as video:
        assert video.frame_names == tuple(names)
        assert video.image_size == (H, W) and video.n_frames == 5
        assert [round(float(image[10:, 10:].mean()) / 10) for _, image in video.frames(range(5))] == [
            2,
            3,
            4,
            5,
            6,
        ]
        assert video.fps == 25
        np.testing.assert_allclose(video.times, np.arange(5) / 25)
        with pytest.raises(IndexError, match="no frame 5"):
            video[5]
    assert open_video(tmp_path, folder_fps=10).times[-1] == pytest.approx(0.4)


def test_cache_is_bounded_and_frames_are_copies(tmp_path: Path) -> None:
    for n in range(6):
        Image.fromarray(picture(n)).save(tmp_path / f"{n}.png")
    with open_video(tmp_path, cache_bytes=2 * H * W * 3) as video:
        for n in range(6):
            video[n][:] = 255
            assert video._frames._cache.n_bytes <= 2 * H * W * 3
        (tmp_path / "5.png").unlink()
        np.testing.assert_array_equal(video[5], picture(5))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int, corner: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    for n in range(2):
        Image.fromarray(picture(60)).save(tmp_path / f"{n}.{suffix}", exif=exif)
    with open_video(tmp_path) as video:
        assert video.image_size == ((H, W) if orientation < 5 else (W, H))
        assert video[1][corner][0] > 180 and video[1][corner][1] < 80
    if suffix == "jpg":
        assert read_image(tmp_path / "0.jpg", upright=False).shape == (H, W, 3)


def test_all_kinds_of_pixels_become_rgb(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, W).astype(np.uint16)[None].repeat(H, 0)
    cv2.imwrite(str(tmp_path / "grey16.png"), ramp)
    np.testing.assert_allclose(read_image(tmp_path / "grey16.png")[..., 1], ramp / 257, atol=1)
    cv2.imwrite(str(tmp_path / "colour16.tif"), picture(100)[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "colour16.tif"), picture(100))
    Image.fromarray(picture(90)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), picture(90))
    alpha = np.dstack([picture(80), np.full((H, W), 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), picture(80))
    Image.fromarray(picture(70)[..., 1]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[..., 0], picture(70)[..., 1])


def test_single_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(picture(5)).save(tmp_path / "one.png")
    with open_video(tmp_path / "one.png") as video:
        assert len(video) == 1 and video.frame_names == ("one.png",)
        np.testing.assert_array_equal(video[0], picture(5))


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no frame")
    with pytest.raises(VideoError, match="holds no images"):
        open_video(tmp_path)
    for n in range(3):
        Image.fromarray(picture(n)[: H - (n == 1)]).save(tmp_path / f"{n}.png")
    with pytest.raises(VideoError, match=r"1\.png: this frame has another size[\s\S]*20 x 30[\s\S]*19 x 30"):
        open_video(tmp_path)
    (tmp_path / "1.png").write_bytes(b"damaged")
    with pytest.raises(VideoError, match=r"1\.png: this image cannot be read"):
        open_video(tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(VideoError, match="an empty file"):
        open_video(tmp_path)


def scene(i: int) -> np.ndarray:
    """A grey image (H, W) from 0 to 0.9, the brightness of whose left part rises with i."""
    image = np.zeros((H, W))
    image[:, : W // 2] = 0.1 * i
    image[4:8, 20:26] = 0.9
    return image


@pytest.mark.parametrize(
    ("name", "dtype", "white"),
    [
        ("clip.tif", np.uint8, 255),
        ("clip.tif", np.uint16, 1023),
        ("clip.tiff", np.uint16, 4095),
        ("clip.stk", np.uint16, 16383),  # told by its content
        ("clip", np.uint16, 65535),
        ("clip.tif", np.int32, 4095),
        ("clip.tif", np.float32, 1),
        ("clip.tif", np.float32, 0.0625),
        ("clip.tif", np.float32, 255),
        ("clip.tif", np.float32, 4095),
        ("clip.png", np.uint8, 255),
        ("clip.webp", np.uint8, 255),
    ],
)
def test_all_images_of_a_file_are_frames_in_full_brightness(tmp_path: Path, name, dtype, white) -> None:
    pages = [Image.fromarray((scene(i) * white + (dtype != np.float32) / 2).astype(dtype)) for i in range(7)]
    form = {".png": "PNG", ".webp": "WEBP"}.get(Path(name).suffix, "TIFF")
    more = {"duration": 50, "lossless": True} if form != "TIFF" else {}
    pages = [page.convert("RGB") for page in pages] if form == "WEBP" else pages
    pages[0].save(tmp_path / name, format=form, save_all=True, append_images=pages[1:], **more)
    with open_video(tmp_path / name) as video:
        assert (video.n_frames, video.image_size, video.frame_names) == (7, (H, W), ())
        assert video.fps == (20 if more else 25)
        for i in (3, 0, 6, 5):
            expected = np.repeat(scene(i)[..., None] * 255, 3, -1)
            np.testing.assert_allclose(video[i], expected, atol=1.01)


def test_a_folder_of_deep_images_has_one_white(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), ((scene(i) if i else scene(0) / 4) * 4095).astype(np.uint16))
    with open_video(tmp_path) as video:
        assert [int(image.max()) for _, image in video.frames(range(3))] == [57, 229, 229]
    cv2.imwrite(str(tmp_path / "3.png"), (scene(1) * 255).astype(np.uint8))
    with pytest.raises(VideoError, match="another kind of numbers"):
        open_video(tmp_path)


def test_previews_and_covers_are_no_frames(tmp_path: Path) -> None:
    pages = [Image.fromarray(picture(10 * i)) for i in range(4)]
    pages[0].save(tmp_path / "a.png", save_all=True, append_images=pages[1:], default_image=True)
    assert open_video(tmp_path / "a.png").n_frames == 3
    small = pages[0].resize((W // 2, H // 2))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=[small, pages[1]])
    assert open_video(tmp_path / "a.tif").n_frames == 2


@pytest.mark.parametrize(
    ("pages", "more", "message"),
    [
        ([scene(1) * 4 - 2], {}, "values from -2 to 1.6"),
        ([scene(1) * 9], {}, "values from 0 to 8.1"),
        ([scene(1), scene(2)[:9]], {}, "pages of one size"),
        ([scene(1)], {"description": "ImageJ=1.53t\nimages=900\nframes=900\n"}, "images=900"),
        ([scene(1), scene(2)], {"description": "ImageJ=1.53t\nimages=2\nchannels=2\n"}, "channels=2"),
    ],
)
def test_stacks_that_are_no_video_are_refused(tmp_path: Path, pages, more, message) -> None:
    images = [Image.fromarray(page.astype(np.float32)) for page in pages]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:], **more)
    with pytest.raises(VideoError, match=message) as error:
        open_video(tmp_path / "a.tif")
    assert "a.tif" in str(error.value) and "fix:" in str(error.value)


def test_a_folder_with_several_stacks_is_refused(tmp_path: Path) -> None:
    images = [Image.fromarray(picture(i)) for i in range(3)]
    for name in ("a.tif", "b.tif"):
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:])
    with pytest.raises(VideoError, match="holds several images"):
        open_video(tmp_path)


@pytest.mark.parametrize(("form", "white"), [("gray16le", 4095), ("gray16le", 65535), ("rgb48le", 1023)])
def test_videos_of_16_bits_are_shown_in_full_brightness(tmp_path: Path, form: str, white: int) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, form
        for i in range(4):
            image = (scene(i) * white).astype(np.uint16)
            image = image if form == "gray16le" else np.stack([image] * 3, -1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=form)))
        out.mux(stream.encode())
    with open_video(tmp_path / "a.mkv") as video:
        for i in (2, 0, 3):
            np.testing.assert_allclose(video[i][..., 1], scene(i) * 255, atol=2)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_all_images_of_a_file_are_turned(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise
    pages = [Image.fromarray(picture(20 * i)) for i in range(4)]
    more = {"lossless": True} if name == "a.webp" else {}
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], exif=exif, **more)
    with open_video(tmp_path / name) as video:
        assert (video.n_frames, video.image_size) == (4, (W, H))
        for i in (3, 1):
            np.testing.assert_array_equal(video[i], np.rot90(picture(20 * i), -1))


def test_a_stack_that_breaks_off_is_said(tmp_path: Path) -> None:
    pages = [Image.fromarray(picture(20 * i)) for i in range(6)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.warns(PosewarperWarning, match="cut off; [345] images can be read"):
        video = open_video(tmp_path / "a.tif")
    assert video.n_frames in (3, 4, 5)
    np.testing.assert_array_equal(video[2], picture(40))
