"""The clip as a whole: keypoints on the figure, hidden where they are hidden, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.demo.backdrop import POST_X, POST_Z
from posewarper.demo.bones import pose_figure
from posewarper.demo.camera import HEIGHT, WIDTH
from posewarper.demo.clip import DRAWN, FPS, N_FRAMES, render_scene
from posewarper.demo.figure import PARTS
from posewarper.demo.filming import (
    SHUTTER,
    camera_at,
    exposure_moments,
    film_frame,
    keypoints_at,
    stage_scene,
    vertices_at,
)
from posewarper.demo.rendering import map_tiles
from posewarper.formats.labels import read_labels
from posewarper.skeletons import COCO
from posewarper.video.source import open_video

_TORSO = ("trunk", "pelvis", "rucksack")
# What may be seen at the pixel of a visible keypoint.
_BELONGS = {
    **{name: ("head",) for name in COCO.names[:5]},
    **{f"{s}_shoulder": ("trunk", f"{s}_arm") for s in ("left", "right")},
    **{f"{s}_elbow": (f"{s}_arm", f"{s}_forearm") for s in ("left", "right")},
    **{f"{s}_wrist": (f"{s}_forearm", f"{s}_hand") for s in ("left", "right")},
    **{f"{s}_hip": (*_TORSO[:2], f"{s}_thigh") for s in ("left", "right")},
    **{f"{s}_knee": (f"{s}_thigh", f"{s}_shank") for s in ("left", "right")},
    **{f"{s}_ankle": (f"{s}_shank", f"{s}_foot") for s in ("left", "right")},
}


@pytest.fixture(scope="module")
def scene():
    return stage_scene(N_FRAMES / FPS, 0)


@pytest.fixture(scope="module")
def labels(scene):
    """(135, 17, 2) and (135, 17)."""
    found = [keypoints_at(scene, i / FPS) for i in range(N_FRAMES)]
    return np.stack([f[0] for f in found]), np.stack([f[1] for f in found])


def column(name):
    return COCO.names.index(name)


def test_the_whole_figure_is_in_the_picture(labels):
    keypoints, visibility = labels
    assert keypoints.min() > 5
    assert (keypoints < (WIDTH - 5, HEIGHT - 5)).all()
    assert set(np.unique(visibility)) == {1, 2}
    # Large enough to be worth looking at, and nearer on the way back.
    tall = np.ptp(keypoints[..., 1], axis=1)
    assert (tall > 230).all()
    assert tall[-10:].mean() > 1.1 * tall[:10].mean()


def test_most_keypoints_are_seen_and_the_far_side_is_not(labels):
    _, visibility = labels
    assert 0.5 < (visibility == 2).mean() < 0.85
    # Walking to the right, the left side is the far one; on the way back it is the near one.
    assert (visibility[:15, column("left_shoulder")] == 1).all()
    assert (visibility[:15, column("right_shoulder")] == 2).all()
    assert (visibility[100:110, column("right_ear")] == 1).all()
    assert (visibility[100:110, column("left_ear")] == 2).all()
    # Facing the camera in the turn, all of the face and both shoulders.
    face = [column(n) for n in ("nose", "left_eye", "right_eye", "left_shoulder", "right_shoulder")]
    facing = (visibility[50:100, face] == 2).all(1)
    assert facing.sum() >= 8


@pytest.mark.parametrize("frame", range(0, N_FRAMES, 9))
def test_the_pixel_of_a_visible_keypoint_shows_what_it_belongs_to(scene, labels, frame):
    camera = camera_at(scene, frame / FPS)
    (vertices,) = vertices_at(scene, [frame / FPS])
    seen = map_tiles(scene.surface, vertices, camera, (0, 0, WIDTH, HEIGHT), fine=1)
    parts = np.array(["nothing", *np.array(PARTS)[scene.surface.parts]])
    keypoints, visibility = labels[0][frame], labels[1][frame]
    for name, (x, y), seen_there in zip(COCO.names, np.rint(keypoints).astype(int), visibility, strict=True):
        part = parts[seen.index[y, x]]
        assert part != "nothing", name
        if seen_there == 2:
            assert part in _BELONGS[name], name


def test_what_passes_behind_the_post_is_hidden(scene, labels):
    """Twice, for a few frames each, and exactly where the post is in the picture."""
    keypoints, visibility = labels
    nose = visibility[:, column("nose")] == 1
    behind = []
    for i in np.flatnonzero(nose):
        post, _ = camera_at(scene, i / FPS).project([[POST_X, 1.6, POST_Z]])
        if abs(keypoints[i, column("nose"), 0] - post[0, 0]) < 17:
            behind.append(int(i))
    assert np.array_equal(np.flatnonzero(nose), behind)
    gaps = np.flatnonzero(np.diff(behind) > 1)
    assert len(gaps) == 1
    assert all(2 <= len(part) <= 8 for part in np.split(np.array(behind), gaps + 1))


def test_the_picture_shows_the_post_where_it_hides_a_keypoint(scene, labels):
    keypoints, visibility = labels
    frame = int(np.flatnonzero(visibility[:, column("nose")] == 1)[1])
    image = film_frame(scene, frame).astype(int)
    x, y = np.rint(keypoints[frame, column("nose")]).astype(int)
    red, green, _ = image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(0)
    assert green > red  # painted iron, not skin


def test_the_middle_of_an_exposure_is_the_time_of_the_labels(scene):
    numbers = set()
    for i in (0, 12, 40, 74):
        moments = exposure_moments(scene, i / FPS)
        assert moments.mean() == pytest.approx(i / FPS, abs=1e-12)
        assert moments[len(moments) // 2] == pytest.approx(i / FPS, abs=1e-12)
        assert np.ptp(moments) == pytest.approx(SHUTTER * (1 - 1 / len(moments)))
        numbers.add(len(moments))
    assert numbers == {3, 5}
    # A foot in the swing is half way, at the keypoint's time, between where it is at the ends.
    moments = exposure_moments(scene, 12 / FPS)
    opens, middle, closes = (keypoints_at(scene, t)[0] for t in moments[[0, len(moments) // 2, -1]])
    assert np.linalg.norm(closes - opens, axis=1).max() > 5
    np.testing.assert_allclose((opens + closes) / 2, middle, atol=0.25)


def test_a_frame_looks_like_the_figure_where_the_keypoints_are(scene, labels):
    keypoints, visibility = labels
    frame = 60
    image = film_frame(scene, frame)
    assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert image.std() > 30

    def colour(name):
        x, y = np.rint(keypoints[frame, column(name)]).astype(int)
        return image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).astype(int).mean(0)

    assert (
        visibility[frame, [column("right_knee"), column("right_shoulder"), column("right_wrist")]].min() == 2
    )
    knee, shoulder, wrist = (colour(f"right_{part}") for part in ("knee", "shoulder", "wrist"))
    assert knee[2] > knee[0] + 15  # blue jeans
    assert shoulder[0] > shoulder[2] + 20  # a red shirt
    assert wrist[0] > wrist[1] > wrist[2]  # skin


def test_the_same_seed_gives_the_same_clip_and_another_seed_another_street():
    (one, labels), (same, _), (other, others) = (render_scene(2, seed) for seed in (3, 3, 4))
    first, again, street = next(one), next(same), next(other)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - street).mean() > 5
    several, _ = render_scene(2, 3, processes=2)
    frames = list(several)
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[0], first)
    # The walk is the same, the hand that holds the camera another.
    gap = np.abs(labels.tracks[0].keypoints - others.tracks[0].keypoints)
    assert 0 < gap.max() < 12
    assert len(list(one)) == 1
    assert (labels.n_frames, labels.image_size, labels.skeleton) == (2, (HEIGHT, WIDTH), COCO)
    assert labels.labelled_frames.tolist() == [0, 1]


def test_keypoints_are_those_of_the_figure(scene):
    time = 0.7
    xy, _ = camera_at(scene, time).project(pose_figure(scene.walk, [time]).keypoints()[0])
    np.testing.assert_array_equal(keypoints_at(scene, time)[0], xy)


def test_the_clip_that_comes_along_is_what_is_drawn_here(scene, labels):
    truth = read_labels(DRAWN.with_suffix(".json"))
    assert truth.labelled_frames.tolist() == list(range(N_FRAMES))
    np.testing.assert_allclose(truth.tracks[0].keypoints, labels[0], atol=0.01)
    np.testing.assert_array_equal(truth.tracks[0].visibility, labels[1])
    with open_video(DRAWN) as video:
        assert (video.n_frames, video.image_size, video.fps) == (N_FRAMES, (HEIGHT, WIDTH), FPS)
        for frame in (0, 77, N_FRAMES - 1):
            away = np.abs(video[frame].astype(int) - film_frame(scene, frame))
            others = np.abs(video[frame].astype(int) - film_frame(scene, (frame + 2) % N_FRAMES))
            # But for the grain, which the encoder smooths.
            assert 1.5 * away.mean() < others.mean()
            assert away.mean() < 5
