"""Labels carried along a video whose motion is known, by every method, and sums done by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torchvision.models.optical_flow import raft_small

from posewarper.crops import crop_image, normalise
from posewarper.errors import ConfigError, LabelsError, ModelError
from posewarper.geometry import paper_crop_transform, paper_points_to_image
from posewarper.heatmaps import paper_decode, paper_encode
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.motion.raft import raft_flow
from posewarper.paper.carrying import METHODS, Rules, cycle_error, propagate_video
from posewarper.posetrack.samples import samples_from_labels
from posewarper.posetrack.selection import Step
from posewarper.skeletons import POSETRACK, Skeleton
from posewarper.structures import InstanceTable
from posewarper.video.source import FrameSource

CROP, SIGMA = (64, 32), 1
FIRST, N_FRAMES = 1, 12
EARS = [3, 4]
# From frame 5: a label, frames before and after, and one that the table does not list.
STEPS = [Step(5, 5, 0), Step(3, 5, -2), Step(6, 5, 1), Step(8, 5, 3)]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_model(moves: bool) -> PoseWarper:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = ModelSpec(
            "hrnet_w18_small", POSETRACK, CROP, SIGMA, head_width=4, head_blocks=1, head_dilations=(1, 2)
        )
        made = PoseWarper(spec).eval().double()
        with torch.no_grad():
            made.final_layer.weight.normal_(std=0.1)
            if moves:
                for offsets in made.warp_head.offsets:
                    offsets.weight.normal_(std=0.3)
                for parameter in made.warp_head.residual_stack.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


@pytest.fixture(scope="module")
def fresh() -> PoseWarper:
    return make_model(moves=False)


@pytest.fixture(scope="module")
def moving() -> PoseWarper:
    return make_model(moves=True)


@pytest.fixture(scope="module")
def source(picture) -> FrameSource:
    images = {number: picture.image(number) for number in range(FIRST, FIRST + N_FRAMES)}
    return FrameSource(images.__getitem__, FIRST, N_FRAMES)


@pytest.fixture(scope="module")
def table(picture) -> InstanceTable:
    """Two people in frame 5 and one in frame 6; frames up to 6 are listed."""
    rng = np.random.default_rng(1)
    points = np.array([(30, 20), (70, 22)])[:, None] + rng.uniform(0, 1, (2, 17, 2)) * (12, 30)
    points[:, EARS] = np.nan
    points[1, 16] = np.nan
    boxes = np.array([(28.0, 18, 17, 35), (68, 20, 17, 35)])
    return InstanceTable(
        "v",
        tuple(f"v/{n:08}.jpg" for n in range(FIRST, 7)),
        range(FIRST, 7),
        rows=[4, 4, 5],
        keypoints=points[[0, 1, 0]],
        tracks=[7, 3, 7],
        boxes=boxes[[0, 1, 0]],
        head_boxes=np.array([(30.0, 18, 5, 5)] * 3),
        is_labelled=[False] * 4 + [True, True],
        image_ids=range(100, 106),
        ignore_regions={4: (np.zeros((3, 2)),)},
        image_size=picture.size,
        n_frames=N_FRAMES,
    )


def name(number: int) -> str:
    return f"v/{number:08}.jpg"


def carry(model, table, source, method, steps=STEPS, **options) -> InstanceTable:
    return propagate_video(model, table, steps, source, method=method, frame_name=name, **options)


def on_frame(found: InstanceTable, number: int) -> InstanceTable:
    return found.of_frame(found.frame_numbers.tolist().index(number))


@pytest.fixture(scope="module")
def raft():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return raft_small(weights=None).eval()


# What all methods share


@pytest.mark.parametrize("method", METHODS)
def test_frames_people_and_labels(method, fresh, raft, table, source) -> None:
    done = []
    found = carry(fresh, table, source, method, raft=raft, advance=done.append)
    assert sum(done) == len(STEPS)
    assert found.frame_numbers.tolist() == [1, 2, 3, 4, 5, 6, 8]
    assert found.frame_names == tuple(name(n) for n in found.frame_numbers)
    assert found.frame_numbers[found.is_labelled].tolist() == [3, 5, 6, 8]
    assert found.frame_numbers[found.rows].tolist() == [3, 3, 5, 5, 6, 6, 8, 8]
    assert found.tracks.tolist() == [7, 3] * 4 and (found.scores == 1).all()
    assert_array_equal(found.boxes, table.boxes[[0, 1] * 4])
    assert np.isfinite(found.head_boxes).all(1).tolist() == [False, False, True, True] + [False] * 4
    there = np.isfinite(table.keypoints[[0, 1] * 4, :, 0])
    assert_array_equal(np.isfinite(found.keypoints[..., 0]), there)
    assert_array_equal(np.isfinite(found.keypoint_scores), there)
    label = on_frame(found, 5)
    assert_array_equal(label.keypoints, table.keypoints[:2])
    assert np.nanmin(label.keypoint_scores) == np.nanmax(label.keypoint_scores) == 1
    if method in ("copy", "dis", "raft"):
        assert np.nanmin(found.keypoint_scores) == 1
    assert found.image_ids is None and not found.ignore_regions  # ids say nothing of frame 8


def test_frames_stay_as_they_are_where_none_is_added(table, source) -> None:
    shuffled = replace(
        table, frame_numbers=table.frame_numbers[::-1], frame_names=table.frame_names[::-1],
        rows=5 - table.rows, is_labelled=table.is_labelled[::-1],
    )  # fmt: skip
    found = propagate_video(None, shuffled, STEPS[:3], source, method="copy")
    assert found.frame_names == shuffled.frame_names
    assert_array_equal(found.image_ids, table.image_ids)
    assert found.frame_numbers[found.rows].tolist() == [6, 6, 5, 5, 3, 3]
    with pytest.raises(LabelsError, match=r"do not list[\s\S]*\[8\]"):
        propagate_video(None, table, STEPS, source, method="copy")
    with pytest.raises(LabelsError, match=r"carried from[\s\S]*\[9\]"):
        propagate_video(None, table, [Step(8, 9, -1)], source, method="copy")


def test_missing_frames_stay_unfilled(table, source, fresh) -> None:
    for missing, filled in (({3, 20}, [5, 6, 8]), ({5}, [5])):
        gappy = replace(source, missing=frozenset(missing))
        done = []
        found = carry(fresh, table, gappy, "warper", advance=done.append)
        assert found.frame_numbers[found.is_labelled].tolist() == filled
        assert sorted(set(found.frame_numbers[found.rows].tolist())) == filled and sum(done) == len(STEPS)


def test_a_labelled_frame_without_anybody_fills_with_nobody(table, source, fresh) -> None:
    empty = table.take(np.zeros(0, np.int64))
    for method in ("warper", "dis"):
        found = carry(fresh, empty, source, method)
        assert found.n_instances == 0 and found.frame_numbers[found.is_labelled].tolist() == [3, 5, 6, 8]


def test_people_without_box_keep_the_crop_of_their_label(table, source) -> None:
    bare = replace(table, boxes=np.full((3, 4), np.nan))
    found = carry(None, bare, source, "copy")
    given, copied = (samples_from_labels(one, 0.5) for one in (bare, on_frame(found, 8)))
    assert_array_equal(given.centers[:2], copied.centers)
    assert_array_equal(given.scales[:2], copied.scales)


def test_who_is_no_sample_is_not_carried_but_stays_a_label(table, source) -> None:
    crowd = replace(table, is_person=[True, False, True])
    found = carry(None, crowd, source, "dis")
    assert found.frame_numbers[found.rows].tolist() == [3, 5, 5, 6, 8]


# The network


def expected_heatmaps(model, table, source, numbers) -> torch.Tensor:
    samples = samples_from_labels(table, CROP[1] / CROP[0])
    crops = []
    for number in numbers:
        for i in range(2):
            transform = paper_crop_transform(samples.centers[i], samples.scales[i], 0.0, CROP[::-1])
            crops.append(crop_image(source.read(number), transform))
    with torch.no_grad():
        heatmaps = model.heatmaps(torch.from_numpy(normalise(np.stack(crops))).double())
    return heatmaps.unflatten(0, (len(numbers), 2))


def in_image(table, heatmaps) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and scores of heatmaps (2, K, h, w), where there is a label."""
    samples = samples_from_labels(table, CROP[1] / CROP[0])
    points, scores = paper_decode(heatmaps.numpy())
    placed = [
        paper_points_to_image(points[i], samples.centers[i], samples.scales[i], (8, 16)) for i in range(2)
    ]
    there = np.isfinite(table.keypoints[:2, :, 0])
    return np.where(there[..., None], placed, np.nan), np.where(there, scores, np.nan)


