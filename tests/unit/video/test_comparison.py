"""Pictures of the same frames are told from those of others, also where only a small subject differs."""

from __future__ import annotations

import cv2
import numpy as np

from posewarper.video.comparison import show_the_same


def scene(x: int, y: int, *, room: int = 0) -> np.ndarray:
    """A dark animal of 20 x 12 pixels in a room (240, 320) that stays as it is."""
    noise = np.random.default_rng(room).uniform(-1000, 1000, (240, 320, 3)).astype(np.float32)
    image = np.clip(150 + cv2.GaussianBlur(noise, (0, 0), 9), 0, 255).astype(np.uint8)
    cv2.ellipse(image, (x, y), (10, 6), 0, 0, 360, (25, 20, 15), -1)
    return image


WAY = [(40 + 30 * n, 60 + 15 * n) for n in range(5)]
FRAMES = [scene(x, y) for x, y in WAY]


def compressed(image: np.ndarray, quality: int = 30) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_a_copy_shows_the_same_also_compressed_and_darker():
    assert show_the_same(FRAMES, FRAMES)
    assert show_the_same([compressed(image) for image in FRAMES], FRAMES)
    assert show_the_same([(compressed(image) * 0.7 + 10).astype(np.uint8) for image in FRAMES], FRAMES)
    # Labels whose frames are counted from 1.
    near = [scene(x + 2, y + 1) for x, y in WAY]
    assert show_the_same(near, FRAMES)


def test_the_same_room_with_the_animal_elsewhere_is_another_video():
    others = [scene(300 - x, y + 20) for x, y in WAY]
    assert show_the_same(others, FRAMES) is False
    assert show_the_same(FRAMES[1:] + FRAMES[:1], FRAMES) is False
    assert show_the_same(others[:1], FRAMES[:1]) is False
    # The animal is there on a few of the frames only.
    assert show_the_same(others[:2] + [scene(-50, 0)] * 3, FRAMES[:2] + [scene(-50, 0)] * 3) is False
    assert show_the_same([scene(x, y, room=1) for x, y in WAY], FRAMES) is False


def test_without_pictures_of_the_same_size_nothing_is_said():
    assert show_the_same([], []) is None
    assert show_the_same([image[:120] for image in FRAMES], FRAMES) is None


def test_a_clip_without_motion_is_judged_by_the_pictures_alone():
    still = [scene(100, 100)] * 3
    assert show_the_same([compressed(image) for image in still], still)
    assert show_the_same([scene(200, 100)] * 3, still) is False
