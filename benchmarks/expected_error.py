"""Expected errors of `propagate` beside true ones, on clips with dense labels.

    python benchmarks/expected_error.py CLIP.mp4=DENSE.json[@TRACK] ... --every 31,15 --out DIR
        [--effort normal,fast]

For each cell (clip, gap, effort) every k-th label is kept, poses are propagated, and the expected error of
every keypoint on the other frames is compared with its true one, both as shares of the longer side of the
label's box. Told for each cell, and for all of an effort together: the rank correlation, the mean of both in
percent, and on how many keypoints the error is within the bound that is stated for nine in ten. *left out* is
that share by a model of the error that is fitted anew without the cell's clip. DIR/figures.json has it all.

What is finished is kept in DIR: cells are measured again when the package's source has changed, fitted models
are not.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from known_truth.scoring import fit_for_default
from posewarper import Labels, open_video, read_labels
from posewarper.benchmark import source_digest
from posewarper.evaluation.clips import keep_every
from posewarper.files import replacing, write_json
from posewarper.model.checkpoint import load_model, save_model
from posewarper.propagation import stretch
from posewarper.propagation.clip import prepare_clip
from posewarper.propagation.evidence import Evidence
from posewarper.propagation.expected_error import BOUND, Signs, terms_of
from posewarper.propagation.methods import propagate_clip
from posewarper.propagation.trajectory import Trajectory
from posewarper.propagation.trust import Trust
from posewarper.structures import Floats, Poses
from posewarper.video.track_crops import instance_boxes

_SMALLEST = 0.002  # of errors, so that their logarithms do not run away

Found = Mapping[tuple[int, int], dict[str, Floats]]
CellName = tuple[str, int, str]  # clip, gap, effort


def propagate(video: str, dense: Labels, gap: int, model_path: Path | None) -> tuple[Poses, Labels, Found]:
    """Propagate every ``gap``-th label; also return the terms of the error model by (track, frame)."""
    kept, found = keep_every(dense, gap), {}
    solve, read = stretch.Stretch.solve, stretch.read_signs

    def solve_and_record(self: stretch.Stretch, trust: Trust) -> stretch.Estimate:
        def record(solved: Trajectory, evidence: Evidence) -> Signs:
            signs = read(solved, evidence)
            terms = terms_of(signs)
            for row, frame in enumerate(self.frames.tolist()):
                found[self.track_id, frame] = {name: term[row] for name, term in terms.items()}
            return signs

        stretch.read_signs = record
        return solve(self, trust)

    with open_video(video) as opened:
        clip, model = prepare_clip(opened, kept), None
        if model_path is not None:
            if not model_path.exists():
                save_model(model_path, fit_for_default(clip, "normal"))
            model = load_model(model_path).eval()
        stretch.Stretch.solve = solve_and_record
        try:
            return propagate_clip(clip, "default", model), kept, found
        finally:
            stretch.Stretch.solve, stretch.read_signs = solve, read


def collect(poses: Poses, dense: Labels, kept: Labels, found: Found) -> dict[str, Floats]:
    """Return true errors, expected errors and the terms of the scored keypoints, each (n,)."""
    rows: dict[str, list[Floats]] = {}
    for i, track in dense.tracks.items():
        if i not in poses.tracks or i not in kept.tracks:
            continue
        pose, known = poses.tracks[i], (kept.tracks[i].visibility > 0).any(0)
        sizes = instance_boxes(track.keypoints, track.boxes)[:, 2:].max(1)
        for row, frame in enumerate(track.frames.tolist()):
            own = int(np.searchsorted(pose.frames, frame))
            if frame in kept.labelled_frames or own == len(pose.frames) or pose.frames[own] != frame:
                continue
            use = (track.visibility[row] == 2) & known
            error = np.linalg.norm(pose.keypoints[own] - track.keypoints[row], axis=-1) / sizes[row]
            values = {"error": error, "expected": pose.expected_error[own] / sizes[row], **found[i, frame]}
            for name, value in values.items():
                rows.setdefault(name, []).append(value[use])
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def columns(cell: Mapping[str, Floats]) -> Floats:
    """Return (n, 1 + terms), the first all ones."""
    terms = [cell[name] for name in sorted(cell) if name not in ("error", "expected")]
    return np.stack([np.ones(len(terms[0])), *terms], axis=1)


def fit_terms(cells: list[Mapping[str, Floats]]) -> Floats:
    """Fit the logarithm of errors, each cell weighing the same, so that their mean is right."""
    x = np.concatenate([columns(cell) for cell in cells])
    y = np.concatenate([cell["error"] for cell in cells])
    weight = np.concatenate([np.full(len(cell["error"]), 1 / len(cell["error"])) for cell in cells])
    ridge = 1e-6 * np.eye(x.shape[1])
    beta = np.linalg.solve(x.T @ (x * weight[:, None]) + ridge, x.T @ (weight * np.log(y + _SMALLEST)))
    beta[0] += np.log((weight * y).sum() / (weight * np.exp(x @ beta)).sum())
    return beta


def figures_of(error: Floats, expected: Floats) -> dict[str, float]:
    """Return the figures of keypoints (n,): errors in percent of the size, the share within the bound too."""
    return {
        "keypoints": len(error),
        "rank": round(float(spearmanr(expected, error).statistic), 3),
        "mean_error": round(100 * float(error.mean()), 3),
        "mean_expected": round(100 * float(expected.mean()), 3),
        "p95_error": round(100 * float(np.percentile(error, 95)), 3),
        "within_bound": round(100 * float(np.mean(error <= BOUND * expected)), 2),
    }


def write_row(name: str, figures: Mapping[str, float], left_out: Mapping[str, float] | None) -> str:
    """Return a line of the table."""
    cells = [name, f"{figures['keypoints']}", f"{figures['rank']:.2f}", f"{figures['mean_error']:.2f}"]
    cells += [f"{figures['mean_expected']:.2f}", f"{figures['within_bound']:.1f}"]
    cells.append("" if left_out is None else f"{left_out['within_bound']:.1f}")
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| clip, gap, effort | keypoints | rank | mean error | expected | within the bound | left out |\n"
    "|---|---|---|---|---|---|---|"
)


def leave_out(cells: Mapping[CellName, Mapping[str, Floats]]) -> dict[CellName, Floats]:
    """Return the expected errors of each cell by a model that is fitted to the cells of the other clips."""
    found = {}
    for (clip, gap, effort), cell in cells.items():
        others = [c for (name, _, _), c in cells.items() if name != clip]
        if others:
            found[clip, gap, effort] = np.exp(columns(cell) @ fit_terms(others))
    return found


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="+", metavar="CLIP=DENSE[@TRACK]")
    parser.add_argument("--every", default="31,15")
    parser.add_argument("--effort", default="normal", help="one or both: normal,fast")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    efforts = options.effort.split(",")
    if not set(efforts) <= {"normal", "fast"}:
        raise SystemExit(f"--effort takes normal, fast or normal,fast, and got {options.effort}")
    options.out.mkdir(parents=True, exist_ok=True)
    source, report = source_digest(), {}
    print(HEAD, flush=True)
    for effort in efforts:
        cells: dict[CellName, Mapping[str, Floats]] = {}
        for gap in map(int, options.every.split(",")):
            for pair in options.clips:
                video, labels = pair.split("=")
                labels, _, track = labels.partition("@")
                name = Path(video).stem
                # Figures that other source code has made are not used again.
                path = options.out / f"{name}_{gap}_{effort}_{source[:12]}.npz"
                if not path.exists():
                    with open_video(video) as opened:
                        dense = read_labels(labels, video=opened).only_labelled()
                    dense = dense.only_track(int(track)) if track else dense
                    model = None if effort == "fast" else options.out / f"{name}_{gap}.pt"
                    poses, kept, found = propagate(video, dense, gap, model)
                    with replacing(path) as temporary:
                        np.savez(temporary, allow_pickle=False, **collect(poses, dense, kept, found))
                cells[name, gap, effort] = dict(np.load(path))
        report |= tell(cells, effort)
        write_json(options.out / "figures.json", {"source": source, "bound": BOUND, "cells": report})


def tell(cells: Mapping[CellName, Mapping[str, Floats]], effort: str) -> dict[str, Any]:
    """Print the table of an effort, whose terms are its own, and return its figures."""
    left, report = leave_out(cells), {}
    for (clip, gap, _), cell in cells.items():
        name, own = f"{clip}, {gap}, {effort}", figures_of(cell["error"], cell["expected"])
        others = figures_of(cell["error"], left[clip, gap, effort]) if left else None
        report[name] = {**own, "left_out": others}
        print(write_row(name, own, others), flush=True)
    error, expected = (np.concatenate([c[key] for c in cells.values()]) for key in ("error", "expected"))
    others = figures_of(error, np.concatenate(list(left.values()))) if left else None
    report[f"all, {effort}"] = {**figures_of(error, expected), "left_out": others}
    print(write_row(f"all, {effort}", report[f"all, {effort}"], others), flush=True)
    shares = [figures_of(c["error"], c["expected"])["within_bound"] for c in cells.values()]
    print(f"{effort}: from {min(shares):.1f} to {max(shares):.1f} percent a cell, mean {np.mean(shares):.1f}")
    names = sorted(n for n in next(iter(cells.values())) if n not in ("error", "expected"))
    fitted = fit_terms(list(cells.values())).round(3).tolist()
    print(f"{effort}, fitted to all:", dict(zip(["bias", *names], fitted, strict=True)), flush=True)
    return report


if __name__ == "__main__":
    main()