def draw(table) -> torch.Tensor:
    samples = samples_from_labels(table, CROP[1] / CROP[0])
    targets = []
    for i in range(2):
        transform = paper_crop_transform(samples.centers[i], samples.scales[i], 0.0, CROP[::-1])
        points = transform.to_crop(table.keypoints[i])
        targets.append(paper_encode(points, np.isfinite(points[:, 0]), CROP[::-1], (8, 16), SIGMA)[0])
    return torch.from_numpy(np.stack(targets)).double()


@pytest.mark.parametrize("batch", [1, 3, None])
def test_labels_are_warped_from_the_labelled_frame_to_the_others(moving, table, source, batch) -> None:
    found = carry(moving, table, source, "warper", batch=batch)
    numbers = [5, 3, 6, 8]
    seen = expected_heatmaps(moving, table, source, numbers)
    distances = []
    for heatmaps, number in zip(seen[1:], numbers[1:], strict=True):
        with torch.no_grad():
            warped = moving.warp(draw(table), source=seen[0], target=heatmaps)
        points, scores = in_image(table, warped)
        own = on_frame(found, number)
        assert_allclose(own.keypoints, points, atol=1e-6)
        assert_allclose(own.keypoint_scores, scores, rtol=1e-6)
        distances.append(np.nanmax(np.abs(points - table.keypoints[:2])))
    assert max(distances) > 5  # this head moves


