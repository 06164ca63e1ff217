"""Drawn skeletons sit where the keypoints are, and overlays show every frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from posewarper.errors import LabelsError, OutputError
from posewarper.reporting.overlay import LEFT, RIGHT, TRACK_COLOURS, draw_pose, write_overlay, write_sheet
from posewarper.skeletons import Skeleton
from posewarper.structures import Poses, Track
from posewarper.video.source import open_video
from posewarper.video.writing import write_video

SKELETON = Skeleton(("nose", "right_hand", "left_hand", "right_foot", "left_foot"), ((1, 3), (2, 4), (0, 1)))
GREY = np.full((120, 160, 3), 100, np.uint8)
POINTS = np.array([(80, 20), (40, 40), (120, 40), (40, 100), (120, 100)], float)


def is_like(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 12)


def test_sides_have_their_colours_and_the_input_stays() -> None:
    before = GREY.copy()
    drawn = draw_pose(GREY, POINTS, SKELETON, colour=(0, 255, 0), thickness=3)
    np.testing.assert_array_equal(GREY, before)
    assert drawn.dtype == np.uint8 and drawn.shape == GREY.shape
    for (x, y), colour in zip(POINTS.astype(int), ((0, 255, 0), RIGHT, LEFT, RIGHT, LEFT), strict=True):
        assert is_like(drawn[y, x], colour)
    assert is_like(drawn[70, 40], RIGHT) and is_like(drawn[70, 120], LEFT)
    assert is_like(drawn[30, 60], (0, 255, 0))  # from the middle to a side
    np.testing.assert_array_equal(drawn[70, 80], GREY[70, 80])


@pytest.mark.parametrize(
    "names", [("LKnee", "RKnee"), ("RKnee", "LKnee"), ("wingL", "wingR"), ("paw_r", "paw_l")]
)
def test_sides_are_read_from_the_names(names: tuple[str, str]) -> None:
    drawn = draw_pose(GREY, POINTS[1:3], Skeleton(names), thickness=3)
    left_first = names[0] in ("LKnee", "wingL")
    assert is_like(drawn[40, 40], LEFT if left_first else RIGHT)
    assert is_like(drawn[40, 120], RIGHT if left_first else LEFT)


@pytest.mark.parametrize(("x", "y"), [(30, 40), (30.5, 40), (30.25, 40.75)])
def test_dots_are_drawn_to_a_fraction_of_a_pixel(x: float, y: float) -> None:
    black = np.zeros((80, 60, 3), np.uint8)
    drawn = draw_pose(black, [(x, y)], Skeleton(("nose",)), colour=(255, 255, 255), thickness=4)[..., 0]
    weight = np.maximum(drawn.astype(float) - 20, 0)
    rows, columns = np.mgrid[:80, :60]
    assert (weight * columns).sum() / weight.sum() == pytest.approx(x, abs=0.06)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=0.06)


@pytest.mark.parametrize("y", [20, 20.25, 20.5, 20.75])
def test_limbs_are_drawn_to_a_fraction_of_a_pixel(y: float) -> None:
    black = np.zeros((40, 80, 3), np.uint8)
    ends = [(10, y), (70, y)]
    drawn = draw_pose(black, ends, Skeleton(("a", "b"), ((0, 1),)), colour=(255, 255, 255), thickness=3)
    column = drawn[:, 40, 0].astype(float)
    assert (column * np.arange(40)).sum() / column.sum() == pytest.approx(
        y, abs=0.2
    )  # OpenCV itself errs by 0.16


def test_what_is_not_there_is_left_out() -> None:
    points = POINTS.copy()
    points[1] = np.nan
    drawn = draw_pose(GREY, points, SKELETON)
    for x, y in ((40, 40), (40, 70), (60, 30)):  # the keypoint and both of its limbs
        np.testing.assert_array_equal(drawn[y, x], GREY[y, x])
    assert is_like(drawn[100, 40], RIGHT)
    hidden = draw_pose(GREY, POINTS, SKELETON, visibility=[2, 0, 2, 2, 2])
    np.testing.assert_array_equal(hidden, drawn)
    np.testing.assert_array_equal(draw_pose(GREY, np.full((5, 2), np.nan), SKELETON), GREY)
    far = draw_pose(GREY, POINTS + 1e7, SKELETON)
    np.testing.assert_array_equal(far, GREY)


def test_low_scores_are_more_transparent_and_hidden_keypoints_are_rings() -> None:
    def strength(score: float) -> float:
        drawn = draw_pose(GREY, POINTS, SKELETON, scores=[score] * 5)
        return float(np.abs(drawn.astype(int) - GREY).sum())

    strengths = [strength(score) for score in (0.1, 0.4, 0.6, 0.9)]
    assert strengths == sorted(strengths) and strengths[0] < 0.5 * strengths[-1] and strengths[0] > 0
    drawn = draw_pose(GREY, POINTS, SKELETON, visibility=[2, 1, 2, 2, 2], thickness=5)
    assert drawn[40, 40].max() < 40 and is_like(drawn[40, 120], LEFT)


def test_width_grows_with_the_instance() -> None:
    def drawn_share(scale: float) -> float:
        canvas = np.zeros((900, 900, 3), np.uint8)
        return np.count_nonzero(draw_pose(canvas, POINTS * scale, SKELETON).any(-1)) / scale

    # A hairline would cover pixels in proportion to its length: here they grow faster.
    assert drawn_share(7) > 1.5 * drawn_share(2)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", [np.full((240, 320, 3), 100, np.uint8)] * 8, fps=12.5)
    return tmp_path / "clip.mp4"


def moving_poses() -> Poses:
    """Track 3 moves to the right on frames 0 to 7; track 5 is there on frames 2 and 3."""
    still = POINTS * 1.5 + np.array([20, 50])
    moving = np.stack([still + np.array([5 * i, 0]) for i in range(8)])
    tracks = {
        3: Track(np.arange(8), moving, keypoint_scores=np.ones((8, 5))),
        5: Track(
            np.array([2, 3]), np.stack([still - np.array([0, 40])] * 2), keypoint_scores=np.ones((2, 5))
        ),
    }
    return Poses(SKELETON, tracks, (240, 320), 8, labelled_frames=np.array([4]))


def test_overlay_video(clip: Path, tmp_path: Path) -> None:
    poses, seen = moving_poses(), []
    with open_video(clip) as video:
        write_overlay(
            tmp_path / "out.mp4", video, poses, progress=lambda *step: seen.append(step), max_side=160
        )
        write_overlay(tmp_path / "large.mp4", video, poses)
    assert seen == [("overlay", i + 1, 8) for i in range(8)]
    with open_video(tmp_path / "out.mp4") as small, open_video(tmp_path / "large.mp4") as large:
        assert len(small) == len(large) == 8 and large.fps == 12.5
        assert small.image_size == (120, 160) and large.image_size == (240, 320)
        for i, image in large.frames(range(8)):
            x, y = np.rint(poses.tracks[3].keypoints[i, 3]).astype(int)
            assert np.abs(image[y, x].astype(int) - RIGHT).max() < 60
            badge = image[1, 1].astype(int)
            assert (badge[2] < 100) == (i == 4), "only the labelled frame has a golden badge"
            # Here passes a limb of track 5, and none of track 3.
            assert (np.abs(image[90, 80].astype(int) - 100).max() > 30) == (i in (2, 3))


def test_overlay_does_not_alter_what_the_video_gives(clip: Path, tmp_path: Path) -> None:
    with open_video(clip) as video:
        before = video[0]
        write_overlay(tmp_path / "out.mp4", video, moving_poses())
        np.testing.assert_array_equal(video[0], before)


def test_sheet(clip: Path, tmp_path: Path) -> None:
    poses = moving_poses()
    with open_video(clip) as video:
        write_sheet(tmp_path / "sheet.png", video, poses, [0, 4, 7, 2])
        sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
        assert sheet.shape == (480, 640, 3)
        for n, i in enumerate((0, 4, 7, 2)):
            x, y = np.rint(poses.tracks[3].keypoints[i, 3]).astype(int)
            assert is_like(sheet[n // 2 * 240 + y, n % 2 * 320 + x], RIGHT)
        write_sheet(tmp_path / "sheet.jpg", video, poses, range(8), max_side=300)
        assert max(cv2.imread(str(tmp_path / "sheet.jpg")).shape) <= 304
        with pytest.raises(OutputError, match=r"\.png or \.jpg"):
            write_sheet(tmp_path / "sheet.mp4", video, poses, [0])
        with pytest.raises(LabelsError, match="no frames to show"):
            write_sheet(tmp_path / "none.png", video, poses, [])


def test_poses_of_another_size_are_refused(clip: Path, tmp_path: Path) -> None:
    track = Track(np.array([0]), POINTS[None], keypoint_scores=np.ones((1, 5)))
    with open_video(clip) as video, pytest.raises(LabelsError, match="another size"):
        write_overlay(tmp_path / "out.mp4", video, Poses(SKELETON, {0: track}, (120, 160), 8))
    assert not (tmp_path / "out.mp4").exists()


def test_colours_of_tracks_differ_from_those_of_sides() -> None:
    assert len({LEFT, RIGHT, *TRACK_COLOURS}) == 2 + len(TRACK_COLOURS)
