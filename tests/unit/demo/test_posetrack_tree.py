from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from posewarper.demo.crowd import film_crowd, stage_crowd, tell_crowd
from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import ConfigError
from posewarper.formats.boxes import boxes_of_frames, read_boxes
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK

K = {name: k for k, name in enumerate(POSETRACK.names)}


def read(path):
    return next(iter(read_tables(path).values()))


def test_the_same_seed_gives_the_same_frames_and_another_does_not():
    (a, truth), (b, same), (c, _) = (film_crowd(stage_crowd(3, (48, 64), seed), 4) for seed in (1, 1, 2))
    assert a.shape == (48, 64, 3) and a.dtype == np.uint8
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(truth.keypoints, same.keypoints)
    assert np.abs(a.astype(int) - c).mean() > 5


def _colours_at_knees(clothes: str) -> list[np.ndarray]:
    """Return what is painted at the left and the right knee of the one person of two clips."""
    found = []
    for seed in (1, 2):
        image, truth = film_crowd(stage_crowd(1, (240, 320), seed, clothes), 3)
        columns, rows = np.round(truth.keypoints[0, [13, 14]]).astype(int).T
        found.append(image[rows, columns].astype(int))
    return found


def test_varied_clothes_differ_between_people_and_are_the_same_on_both_sides() -> None:
    alike, varied = _colours_at_knees("alike"), _colours_at_knees("varied")
    assert np.abs(alike[0] - alike[1]).max() < 60  # but for the texture
    assert np.abs(alike[0][0] - alike[0][1]).max() > 60  # left from right
    assert np.abs(varied[0] - varied[1]).max() > 60
    assert max(np.abs(left - right).max() for left, right in varied) < 60


def test_keypoints_are_where_their_limbs_are_drawn():
    # A limb's own colour is found at its keypoint: light and magenta at the left wrist, dark at the right.
    seen = {"left_wrist": [], "right_wrist": [], "left_ankle": [], "nose": []}
    for seed in range(3):
        crowd = stage_crowd(2, (120, 160), seed)
        for t in range(0, 60, 6):
            image, truth = film_crowd(crowd, t)
            for xy, visible in zip(truth.keypoints, truth.visible, strict=True):
                for name, colours in seen.items():
                    if visible[K[name]]:
                        x, y = np.round(xy[K[name]]).astype(int)
                        colours.append(image[y, x].astype(float))
    left, right, ankle, nose = (np.median(colours, axis=0) for colours in seen.values())
    np.testing.assert_allclose(left, (245, 130, 245), atol=35)
    np.testing.assert_allclose(right, (110, 20, 110), atol=35)
    np.testing.assert_allclose(ankle, (120, 240, 235), atol=35)
    assert nose[0] > nose[1] + 60
    assert all(len(colours) > 20 for colours in seen.values())


def test_truth_is_exact_to_a_fraction_of_a_pixel():
    # The centre of the noses' red disc, found in the picture, is the keypoint.
    crowd, errors = stage_crowd(1, (240, 320), 3), []
    for t in range(0, 40, 4):
        image, truth = film_crowd(crowd, t)
        x, y = truth.keypoints[0, K["nose"]]
        left, top = int(x) - 3, int(y) - 3
        part = image[top : top + 8, left : left + 8].astype(float)
        red = np.clip((part[..., 0] - part[..., 1:].mean(-1)) - 60, 0, None)
        ys, xs = np.mgrid[top : top + 8, left : left + 8]
        errors.append([(red * xs).sum() / red.sum() - x, (red * ys).sum() / red.sum() - y])
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15 and np.abs(errors).max() < 0.6


def test_people_move_smoothly_and_hide_each_other():
    crowd = stage_crowd(4, (120, 160), 0)
    frames = [film_crowd(crowd, t)[1] for t in range(40)]
    hidden = sum((np.isfinite(f.keypoints).all(-1) & ~f.visible).sum() for f in frames)
    total = sum(f.visible.sum() for f in frames)
    assert 0.02 < hidden / total < 0.5
    near = [tell_crowd(crowd, 10 + step / 10) for step in (0, 1)]
    steps = np.linalg.norm(near[1].keypoints - near[0].keypoints, axis=-1)
    assert np.nanmean(steps) > 0.05 and np.nanmax(steps) < 1.5
    # Without a picture nobody hides anybody; all else is the same.
    np.testing.assert_array_equal(tell_crowd(crowd, 5).keypoints, frames[5].keypoints)
    assert (tell_crowd(crowd, 5).visible == np.isfinite(frames[5].keypoints).all(-1)).all()


def test_ears_are_never_there_and_boxes_hold_what_is():
    for t in range(0, 60, 10):
        _, truth = film_crowd(stage_crowd(3, (120, 160), 1), t)
        assert np.isnan(truth.keypoints[:, [K["left_ear"], K["right_ear"]]]).all()
        low, high = truth.boxes[:, None, :2], truth.boxes[:, None, :2] + truth.boxes[:, None, 2:]
        there = np.isfinite(truth.keypoints).all(-1)
        assert ((truth.keypoints >= low) & (truth.keypoints <= high)).all(-1)[there].all()
        assert (low >= -0.5).all() and (high <= [159.5, 119.5]).all()
        top = truth.keypoints[:, K["head_top"], 1]
        assert np.nanmax(np.abs(truth.head_boxes[:, 1] - top)) < 2