def test_a_new_head_leaves_labels_where_they_are(fresh, table, source) -> None:
    found = carry(fresh, table, source, "warper")
    pixel = 200 * samples_from_labels(table, 0.5).scales[0, 1] / 16
    for number in (3, 6, 8):
        own = on_frame(found, number)
        assert 0.01 < np.nanmax(np.abs(own.keypoints - table.keypoints[:2])) <= pixel / 2 + 1e-3
        assert_allclose(own.keypoint_scores[np.isfinite(own.keypoint_scores)], 1)


@pytest.mark.parametrize("batch", [1, None])
def test_frame_by_frame_the_network_speaks_for_itself(moving, table, source, batch) -> None:
    found = carry(moving, table, source, "frame", batch=batch)
    for heatmaps, number in zip(expected_heatmaps(moving, table, source, [3, 6]), (3, 6), strict=True):
        points, scores = in_image(table, heatmaps)
        assert_allclose(on_frame(found, number).keypoints, points, atol=1e-6)
        assert_allclose(on_frame(found, number).keypoint_scores, scores, rtol=1e-6)


def test_a_label_outside_its_crop_is_lost(fresh, table, source) -> None:
    points = np.array(table.keypoints)
    points[0, 9] = 110, 70  # the blob does not reach into the crop
    found = carry(fresh, replace(table, keypoints=points), source, "warper")
    assert np.isnan(on_frame(found, 6).keypoints[0, 9]).all()
    assert_array_equal(on_frame(found, 5).keypoints[0, 9], (110, 70))


# Optical flow


