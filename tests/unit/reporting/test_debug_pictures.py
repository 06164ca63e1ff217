"""What training looks at, as a picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from posewarper.errors import OutputError
from posewarper.heatmaps import encode
from posewarper.reporting.network_pictures import write_debug_picture
from posewarper.skeletons import Skeleton

SKELETON = Skeleton(("nose", "left_eye", "right_eye"), ((0, 1), (0, 2)))
GREY = 90


def sample(n=3, frames=2):
    images = np.full((n, frames, 64, 48, 3), GREY, np.uint8)
    images[:, 1:] = (GREY, 60, 30)
    target = np.repeat(encode([[3, 4], [8, 5], [np.nan] * 2], (16, 12), 1.0)[None], n, 0)
    predicted = np.repeat(encode([[6, 12], [8, 5], [2, 2]], (16, 12), 1.0)[None], n, 0)
    weights = np.repeat([[1.0, 1.0, 0.0]], n, 0)
    return images, target, predicted, weights


def read(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)


def cells(picture, row=0):
    """Crops of 180 by 240, then for each keypoint two maps of 88 by 117, with 6 between them and 34 above."""
    y = 34 + row * 246
    crops = [picture[y : y + 240, 6 + 186 * n : 186 + 186 * n] for n in range(3)]
    left = [6 + 186 * 3 + 94 * k for k in range(3)]
    maps = [[picture[y + top : y + top + 117, x : x + 88] for top in (0, 123)] for x in left]
    return crops, maps


def test_labels_and_predictions_are_where_they_should_be(tmp_path):
    write_debug_picture(tmp_path / "a.png", *sample(), SKELETON, most=2)
    picture = read(tmp_path / "a.png")
    assert picture.shape == (34 + 2 * 246, 6 + 3 * 186 + 3 * 94, 3)
    crops, maps = cells(picture, row=1)
    # A heatmap pixel is 15 pixels here.
    nose, elsewhere = (slice(60, 76), slice(45, 61)), (slice(181, 197), slice(90, 106))
    assert np.abs(crops[0][nose] - GREY).max() > 40 and np.abs(crops[0][elsewhere] - GREY).max() == 0
    assert np.abs(crops[1][nose] - GREY).max() == 0 and np.abs(crops[1][elsewhere] - GREY).max() > 40
    # What does not count is not drawn: the right eye would be at 2, 2.
    assert np.abs(crops[1][25:50, 25:50] - GREY).max() == 0
    assert (crops[2] == (GREY, 60, 30)).all()
    for which, (x, y) in enumerate(((3, 4), (6, 12))):
        peak = maps[0][which][int((y + 0.5) * 117 / 16), int((x + 0.5) * 88 / 12)]
        assert peak[0] > peak[2] + 60  # red
        assert maps[0][which][-4, 4, 2] > maps[0][which][-4, 4, 0] + 60  # blue
    frames = [[tuple(m[0, 40]) == (255, 215, 0) for m in column] for column in maps]
    assert frames == [[True, True], [True, True], [False, False]]


def test_single_frames_and_few_samples(tmp_path):
    images, target, predicted, weights = sample(n=1, frames=1)
    predicted[:] = -1  # a network that says nothing
    write_debug_picture(tmp_path / "a.jpg", images, target, predicted, weights, SKELETON)
    assert read(tmp_path / "a.jpg").shape == (34 + 246, 6 + 2 * 186 + 3 * 94, 3)


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="no samples"):
        write_debug_picture(tmp_path / "a.png", *(part[:0] for part in sample()), SKELETON)
    with pytest.raises(OutputError):
        write_debug_picture(tmp_path / "a.txt", *sample(), SKELETON)
    assert not list(tmp_path.iterdir())
