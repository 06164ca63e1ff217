"""The paper's three experiments on made-up PoseTracks over several seeds: which effects hold?

    python benchmarks/experiments.py --seeds 3 --out runs/effects --json effects.json

Each seed draws its own PoseTrack18 (rendered people in clothes of their own, known motion, official files),
prepares it, and runs
``posewarper experiment posetrack18 all --config tiny_experiments.yaml`` on it, seeded alike. The model of
the aggregation experiment predicts frames of val that were blurred or covered, their neighbours being as they
were. What is done is skipped, so that an interrupted run goes on. An effect holds if the mean difference over
the seeds exceeds its standard error.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.evaluation.protocols import evaluate
from posewarper.model.checkpoint import load_model
from posewarper.paper.prediction import PredictionConfig, predict_dataset
from posewarper.posetrack.dataset import open_dataset
from posewarper.posetrack.posetrack18 import read_posetrack18, write_posetrack18
from posewarper.posetrack.preparation import prepare_dataset

# Every third frame is spoiled, so that the frames beside it are not.
_EVERY = 3
EFFECTS = (
    ("propagation: PoseWarper, less per-frame", "propagation", "PoseWarper", "per-frame pseudo-labels"),
    ("propagation: PoseWarper, less DIS flow", "propagation", "PoseWarper", "optical flow (DIS)"),
    ("augmentation: retrained, less labels alone", "augmentation", "and propagated poses", "labels alone"),
    ("aggregation: five frames, less one", "aggregation", "PoseWarper", "per-frame"),
    ("aggregation, blurred frames", "blurred", "paper", "none"),
    ("aggregation, covered frames", "covered", "paper", "none"),
)


def spoil(image: np.ndarray, boxes: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Blur a frame along its rows, or cover half of each person by a grey bar."""
    if kind == "blurred":
        kernel = np.zeros((13, 13), np.float32)
        kernel[6] = 1 / 13
        return cv2.filter2D(image, -1, kernel)
    covered = image.copy()
    for x, y, w, h in boxes:
        top = y + rng.uniform(0.1, 0.5) * h
        corners = (int(x), int(top)), (int(x + w), int(top + 0.4 * h))
        cv2.rectangle(covered, *corners, (110, 110, 110), -1)
    return covered


def write_spoiled(download: Path, folder: Path, kind: str, seed: int) -> None:
    """Write val once more with every third frame spoiled, and only these labelled."""
    rng = np.random.default_rng(seed)
    for path in sorted((download / "annotations" / "val").glob("*.json")):
        table = read_posetrack18(path)
        is_spoiled = table.is_labelled & (table.frame_numbers % _EVERY == 0)
        for row, name in enumerate(table.frame_names):
            source, place = download / "images" / name, folder / "images" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if table.frame_numbers[row] % _EVERY:
                shutil.copyfile(source, place)
            else:
                image = spoil(cv2.imread(str(source)), table.boxes[table.rows == row], kind, rng)
                cv2.imwrite(str(place), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        kept = replace(table.take(is_spoiled[table.rows]), is_labelled=is_spoiled)
        (folder / "annotations" / "val").mkdir(parents=True, exist_ok=True)
        write_posetrack18(folder / "annotations" / "val" / path.name, replace(kept, ignore_regions={}))


def mean_ap(figures: dict) -> float:
    """Return the mean AP in percent."""
    return float(figures["ap"]["groups"]["total"] or 0.0)


def score_spoiled(run: Path, download: Path, place: Path, kind: str, seed: int) -> dict[str, float]:
    """Return the AP on spoiled frames of val from one frame and from five, the same warper's network."""
    found = place / f"{kind}.json"
    if found.is_file():
        return json.loads(found.read_text())
    folder = place / kind
    shutil.rmtree(folder, ignore_errors=True)
    write_spoiled(download, folder / "download", kind, seed)
    prepare_dataset("posetrack18", folder / "download", folder / "data")
    dataset = open_dataset(folder / "data")
    model = load_model(run / "warper" / "model.pt")
    scores = {}
    for aggregate in ("none", "paper"):
        out = folder / aggregate
        config = PredictionConfig(aggregate=aggregate)
        predict_dataset(dataset, model, out, split="val", config=config)
        scores[aggregate] = mean_ap(
            evaluate(folder / "data" / "annotations" / "val", out / "results").to_dict()
        )
    found.write_text(json.dumps(scores))
    return scores


def run_seed(seed: int, place: Path, config: str, videos: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Return row -> AP of every experiment for one seed."""
    done = place / "scores.json"
    if done.is_file():
        return json.loads(done.read_text())
    begun = time.perf_counter()
    download = place / "download"
    if not (place / "data" / "dataset.json").is_file():
        write_posetrack_tree(
            download,
            "posetrack18",
            n_videos=videos,
            n_frames=36,
            size=(120, 160),
            n_people=(1, 2),
            seed=seed,
            clothes="varied",
            pace=0.6,
        )
        prepare_dataset("posetrack18", download, place / "data")
    run = place / "run"
    command = [sys.executable, "-m", "posewarper", "experiment", "posetrack18", "all", "--device", "cpu"]
    command += ["--data", str(place / "data"), "--out", str(run), "--config", config]
    subprocess.run([*command, f"train.seed={seed}", f"data.subset_seed={seed}"], check=True)
    seconds = time.perf_counter() - begun
    known = json.loads((run / "figures.json").read_text())
    scores = {
        name: {row.split(": ")[-1]: figures["total"] or 0.0 for row, figures in table["rows"].items()}
        for name, table in known.items()
    }
    for kind in ("blurred", "covered"):
        scores[kind] = score_spoiled(run, download, place, kind, seed)
    scores["seconds"] = {"experiments": round(seconds, 1)}
    done.write_text(json.dumps(scores, indent=1))
    return scores


def summarise(scores: list[dict[str, dict[str, float]]]) -> list[dict]:
    """Return each effect with its mean difference, standard error and verdict."""
    rows = []
    for name, experiment, one, other in EFFECTS:
        first = np.array([s[experiment][one] for s in scores])
        second = np.array([s[experiment][other] for s in scores])
        difference = first - second
        n = len(difference)
        error = float(difference.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
        rows.append(
            {
                "name": name,
                "with": round(float(first.mean()), 2),
                "without": round(float(second.mean()), 2),
                "difference": round(float(difference.mean()), 2),
                "standard_error": round(error, 2),
                "holds": bool(difference.mean() > error),
                "each": difference.round(2).tolist(),
            }
        )
    return rows


def main() -> None:
    """Run the seeds and print the effects."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/effects"))
    parser.add_argument("--config", default="tiny_experiments.yaml")
    parser.add_argument("--videos", type=int, nargs=2, default=(20, 6), help="of train and val")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    scores = []
    for seed in range(options.seeds):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores.append(run_seed(seed, options.out / f"seed{seed}", options.config, tuple(options.videos)))
        rows = summarise(scores)
        print(
            f"\n{seed + 1} seeds, {scores[-1]['seconds']['experiments']:.0f} s for the last one's experiments"
        )
        for row in rows:
            verdict = "holds" if row["holds"] else "does not hold"
            print(
                f"{row['name']:44} {row['with']:6.1f} {row['without']:6.1f}  "
                f"{row['difference']:+6.2f} +- {row['standard_error']:5.2f}  {verdict}",
                flush=True,
            )
    if options.json:
        result = {"device": platform.processor() or platform.machine(), "seeds": options.seeds, "rows": rows}
        options.json.write_text(json.dumps({**result, "scores": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
