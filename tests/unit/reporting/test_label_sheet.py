"""The sheet of labels: every part is there, and the labels lie where they belong."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from posewarper.errors import LabelsError, OutputError
from posewarper.reporting.label_sheet import fastest_label, side_colours, write_label_sheet
from posewarper.reporting.overlay import LEFT, RIGHT, TRACK_COLOURS
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track
from posewarper.video.images import read_image
from posewarper.video.source import open_video

HEIGHT, WIDTH, N_FRAMES = 240, 320, 9
SKELETON = Skeleton(("nose", "left_hand", "right_hand"), ((0, 1), (0, 2)))
SHAPE = np.array([[0.0, 0.0], [-20.0, 40.0], [20.0, 40.0]])
# The subject stands but for its right hand, which moves by more than its own size a frame in the middle.
HAND = np.array([0, 0, 0, 0, 14, 30, 44, 50, 50], float)


def points() -> np.ndarray:
    moved = np.repeat(SHAPE[None], N_FRAMES, 0) + np.array([120.0, 90.0])
    moved[:, 2, 0] += HAND
    return moved


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A white square of 13 pixels under the right hand, on grey."""
    folder = tmp_path_factory.mktemp("frames")
    for n, (x, y) in enumerate(points()[:, 2].astype(int)):
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        frame[y - 6 : y + 7, x - 6 : x + 7] = 255
        assert cv2.imwrite(str(folder / f"{n}.png"), frame)
    return folder


def labels(frames=range(N_FRAMES), skeleton: Skeleton = SKELETON, shift: int = 0, **more) -> Labels:
    """Labels on the frames given, each with the keypoints of ``shift`` frames before."""
    frames = np.array(frames)
    keypoints = points()[np.clip(frames - shift, 0, N_FRAMES - 1)]
    track = Track(frames, keypoints)
    return Labels(skeleton, {0: track}, **{"image_size": (HEIGHT, WIDTH), **more})


def sheet(clip, tmp_path, given: Labels, name: str = "sheet.png") -> np.ndarray:
    with open_video(clip) as video:
        write_label_sheet(tmp_path / name, video, given)
    return read_image(tmp_path / name)


def likeness(pixels: np.ndarray, colour) -> np.ndarray:
    return (np.abs(pixels.astype(int) - np.asarray(colour)) < 14).all(-1)


def test_all_parts_are_there(clip, tmp_path) -> None:
    image = sheet(clip, tmp_path, labels())
    assert image.shape[1] == 1600 and image.shape[0] > 1500
    for colour in (LEFT, RIGHT, TRACK_COLOURS[0]):
        assert likeness(image, colour).sum() > 500
    fewer = sheet(clip, tmp_path, labels([0, 4]), "fewer.jpg")
    assert fewer.shape[0] < image.shape[0]  # one row of frames less


@pytest.mark.parametrize("shift", [0, 1])
def test_on_neighbouring_frames_labels_fit_their_own_best(clip, tmp_path, shift: int) -> None:
    image = sheet(clip, tmp_path, labels(shift=shift))
    # The last row: three squares 512 pixels wide and as high, 16 pixels apart and from the lower edge.
    cells = [image[-528:-16, 16 + n * 528 :][:, :512] for n in range(3)]
    white = []
    for cell in cells:
        near = cell[256 - 60 : 256 + 61, 256 - 60 : 256 + 61]
        assert likeness(near[60], RIGHT).any()  # the dot in the middle is the right hand
        white.append(likeness(near, (255, 255, 255)).mean())
    assert np.argmax(white) == 1 - shift
    assert white[1 - shift] > 0.5 and sorted(white)[1] < 0.1


def as_poses(tracks) -> Poses:
    skeleton = Skeleton(("a", "b"))
    made = {
        i: Track(
            np.array(f), np.array(k, float), keypoint_scores=np.ones((len(f), 2)), visibility=np.array(v)
        )
        for i, (f, k, v) in tracks.items()
    }
    return Poses(skeleton, made, (100, 100), 30)


def test_the_fastest_label() -> None:
    still = ([0, 5, 10], np.zeros((3, 2, 2)), np.full((3, 2), 2))
    keypoints = np.zeros((4, 2, 2))
    keypoints[2:, 0] = (6, 8)
    keypoints[2:, 1] = (12, 16)
    moving = ([4, 8, 10, 20], keypoints, np.full((4, 2), 2))
    assert fastest_label(as_poses({0: still, 3: moving})) == (3, 8, 1)
    # A keypoint that is hidden there comes after one that is seen.
    hidden = np.full((4, 2), 2)
    hidden[1, 1] = 1
    assert fastest_label(as_poses({3: (*moving[:2], hidden)})) == (3, 8, 0)
    # The ends of the clip have one neighbour only.
    ends = ([0, 2, 29], np.array([[[0, 0]] * 2, [[9, 0]] * 2, [[9, 1]] * 2]), np.full((3, 2), 2))
    assert fastest_label(as_poses({0: ends}))[1] == 2
    assert fastest_label(as_poses({0: ([7], np.zeros((1, 2, 2)), np.full((1, 2), 2))})) == (0, 7, None)


def test_colours_follow_the_sides() -> None:
    assert side_colours(Skeleton(("tail", "paw_r", "paw_l"))) == [TRACK_COLOURS[0], RIGHT, LEFT]


def test_odd_labels(clip, tmp_path) -> None:
    odd = Skeleton(("näse 鼻", "x" * 80, "never"), ())
    given = labels([3], odd)
    visibility = np.array([[2, 1, 0]])
    track = given.tracks[0]
    keypoints = np.array(track.keypoints)
    keypoints[0, 1] = (-50, 1e6)
    one = replace(given, tracks={0: Track(track.frames, keypoints, visibility=visibility)})
    assert sheet(clip, tmp_path, one).shape[1] == 1600
    many = Skeleton(tuple(f"keypoint {n}" for n in range(130)))
    rows = np.random.default_rng(0).uniform(20, 200, (2, 130, 2))
    dense = Labels(many, {0: Track(np.array([0, 8]), rows)})
    assert sheet(clip, tmp_path, dense).shape[1] == 1600


def test_one_frame_has_no_neighbours(tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "only.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    single = sheet(tmp_path / "only.png", tmp_path, labels([0]))
    (tmp_path / "two").mkdir()
    for n in range(2):
        cv2.imwrite(str(tmp_path / "two" / f"{n}.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    assert sheet(tmp_path / "two", tmp_path, labels([0]), "two.png").shape[0] > single.shape[0] + 300


def test_what_cannot_be_drawn_is_refused(clip, tmp_path) -> None:
    with open_video(clip) as video:
        with pytest.raises(OutputError, match=r"\.png or \.jpg"):
            write_label_sheet(tmp_path / "sheet.gif", video, labels())
        with pytest.raises(LabelsError, match="no labels"):
            write_label_sheet(tmp_path / "sheet.png", video, Labels(SKELETON, {}))
        with pytest.raises(LabelsError, match="another size"):
            write_label_sheet(tmp_path / "sheet.png", video, labels(image_size=(WIDTH, HEIGHT)))
    assert list(tmp_path.iterdir()) == []
