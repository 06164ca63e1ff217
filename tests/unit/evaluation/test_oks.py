from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest

from posewarper.errors import ConfigError, PosewarperWarning
from posewarper.evaluation.oks import score_oks, similarity, usual_sigmas
from posewarper.evaluation.protocols import format_score
from posewarper.skeletons import BODY_25B, COCO, POSETRACK
from posewarper.structures import InstanceTable

NAN = np.nan
N_FRAMES = 20


def made_up(seed: int) -> tuple[InstanceTable, InstanceTable, dict, list]:
    """The same people as tables and as COCO's documents: small to large, some without keypoints."""
    rng = np.random.default_rng(seed)
    truth: dict[str, list] = {"rows": [], "keypoints": [], "boxes": []}
    found: dict[str, list] = {"rows": [], "keypoints": [], "scores": []}
    annotations, detections = [], []

    def find(frame: int, keypoints: np.ndarray) -> None:
        score = round(rng.random(), 1)  # so that many scores tie
        for name, value in (("rows", frame), ("keypoints", keypoints), ("scores", score)):
            found[name].append(value)
        triples = np.concatenate([keypoints, np.ones((17, 1))], 1).ravel().tolist()
        record = {"image_id": frame + 1, "category_id": 1, "score": score, "keypoints": triples}
        detections.append(record)

    for frame in range(N_FRAMES):
        for _ in range(rng.integers(0, 5)):
            size, corner = rng.choice([20, 60, 150]), rng.uniform(0, 500, 2)
            body = corner + rng.uniform(0, size, (17, 2))
            there = rng.random(17) < (0.7 if rng.random() < 0.9 else 0.0)
            box = [*(corner - 3).tolist(), float(size) + 6, float(size) + 9]
            keypoints = np.where(there[:, None], body, NAN)
            for name, value in (("rows", frame), ("keypoints", keypoints), ("boxes", box)):
                truth[name].append(value)
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": frame + 1, "category_id": 1, "iscrowd": 0},
                    **{"bbox": box, "area": box[2] * box[3], "num_keypoints": int(there.sum())},
                    "keypoints": np.concatenate([np.nan_to_num(keypoints), 2 * there[:, None]], 1)
                    .ravel()
                    .tolist(),
                }
            )
            for _ in range(rng.integers(0, 3)):
                find(frame, body + rng.normal(0, size * rng.choice([0.02, 0.08, 0.3]), (17, 2)))
        for _ in range(rng.integers(0, 30) if frame % 5 == 0 else 1):
            find(frame, rng.uniform(0, 500, 2) + rng.uniform(0, 80, (17, 2)))
    names = tuple(str(n) for n in range(N_FRAMES))
    common = {"skeleton": COCO, "frame_names": names, "frame_numbers": np.arange(N_FRAMES)}
    images = [{"id": n + 1, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(N_FRAMES)]
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO.names), "skeleton": []}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return InstanceTable("v", **common, **truth), InstanceTable("v", **common, **found), document, detections


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_faster_coco_eval(seed: int) -> None:
    theirs = pytest.importorskip("faster_coco_eval")
    truth, predictions, document, detections = made_up(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = theirs.COCO(document)
        evaluation = theirs.COCOeval_faster(annotated, annotated.loadRes(detections), "keypoints")
        evaluation.run()
    figures = score_oks({"v": truth}, {"v": predictions}).figures
    assert list(figures) == ["AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"]
    assert list(figures.values()) == pytest.approx(100 * np.array(evaluation.stats[:10]), abs=1e-9)
    assert 0 < figures["AP"] < figures["AP50"] < 100 and figures["APM"] != figures["APL"]


def test_similarity_by_hand() -> None:
    truth = np.array([[[10.0, 20.0], [30.0, 40.0], [NAN, NAN]]])
    predicted = np.array([[[13.0, 24.0], [NAN, NAN], [0.0, 0.0]]])
    # Area 500; 5 pixels off at a sigma of 0.1: exp(-25 / (2 * 500 * 0.2 ** 2)); the other is not there.
    alike = similarity(truth, np.array([[0.0, 0, 20, 25]]), predicted, np.full(3, 0.1))
    assert alike == pytest.approx(np.array([[np.exp(-0.625) / 2]]))


def test_one_shifted_person() -> None:
    keypoints = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    one = {"frame_names": ("0",), "frame_numbers": [0], "rows": [0], "skeleton": COCO}
    truth = InstanceTable("v", keypoints=keypoints, boxes=[[0, 0, 100, 100]], **one)
    predictions = InstanceTable("v", keypoints=keypoints + 4.0, scores=[0.5], **one)
    alike = np.exp(-32 / (2 * 10000 * (2 * np.array(usual_sigmas(COCO))) ** 2)).mean()
    assert 0.55 < alike < 0.95
    n = int((alike - 0.5) / 0.05) + 1  # thresholds that it reaches
    figures = score_oks({"v": truth}, {"v": predictions}).figures
    assert figures["AP"] == pytest.approx(10 * n) and figures["AP50"] == pytest.approx(100)
    assert np.isnan(figures["APM"])


def test_ignore_regions_swallow_points_of_both_sides() -> None:
    keypoints = np.random.default_rng(0).uniform(0, 100, (2, 17, 2)) + np.array([[[0.0, 0]], [[500, 0]]])
    both = {"frame_names": ("0",), "frame_numbers": [0], "skeleton": COCO}
    region = np.array([[490.0, -10], [610, -10], [610, 110], [490, 110]])
    truth = InstanceTable("v", keypoints=keypoints[:1], rows=[0], ignore_regions={0: (region,)}, **both)
    predictions = InstanceTable("v", keypoints=keypoints, rows=[0, 0], scores=[0.5, 0.9], **both)
    score = score_oks({"v": truth}, {"v": predictions})
    assert score.figures["AP"] == pytest.approx(100) and score.n_predictions == 1
    assert score_oks({"v": replace(truth, ignore_regions={})}, {"v": predictions}).figures["AP"] < 60


def test_sigmas() -> None:
    assert usual_sigmas(COCO)[:3] == (0.026, 0.025, 0.025) and usual_sigmas(COCO)[11] == 0.107
    assert usual_sigmas(POSETRACK) == usual_sigmas(COCO)  # by position, as is usual
    assert set(usual_sigmas(BODY_25B)) == {0.1}
    truth, predictions, _, _ = made_up(0)
    wide = score_oks({"v": truth}, {"v": predictions}, sigmas=[0.3] * 17)
    assert wide.figures["AP"] > score_oks({"v": truth}, {"v": predictions}).figures["AP"]
    for wrong in ([0.1] * 16, [0.1] * 16 + [0.0]):
        with pytest.raises(ConfigError, match="sigmas do not fit"):
            score_oks({"v": truth}, {"v": predictions}, sigmas=wrong)


def test_without_scores_everybody_gets_one() -> None:
    truth, predictions, _, _ = made_up(0)
    with pytest.warns(PosewarperWarning, match="predicted instances have no score and get 1"):
        score_oks({"v": truth}, {"v": replace(predictions, scores=None)})


def test_nobody_predicted_and_nobody_there() -> None:
    truth, predictions, _, _ = made_up(0)
    nobody = predictions.take([])
    assert score_oks({"v": truth}, {"v": nobody}).figures["AP"] == 0
    figures = score_oks({"v": truth.take([])}, {"v": predictions}).to_dict()["oks"]
    assert set(figures.values()) == {None}


def test_the_table_fits_the_screen() -> None:
    truth, predictions, _, _ = made_up(0)
    lines = format_score(score_oks({"v": truth}, {"v": predictions})).splitlines()
    assert lines[0].split()[:3] == ["AP", "AP50", "AP75"] and max(map(len, lines)) <= 80
