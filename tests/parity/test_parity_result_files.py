"""Result files against those that the original wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from largest_errors import record

from posewarper.formats.boxes import read_boxes
from posewarper.formats.frame_names import frame_name
from posewarper.posetrack.points import POINTS, apply_neck_rule
from posewarper.posetrack.results import paper_scores, result_document, write_results
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK
from posewarper.structures import InstanceTable


def _predictions(
    names: tuple[str, ...], numbers: Any, rows: list[int], triples: Any, box_scores: Any
) -> InstanceTable:
    """What a network and a detector gave, with the original's neck and product of scores."""
    triples = np.asarray(triples, float).reshape(-1, 17, 3)
    table = InstanceTable(
        "clip", names, numbers, rows, triples[..., :2], triples[..., 2], np.asarray(box_scores, float)
    )
    return paper_scores(apply_neck_rule(table, "shoulders"))


def test_the_points_of_single_people(parity_dir: Path) -> None:
    recorded = json.loads((parity_dir / "coco2posetrack.json").read_text())
    assert recorded["source_names"] == list(POSETRACK.names) and recorded["target_names"] == list(POINTS)
    cases = recorded["cases"]
    table = _predictions(
        ("0.jpg",),
        [0],
        [0] * len(cases),
        [case["keypoints"] for case in cases],
        [case["box_score"] for case in cases],
    )
    people = result_document(table)["annolist"][0]["annorect"]
    assert [person["annopoints"][0]["point"] for person in people] == [case["points"] for case in cases]


def test_a_frame_with_two_people_and_one_with_none(parity_dir: Path) -> None:
    recorded = json.loads((parity_dir / "coco2posetrack.json").read_text())
    cases = recorded["cases"][:2]
    table = _predictions(
        ("0.jpg", "1.jpg"),
        [0, 1],
        [0, 0],
        [case["keypoints"] for case in cases],
        [case["box_score"] for case in cases],
    )
    both, none = result_document(table)["annolist"]
    assert both["annorect"] == recorded["frame_two_people"]
    assert none["annorect"] == recorded["frame_without_people"]
    record("coco2posetrack.json", 0.0, "exact")


@pytest.mark.parametrize("layout", ["posetrack17", "posetrack18"])
def test_whole_result_files(parity_dir: Path, tmp_path: Path, layout: str) -> None:
    recorded = json.loads((parity_dir / "result_files.json").read_text())[layout]
    truth_folder = tmp_path / "truth"
    truth_folder.mkdir()
    for name, document in recorded["ground_truth_files"].items():
        (truth_folder / name).write_text(json.dumps(document))
    truth = read_tables(truth_folder)
    instances = {frame_name(n.removeprefix("/data/")): i for n, i in recorded["rows_of_image"].items()}
    triples, box_scores = np.array(recorded["predictions"]), np.array(recorded["box_scores"])
    predictions = {}
    for video, table in truth.items():
        rows = [row for row, name in enumerate(table.frame_names) for _ in instances.get(name, [])]
        which = [i for name in table.frame_names for i in instances.get(name, [])]
        predictions[video] = _predictions(
            table.frame_names, table.frame_numbers, rows, triples[which], box_scores[which]
        )
    assert sum(table.n_instances for table in predictions.values()) == len(triples)
    write_results(tmp_path / "out", predictions, ground_truth=truth)
    expected = recorded["expected_result_files"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(expected)
    for name, document in expected.items():
        assert json.loads((tmp_path / "out" / name).read_text()) == document


def test_the_originals_boxes(parity_dir: Path, tmp_path: Path) -> None:
    """Which detections the original kept: people, down to the threshold, in the order of the file."""
    recorded = json.loads((parity_dir / "dataset_db.json").read_text())
    (tmp_path / "boxes.json").write_text(json.dumps(recorded["detections"]))
    boxes = read_boxes(tmp_path / "boxes.json")
    kept = boxes.take((boxes.category_ids == 1) & (boxes.scores >= recorded["detection_score_threshold"]))
    expected = recorded["expected_from_detections"]
    assert kept.image_names == tuple(sample["image"] for sample in expected)
    assert kept.scores.tolist() == [sample["score"] for sample in expected]
    np.testing.assert_allclose(
        kept.boxes[:, :2] + kept.boxes[:, 2:] / 2, [sample["center"] for sample in expected], rtol=1e-6
    )