@pytest.mark.parametrize("kind", ["posetrack17", "posetrack18", "posetrack21"])
def test_a_tree_has_the_places_and_numbers_of_the_official_one(tmp_path, kind):
    root = write_posetrack_tree(tmp_path / "tree", kind, n_videos=(1, 1, 1), n_frames=9, size=(48, 64))
    labels = root / ("posetrack_data" if kind == "posetrack21" else "annotations")
    tables = {split: read(next((labels / split).iterdir())) for split in ("train", "val", "test")}
    first, name = (1, "00000001.jpg") if kind == "posetrack17" else (0, "000000.jpg")
    for split, table in tables.items():
        assert table.frame_numbers.tolist() == list(range(first, first + 9))
        assert table.frame_names[0].endswith("/" + name)
        assert (root / "images" / table.frame_names[-1]).is_file()
        assert len(list((root / "images" / table.frame_names[0]).parent.iterdir())) == 9
        assert (table.frame_names[0].split("/")[0] == split) == (kind != "posetrack17")
        assert np.isnan(table.keypoints[:, [3, 4]]).all()
    # A third in the middle; in val every fourth, too; nothing in test.
    assert np.flatnonzero(tables["train"].is_labelled).tolist() == [3, 4, 5]
    assert np.flatnonzero(tables["val"].is_labelled).tolist() == [0, 3, 4, 5, 8]
    assert not tables["test"].is_labelled.any() and tables["test"].n_instances == 0
    assert set(tables["train"].rows) == {3, 4, 5} and set(tables["val"].rows) == {3, 4, 5, 8}
    assert list(tables["val"].ignore_regions) == [0, 5]
    assert np.isfinite(tables["val"].boxes).all() == (kind != "posetrack17")
    assert np.isfinite(tables["val"].head_boxes).all() and (tables["val"].tracks >= 0).all()


def test_hidden_keypoints_are_not_labelled(tmp_path):
    root = write_posetrack_tree(
        tmp_path, n_videos=(3,), n_frames=6, size=(48, 64), n_people=(4, 4), labelled="all"
    )
    tables = [read(file) for file in (root / "annotations" / "train").iterdir()]
    shares = [np.isfinite(table.keypoints).all(-1)[:, 5:].mean() for table in tables]
    assert 0.4 < np.mean(shares) < 0.99
    assert all(np.isfinite(table.keypoints).any() for table in tables)
    assert all(len(set(table.tracks[table.rows == 2])) == (table.rows == 2).sum() > 1 for table in tables)


def test_mat_and_json_hold_the_same(tmp_path):
    tables = []
    for form in ("json", "mat"):
        root = write_posetrack_tree(
            tmp_path / form,
            "posetrack17",
            n_videos=(1,),
            n_frames=6,
            size=(48, 64),
            form=form,
            with_frames=False,
        )
        assert not (root / "images").exists()
        tables.append(read(root / "annotations" / "train" / f"000001_mpii.{form}"))
    np.testing.assert_allclose(tables[0].keypoints, tables[1].keypoints)
    np.testing.assert_array_equal(tables[0].rows, tables[1].rows)


@pytest.mark.parametrize("kind", ["posetrack17", "posetrack18"])
def test_the_box_file_is_as_of_a_detector(tmp_path, kind):
    root = write_posetrack_tree(
        tmp_path, kind, n_videos=(1, 2), n_frames=30, size=(120, 160), labelled="all", with_frames=False
    )
    path = root / f"{kind}_precomputed_boxes" / "val_boxes.json"
    record = json.loads(path.read_text())[0]
    assert set(record) == {"bbox", "score", "category_id", "image_name", "nframes", "frame_id"}
    assert record["image_name"].startswith("images/val/") == (kind == "posetrack18")
    boxes, found = read_boxes(path), 0
    for file in (root / "annotations" / "val").iterdir():
        rows = boxes_of_frames(boxes, read(file))
        found += sum(map(len, rows.values()))
        assert len(rows) == 30
    assert found == len(boxes) and 0.05 < (boxes.scores < 0.31).mean() < 0.4


def test_frames_decode_to_what_was_drawn(tmp_path):
    root = write_posetrack_tree(tmp_path, n_videos=(1,), n_frames=2, size=(48, 64), n_people=(2, 2), seed=7)
    image = cv2.imread(str(root / "images" / "train" / "000001_bonn_train" / "000001.jpg"))
    people = read(root / "annotations" / "train" / "000001_bonn_train.json")
    assert image.shape == (48, 64, 3) and people.image_size == (48, 64)


def test_unknown_trees_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such tree"):
        write_posetrack_tree(tmp_path, "posetrack19")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no such tree"):
        write_posetrack_tree(tmp_path, n_videos=(1, 1, 1, 1))