def test_dis_follows_the_picture(picture, table, source) -> None:
    found = carry(None, table, source, "dis")
    for number in (3, 6, 8):
        moved = table.keypoints[:2] + (number - 5) * np.array(picture.velocity)
        assert np.nanmax(np.abs(on_frame(found, number).keypoints - moved)) < 0.35
    # In steps by frames of twice the size the answer is the same, in larger pixels.
    large = replace(source, read=lambda n: source.read(n).repeat(2, 0).repeat(2, 1))
    twice = replace(table, keypoints=table.keypoints * 2 + 0.5, boxes=table.boxes * 2, image_size=(144, 224))
    moved = 2 * (table.keypoints[:2] + np.array(picture.velocity)) + 0.5
    assert np.nanmax(np.abs(on_frame(carry(None, twice, large, "dis"), 6).keypoints - moved)) < 0.7


def test_raft_goes_directly_to_the_frame(table, source, raft) -> None:
    found = carry(None, table, source, "raft", raft=raft)
    flow = raft_flow(raft, source.read(5), source.read(8))
    x, y = table.keypoints[0, 0]
    low, part = (int(x), int(y)), (x % 1, y % 1)
    rows = [(1 - part[0]) * flow[low[1] + d, low[0]] + part[0] * flow[low[1] + d, low[0] + 1] for d in (0, 1)]
    step = (1 - part[1]) * rows[0] + part[1] * rows[1]
    assert_allclose(on_frame(found, 8).keypoints[0, 0], np.add((x, y), step), atol=1e-4)
    assert np.abs(step).max() > 1e-3


