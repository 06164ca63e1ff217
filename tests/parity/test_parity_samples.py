"""Samples, support frames and whole dataset items against the original's recorded ones."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from largest_errors import record
from original_rules import paper_annotations
from paper_reference import TargetSpec, cut_paper_sample

from posewarper.geometry import paper_center_scale
from posewarper.posetrack.samples import (
    label_boxes,
    samples_from_boxes,
    samples_from_labels,
    support_numbers,
)
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK
from posewarper.structures import InstanceTable
from posewarper.training.random_crops import Framing, half_body

SPEC = TargetSpec(crop_size=(96, 72), heatmap_size=(24, 18), sigma=1)
# Recorded as float16; everything else to rounding in float32.
HALF, SINGLE = 2e-3, 1e-5


@pytest.fixture(scope="module")
def database(parity_dir):
    return json.loads((parity_dir / "dataset_db.json").read_text())


@pytest.fixture(scope="module")
def items(parity_dir):
    with np.load(parity_dir / "dataset_items.npz") as file:
        return {key: file[key] for key in file.files}


def keypoints_of(annotation) -> np.ndarray:
    points = np.array(annotation["keypoints"], float).reshape(-1, 3)
    return np.where(points[:, 2:] > 0, points[:, :2], np.nan)


def table_of(images, annotations) -> InstanceTable:
    rows = {image["id"]: row for row, image in enumerate(images)}
    return InstanceTable(
        "video",
        tuple(image["file_name"] for image in images),
        [image["frame_id"] for image in images],
        rows=[rows[a["image_id"]] for a in annotations],
        keypoints=np.stack([keypoints_of(a) for a in annotations]),
        boxes=[a["bbox"] for a in annotations],
        image_size=(images[0]["height"], images[0]["width"]),
        n_frames=images[0]["nframes"],
    )


def ratio_of(database) -> float:
    width, height = database["image_size"]
    return width / height


def centers_and_scales(expected) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([e["center"] for e in expected], np.float32),
        np.array([e["scale"] for e in expected], np.float32),
    )


def test_samples_of_an_annotation_file(database):
    document, expected = database["annotations"], database["expected_from_annotations"]
    names = {image["id"]: image["file_name"] for image in document["images"]}
    kept = paper_annotations(document)
    assert [names[a["image_id"]] for a in kept] == [e["image"] for e in expected]
    size = document["images"][0]["height"], document["images"][0]["width"]
    boxes, _ = label_boxes([a["bbox"] for a in kept], size)
    ours = paper_center_scale(boxes, ratio_of(database))
    for mine, theirs in zip(ours, centers_and_scales(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for annotation, e in zip(kept, expected, strict=True):
        visible = np.array(e["joints_3d_vis"])[:, 0] > 0
        points = keypoints_of(annotation)
        np.testing.assert_array_equal(np.isfinite(points[:, 0]), visible)
        np.testing.assert_array_equal(points[visible], np.array(e["joints_3d"])[visible, :2])
    record("dataset_db.json", 0.0, "exact")


def test_samples_of_an_annotation_file_read_as_tables(database, tmp_path):
    path = tmp_path / "val.json"
    path.write_text(json.dumps(database["annotations"]))
    (table,) = read_tables(path).values()
    samples = samples_from_labels(table, ratio_of(database))
    expected = database["expected_from_annotations"]
    assert [table.frame_names[row] for row in samples.rows] == [e["image"] for e in expected]
    for mine, theirs in zip((samples.centers, samples.scales), centers_and_scales(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_samples_of_a_table_of_labels(database):
    document, expected = database["annotations"], database["expected_from_annotations"]
    # A table has no areas, crowds and categories; who reads the file into one leaves those out.
    people = [a for a in document["annotations"] if a["area"] and not a["iscrowd"] and a["category_id"] == 1]
    assert len(document["annotations"]) > len(people) > len(expected)
    # In another order than that of the frames, which the samples follow all the same.
    people = people[::2] + people[1::2]
    in_frame = {image["id"]: n for n, image in enumerate(document["images"])}
    table = table_of(document["images"], people)
    samples = samples_from_labels(table, ratio_of(database))
    wanted = sorted(range(len(people)), key=lambda n: in_frame[people[n]["image_id"]])
    ids = [a["id"] for a in paper_annotations(document)]
    assert [people[n]["id"] for n in samples.instances] == [
        people[n]["id"] for n in wanted if people[n]["id"] in ids
    ]
    place = [ids.index(people[n]["id"]) for n in samples.instances]
    centers, scales = centers_and_scales(expected)
    np.testing.assert_array_equal(samples.centers, centers[place])
    np.testing.assert_array_equal(samples.scales, scales[place])
    assert [table.frame_names[row] for row in samples.rows] == [expected[n]["image"] for n in place]
    assert (samples.box_scores == 1).all()


def test_samples_of_detections(database):
    images = database["annotations"]["images"]
    rows = {image["file_name"]: row for row, image in enumerate(images)}
    people = [d for d in database["detections"] if d["category_id"] == 1]
    expected = database["expected_from_detections"]
    table = table_of(images, database["annotations"]["annotations"][:1])
    samples = samples_from_boxes(
        table,
        [d["bbox"] for d in people],
        [d["score"] for d in people],
        [rows[d["image_name"]] for d in people],
        ratio_of(database),
        database["detection_score_threshold"],
    )
    assert [images[row]["file_name"] for row in samples.rows] == [e["image"] for e in expected]
    centers, scales = centers_and_scales(expected)
    np.testing.assert_array_equal(samples.centers, centers)
    np.testing.assert_array_equal(samples.scales, scales)
    assert samples.box_scores.tolist() == [e["score"] for e in expected]


def test_support_frames(parity_dir):
    recorded = json.loads((parity_dir / "support_frames.json").read_text())
    steps = {"current": 0, "reference": 0}
    order = recorded["order_aggregate"]
    neighbours = [
        steps.get(name, (-1 if name.startswith("prev") else 1) * int(re.sub(r"\D", "", name) or 0))
        for name in order
    ]
    assert neighbours == [0, -1, -2, 1, 2] and recorded["order_pair"] == ["reference", "support"]
    assert len(recorded["cases"]) > 100
    for case in recorded["cases"]:
        stem = case["reference"].split(".")[0]
        offsets = neighbours if case["mode"] == "aggregate" else [0, case["delta"]]
        numbers = support_numbers(
            int(stem),
            offsets,
            first=1 if case["layout"] == "posetrack17" else 0,
            n_frames=case["nframes"],
            exists=lambda number, case=case: number not in case["missing_frames"],
        )
        assert [f"{number:0{len(stem)}d}.jpg" for number in numbers] == case["files_read"], case
    record("support_frames.json", 0.0, "exact")


def test_half_bodies(parity_dir, parity_error):
    measure = parity_error("flip_halfbody.npz")
    with np.load(parity_dir / "flip_halfbody.npz") as recorded:
        assert POSETRACK.halves[0] == tuple(recorded["upper_body_ids"])
        uppers = 0
        for i, none in enumerate(recorded["half_is_none"]):
            visible = recorded["half_joints_vis"][i, :, :1] > 0
            keypoints = np.where(visible, recorded["half_joints"][i, :, :2], np.nan)
            half = half_body(keypoints, float(recorded["half_randn"][i]), 0.75)
            assert (half is None) == none
            if half is not None:
                assert measure(half[0], recorded["half_center"][i]) <= 1e-6
                assert measure(half[1], recorded["half_scale"][i]) <= 1e-6
                uppers += recorded["half_randn"][i] < 0.5
        assert uppers


def people_of(items):
    document = json.loads(str(items["annotations_json"]))
    numbers = {image["id"]: image["frame_id"] for image in document["images"]}
    return [(numbers[a["image_id"]], keypoints_of(a)) for a in paper_annotations(document)]


def person_of(items, name):
    # By its crop, which is that of one sample only and is compared to the last bit here.
    samples = item_samples(items)
    same = (samples.centers == items[f"{name}_box_center"]) & (samples.scales == items[f"{name}_box_scale"])
    (index,) = np.flatnonzero(same.all(axis=1))
    number, keypoints = people_of(items)[index]
    assert number == items[f"{name}_frame"]
    return number, keypoints


def item_samples(items):
    document = json.loads(str(items["annotations_json"]))
    return samples_from_labels(table_of(document["images"], paper_annotations(document)), 0.75)


def frame(items, number):
    return items["frames_rgb"][int(number) - 1]


def agree(sample, items, name, measure):
    visible = items[f"{name}_joints_vis"][:, 0] > 0
    np.testing.assert_array_equal(np.isfinite(sample.keypoints[:, 0]), visible)
    # The original leaves invisible keypoints in pixels of the image, or at zero; ours are not there.
    assert measure(sample.keypoints[visible], items[f"{name}_joints"][visible, :2]) <= SINGLE
    np.testing.assert_array_equal(sample.weights, items[f"{name}_target_weight"][:, 0])
    assert visible.any()


def test_a_pair(items, parity_error):
    measure = parity_error("dataset_items.npz")
    number, keypoints = person_of(items, "pair")
    (other,) = support_numbers(number, [int(items["pair_delta"])], first=1, n_frames=len(items["frames_rgb"]))
    framing = Framing(items["pair_box_center"], items["pair_box_scale"])
    sample = cut_paper_sample([frame(items, number), frame(items, other)], keypoints, framing, SPEC)
    assert sample.inputs.dtype == sample.target.dtype == np.float32
    assert measure(sample.inputs, np.stack([items["pair_input"], items["pair_input_sup"]])) <= SINGLE
    # Not so with the colours in the other order.
    assert np.abs(sample.inputs[0, ::-1] - items["pair_input"]).max() > 0.1
    agree(sample, items, "pair", measure)
    assert measure(sample.target, items["pair_target"]) <= 1e-6
    np.testing.assert_array_equal(sample.target > 0, items["pair_target"] > 0)


def test_five_frames(items, parity_error):
    measure = parity_error("dataset_items.npz")
    number, keypoints = person_of(items, "agg")
    numbers = support_numbers(number, (0, -1, -2, 1, 2), first=1, n_frames=len(items["frames_rgb"]))
    framing = Framing(items["agg_box_center"], items["agg_box_scale"])
    sample = cut_paper_sample([frame(items, n) for n in numbers], keypoints, framing, SPEC)
    assert measure(sample.inputs, items["agg_inputs"]) <= SINGLE
    assert measure(sample.target, items["agg_target"]) <= 1e-6
    np.testing.assert_array_equal(sample.weights, items["agg_target_weight"][:, 0])


def test_augmented_samples(items, parity_error):
    measure = parity_error("dataset_items.npz")
    names = sorted({key.split("_")[0] for key in items if re.match(r"train\d+_", key)})
    people = people_of(items)
    assert len(names) == 8
    for name in names:
        number, keypoints = people[int(items[f"{name}_index"])]
        framing = Framing(
            items[f"{name}_center_after"],
            items[f"{name}_scale_after"],
            float(items[f"{name}_rotation"]),
            bool(items[f"{name}_flipped"]),
        )
        sample = cut_paper_sample([frame(items, number)], keypoints, framing, SPEC)
        assert measure(sample.inputs[0], items[f"{name}_input"]) <= HALF, name
        agree(sample, items, name, measure)
        highest = sample.target.reshape(len(sample.target), -1).argmax(1)
        np.testing.assert_array_equal(highest, items[f"{name}_target_argmax"])
        assert abs(int(items[f"{name}_sup_frame"]) - number) <= 2


def test_half_bodies_of_the_augmented_samples(items):
    # The centre after a half body tells which half; mirrored samples moved it.
    people = people_of(items)
    halves = [n for n in range(8) if items[f"train{n}_half_body"]]
    if not halves:
        pytest.skip("no sample was reduced to half of the body")
    for n in halves:
        _, keypoints = people[int(items[f"train{n}_index"])]
        width = items["frames_rgb"].shape[2]
        possible = [half_body(keypoints, normal, 0.75) for normal in (0.0, 1.0)]
        centers = [half[0] for half in possible if half is not None]
        if items[f"train{n}_flipped"]:
            centers = [np.array([width - 1 - x, y]) for x, y in centers]
        distances = [np.abs(center - items[f"train{n}_center_after"]).max() for center in centers]
        assert min(distances) <= 1e-4
