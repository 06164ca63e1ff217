"""Expected errors of `propagate` beside true ones, on clips with dense labels.

    python benchmarks/expected_error.py CLIP.mp4=DENSE.json[@TRACK] ... --every 31,15 --out DIR [--effort E]

For each clip and gap every k-th label is kept, poses are propagated, and the expected error of every keypoint
on the other frames is compared with its true one, both as shares of the longer side of the label's box. Told
for each, and for all together: the rank correlation, the mean of both, and on how many keypoints the error is
within the bound that is stated for nine in ten. The model of the error is then fitted anew without each clip
in turn and tried on that clip, which has had no part in it: *left out*. What is finished is kept in DIR.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from posewarper import Labels, fit, open_video, read_labels
from posewarper.evaluation.clips import keep_every
from posewarper.model.checkpoint import load_model
from posewarper.propagation import stretch
from posewarper.propagation.clip import prepare_clip
from posewarper.propagation.expected_error import BOUND, read_signs, terms_of
from posewarper.propagation.methods import propagate_clip
from posewarper.structures import Floats, Poses
from posewarper.video.track_crops import instance_boxes

_SMALLEST = 0.002  # of errors, so that their logarithms do not run away

Found = Mapping[tuple[int, int], dict[str, Floats]]


def propagate(video: str, dense: Labels, gap: int, model_path: Path | None) -> tuple[Poses, Labels, Found]:
    """Propagate every ``gap``-th label; also return the terms of the error model by (track, frame)."""
    kept, found = keep_every(dense, gap), {}

    class Recording(stretch.Stretch):
        def solve(self, trust):  # type: ignore[no-untyped-def]
            def record(solved, evidence):  # type: ignore[no-untyped-def]
                signs = read_signs(solved, evidence)
                terms = terms_of(signs)
                for row, frame in enumerate(self.frames.tolist()):
                    found[self.track_id, frame] = {name: term[row] for name, term in terms.items()}
                return signs

            stretch.read_signs = record
            return super().solve(trust)

    stretch.Stretch = Recording  # type: ignore[misc]
    with open_video(video) as opened:
        model = None
        if model_path is not None:
            if not model_path.exists():
                fit(opened, kept, checkpoint=model_path)
            model = load_model(model_path).eval()
        return propagate_clip(prepare_clip(opened, kept), "default", model), kept, found


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


def tell(name: str, error: Floats, expected: Floats) -> None:
    """Print one line."""
    rank, within = spearmanr(expected, error)[0], np.mean(error <= BOUND * expected)
    print(
        f"{name:24} {len(error):6d} keypoints  rank {rank:.2f}  mean error {100 * error.mean():5.2f}  "
        f"expected {100 * expected.mean():5.2f}  within the bound {100 * within:.1f} %",
        flush=True,
    )


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="+", metavar="CLIP=DENSE[@TRACK]")
    parser.add_argument("--every", default="31,15")
    parser.add_argument("--effort", choices=("normal", "fast"), default="normal")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cells: dict[tuple[str, int], Mapping[str, Floats]] = {}
    for gap in map(int, options.every.split(",")):
        for pair in options.clips:
            video, labels = pair.split("=")
            labels, _, track = labels.partition("@")
            name = Path(video).stem
            path = options.out / f"{name}_{gap}_{options.effort}.npz"
            if not path.exists():
                with open_video(video) as opened:
                    dense = read_labels(labels, video=opened).only_labelled()
                dense = dense.only_track(int(track)) if track else dense
                model = None if options.effort == "fast" else options.out / f"{name}_{gap}.pt"
                poses, kept, found = propagate(video, dense, gap, model)
                np.savez(path, allow_pickle=False, **collect(poses, dense, kept, found))
            cells[name, gap] = dict(np.load(path))
            tell(f"{name}, gap {gap}", cells[name, gap]["error"], cells[name, gap]["expected"])
    every = list(cells.values())
    tell("all", *(np.concatenate([cell[key] for cell in every]) for key in ("error", "expected")))
    names = sorted(name for name in every[0] if name not in ("error", "expected"))
    print("fitted to all:", dict(zip(["bias", *names], fit_terms(every).round(3).tolist(), strict=True)))
    if len({name for name, _ in cells}) < 2:
        return
    errors, expected = [], []
    for (name, gap), cell in cells.items():
        beta = fit_terms([other for (own, _), other in cells.items() if own != name])
        errors.append(cell["error"])
        expected.append(np.exp(columns(cell) @ beta))
        tell(f"{name}, gap {gap}, left out", errors[-1], expected[-1])
    tell("all, left out", np.concatenate(errors), np.concatenate(expected))


if __name__ == "__main__":
    main()