@pytest.mark.parametrize(("method", "width", "moved"), [("raft", 960, (6, -4)), ("dis", 1280, (4.5, -3))])
def test_the_flow_of_shrunken_frames_is_scaled(table, monkeypatch, raft, method, width, moved) -> None:
    asked = []

    def flows(start, end):
        asked.append(start.shape[:2])
        return np.full((*start.shape[:2], 2), (3.0, -2.0), np.float32)

    monkeypatch.setattr("posewarper.paper.carrying.dense_flow", flows)
    monkeypatch.setattr("posewarper.paper.carrying.raft_flow", lambda model, a, b: flows(a, b))
    wide = replace(table, image_size=(480, 1920))
    black = FrameSource(lambda n: np.zeros((480, 1920, 3), np.uint8), 1, 12)
    found = propagate_video(None, wide, STEPS[:3], black, method=method, raft=raft)
    assert set(asked) == {(width // 4, width)}
    assert_allclose(on_frame(found, 6).keypoints, table.keypoints[:2] + np.array(moved))


# Which keypoints are kept


def test_low_scores_and_points_outside_are_dropped(table, source, fresh, monkeypatch) -> None:
    heights = np.linspace(0.1, 0.9, 17)
    monkeypatch.setattr(fresh, "warp", lambda values, **_: values * torch.tensor(heights)[:, None, None])
    found = carry(fresh, table, source, "warper", rules=Rules(min_score=0.5))
    labelled = np.isfinite(table.keypoints[:2, :, 0])
    assert_array_equal(np.isfinite(on_frame(found, 6).keypoints[..., 0]), labelled & (heights > 0.5))
    assert_array_equal(np.isfinite(on_frame(found, 5).keypoints[..., 0]), labelled)
    points = np.array(table.keypoints)
    points[0, 0], points[0, 1], points[0, 2] = (-1, 20), (20, 0), (20, 1)
    copied = carry(None, replace(table, keypoints=points), source, "copy", rules=Rules(min_score=0.2))
    assert np.isfinite(on_frame(copied, 6).keypoints[0, :3, 0]).tolist() == [False, False, True]
    kept = carry(None, replace(table, keypoints=points), source, "copy")
    assert_array_equal(on_frame(kept, 6).keypoints[0, :3], points[0, :3])


def test_people_without_any_keypoint_left_are_dropped(table, source, fresh) -> None:
    found = carry(fresh, table, source, "warper", rules=Rules(min_score=1.5))
    assert found.frame_numbers[found.rows].tolist() == [5, 5]  # the labels
    assert found.frame_numbers[found.is_labelled].tolist() == [3, 5, 6, 8]


def roll(values, *, source, target):
    """Move by two pixels to the right, or to the left where the source is the brighter one."""
    return values.roll(2 if target.mean() > source.mean() else -2, -1)


def test_the_cycle_tells_how_far_off_a_label_comes_back() -> None:
    values = np.stack([paper_encode([(40, 30)], [1], (96, 64), (24, 16), 2)[0]] * 2)
    values = torch.from_numpy(values)
    dark, bright = torch.zeros_like(values), torch.ones_like(values)
    honest = SimpleNamespace(warp=roll)
    assert_allclose(cycle_error(honest, values, source=dark, target=bright), 0, atol=1e-6)  # type: ignore[arg-type]
    onwards = SimpleNamespace(warp=lambda values, **_: values.roll(2, -1))
    error = cycle_error(onwards, values, source=dark, target=bright)  # type: ignore[arg-type]
    assert error.shape == (2, 1)
    assert_allclose(error, 4, atol=1e-3)
    known = values.roll((1, 2), (-2, -1))  # 1 down, 2 right; then 2 right again
    error = cycle_error(onwards, values, known, source=dark, target=bright)  # type: ignore[arg-type]
    assert_allclose(error, np.hypot(4, 1), atol=1e-3)


def test_keypoints_that_do_not_come_back_are_dropped(table, source, fresh, monkeypatch) -> None:
    found = carry(fresh, table, source, "warper", rules=Rules(max_cycle=1e-6))
    assert_array_equal(found.keypoints, carry(fresh, table, source, "warper").keypoints)
    # There and back, keypoint 0 ends two heatmap pixels (of 16) off.
    shift = torch.zeros(17, dtype=torch.long)
    shift[0] = 1
    monkeypatch.setattr(
        fresh, "warp", lambda values, **_: torch.where((shift > 0)[:, None, None], values.roll(1, -2), values)
    )
    labelled = np.isfinite(table.keypoints[:2, :, 0])
    for share, kept in ((2.05 / 16, [True, True]), (1.95 / 16, [False, False])):
        found = carry(fresh, table, source, "warper", rules=Rules(max_cycle=share))
        there = np.isfinite(on_frame(found, 8).keypoints[..., 0])
        assert there[:, 0].tolist() == kept
        assert_array_equal(there[:, 1:], labelled[:, 1:])


def test_flow_into_another_scene_does_not_come_back(table, source, picture) -> None:
    other = np.random.default_rng(9).integers(0, 256, (*picture.size, 3)).astype(np.uint8)
    cut = replace(source, read=lambda n: other if n == 6 else source.read(n))
    found = carry(None, table, cut, "dis", rules=Rules(max_cycle=0.02))
    there = [np.isfinite(on_frame(found, number).keypoints[..., 0]).sum() for number in (3, 6, 8)]
    assert there[0] == there[2] == 29 and there[1] < 10


# What cannot work


def test_what_cannot_work_is_explained(table, source, fresh) -> None:
    with pytest.raises(ConfigError, match="copy, frame, dis, raft, warper"):
        carry(fresh, table, source, "flownet")
    with pytest.raises(ConfigError, match="dis, raft, warper only"):
        carry(fresh, table, source, "frame", rules=Rules(max_cycle=0.1))
    for method, needed in (("warper", "a model"), ("frame", "a model"), ("raft", "weights of RAFT")):
        with pytest.raises(ModelError, match=needed):
            carry(None, table, source, method)
    other = PoseWarper(
        ModelSpec("hrnet_w18_small", Skeleton(("tail",)), CROP, 1, head_width=4, head_blocks=1)
    )
    with pytest.raises(ModelError, match=r"other keypoints[\s\S]*tail"):
        carry(other, table, source, "warper")
    with pytest.raises(LabelsError, match="size of the images"):
        carry(fresh, replace(table, image_size=None), source, "warper")
