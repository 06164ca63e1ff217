"""Folders of frames: order, orientation, kinds of images, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from posewarper.errors import VideoError
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
