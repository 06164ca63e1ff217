"""Methods side by side on clips whose every keypoint is known, cell by cell; a stopped run goes on."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posewarper.benchmark import describe_machine, source_digest
from posewarper.files import write_json
from posewarper.fitting import INTERPOLATIONS, fit_clip, needs_all_stages, needs_model
from posewarper.model.network import PoseWarper
from posewarper.model.pretrained import read_backbone_weights
from posewarper.options import NetworkConfig, effort_config
from posewarper.propagation.clip import Clip, prepare_clip
from posewarper.propagation.methods import propagate_clip
from posewarper.structures import Floats, Labels, Poses
from posewarper.video.source import Openable, open_video

SIMPLE = ("linear", "pchip", "flow", "flow2")
# By how much the default may be worse than the best simple method: the larger of the two.
MARGIN_PX, MARGIN_SHARE = 0.3, 0.05
Cell = Mapping[str, Any]


@dataclass(frozen=True)
class KnownClip:
    """A clip whose every keypoint is known.

    Args:
        video: what can be opened: a file, or frames in memory.
        truth: labels of all frames.
        kept: those labels that the methods are given.
        sizes: track id -> (t,) pixels of the subject on the frames of its track in ``truth``.
    """

    video: Openable
    truth: Labels
    kept: Labels
    sizes: Mapping[int, Floats]


def errors_of(poses: Poses, clip: KnownClip) -> tuple[Floats, Floats]:
    """Return errors in pixels and in percent of the size, each (n,), of visible keypoints without label.

    A keypoint without a prediction counts as 100 percent.
    """
    pixels, percent = [np.zeros(0)], [np.zeros(0)]
    for i, track in clip.truth.tracks.items():
        if i not in clip.kept.tracks:
            continue
        known = clip.kept.tracks[i]
        scored = (track.visibility == 2) & known.placed.any(0)
        scored &= ~np.isin(track.frames, clip.kept.labelled_frames)[:, None]
        found = np.full_like(track.keypoints, np.nan)
        if i in poses.tracks:
            _, here, there = np.intersect1d(track.frames, poses.tracks[i].frames, return_indices=True)
            found[here] = poses.tracks[i].keypoints[there]
        size = clip.sizes[i][:, None]
        error = np.linalg.norm(found - track.keypoints, axis=-1)
        error = np.where(np.isfinite(error), error, size)
        pixels.append(error[scored])
        percent.append((100 * error / size)[scored])
    return np.concatenate(pixels), np.concatenate(percent)


def measure(clip: KnownClip, methods: Sequence[str], effort: str, seed: int) -> dict[str, Any]:
    """Propagate by each method; return figures by method, and ``n`` scored keypoints.

    The methods share the optical flow, and those with a network one model. ``cpu`` is processor seconds: of a
    method its own, ``flow_cpu`` and ``fit_cpu`` of what they share.
    """
    found: dict[str, Any] = {"methods": {}}
    started = time.process_time()
    with open_video(clip.video) as video:
        looking = prepare_clip(video, clip.kept, narrow=not needs_model("default", effort))
        found["flow_cpu"] = round(time.process_time() - started, 2)
        model = None
        if any(needs_model(m, effort) for m in methods):
            started = time.process_time()
            model = fit_for_default(looking, effort, seed)
            found["fit_cpu"] = round(time.process_time() - started, 2)
        for method in methods:
            started = time.process_time()
            own = looking
            if method in INTERPOLATIONS:
                own = prepare_clip(video, clip.kept, flow=False)
            poses = propagate_clip(own, method, model if needs_model(method, effort) else None)
            pixels, percent = errors_of(poses, clip)
            found["methods"][method] = {
                "mean_px": round(float(pixels.mean()), 4),
                "p95_px": round(float(np.percentile(pixels, 95)), 4),
                "mean": round(float(percent.mean()), 4),
                "p95": round(float(np.percentile(percent, 95)), 4),
                "cpu": round(time.process_time() - started, 2),
            }
            found["n"] = pixels.size
    return found


def fit_for_default(clip: Clip, effort: str, seed: int = 0) -> PoseWarper:
    """Fit what `propagate` takes its poses from at an effort: no further than they need it."""
    network, config = NetworkConfig(), effort_config(effort)
    weights = read_backbone_weights(network, trains=True)
    how: dict[str, Any] = {"seed": seed, "device": "auto", "further": needs_all_stages("default", config)}
    return fit_clip(clip, config, network, start=weights, **how).eval()


def judge(cell: Cell, figure: str) -> tuple[str, float, float, bool]:
    """Set the default beside the best simple method of a cell, chosen by the figure itself.

    Args:
        cell: from :func:`measure`.
        figure: ``mean_px`` or ``p95_px``.

    Returns:
        Name and figure of the best simple method, the default's figure, and whether the default is worse by
        more than the margin.
    """
    methods = cell["methods"]
    best = min((m for m in SIMPLE if m in methods), key=lambda m: methods[m][figure])
    simple, own = methods[best][figure], methods["default"][figure]
    return best, simple, own, own > simple + max(MARGIN_PX, MARGIN_SHARE * simple)


def run_cells(
    jobs: Mapping[str, Callable[[], KnownClip]],
    out: Path,
    *,
    effort: str,
    seed: int = 0,
    tell: Callable[[str, Cell], None],
) -> dict[str, Cell]:
    """Measure the cells that are not in a file yet, and write each into it as soon as it is done.

    A cell that other source code of the package has made is measured again.

    Args:
        jobs: name of each cell -> makes its clip.
        out: JSON file, made or resumed.
        effort, seed: of the default.
        tell: is called with each cell, done now or found.

    Returns:
        The cells of the jobs; the file may hold more.
    """
    report: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.is_file() else {"cells": {}}
    source, commit = source_digest(), describe_commit()
    known = [report["cells"].get(key_of(name, effort)) for name in jobs]
    old = sum(cell is not None and cell["source"] != source for cell in known)
    if old:
        print(f"{old} cells in {out} were made by other source code and are measured again", flush=True)
    report["machine"] = describe_machine("auto")
    cells = {}
    for name, make in jobs.items():
        cell = report["cells"].get(key_of(name, effort))
        if cell is None or cell["source"] != source:
            cell = {**measure(make(), (*SIMPLE, "default"), effort, seed), "source": source, "commit": commit}
            report["cells"][key_of(name, effort)] = cell
            write_json(out, report)
        cells[name] = cell
        tell(name, cell)
    return cells


def key_of(name: str, effort: str) -> str:
    """Return by what a file knows a cell."""
    return f"{name}, effort {effort}"


def describe_commit() -> str:
    """Return the commit of the source code, with a plus where it was changed; empty where there is none."""
    folder = Path(__file__).parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=folder, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def compare_with(cells: Mapping[str, Cell], path: Path, effort: str) -> list[str]:
    """Return lines on the cells whose default moved beyond the margin since an earlier file, worst first."""
    earlier = json.loads(path.read_text("utf-8"))["cells"]
    both = [name for name in cells if key_of(name, effort) in earlier]
    moved = []
    for name in both:
        before, after = (c["methods"]["default"] for c in (earlier[key_of(name, effort)], cells[name]))
        by = after["mean_px"] - before["mean_px"]
        if abs(by) > max(MARGIN_PX, MARGIN_SHARE * before["mean_px"]):
            moved.append((by, f"{before['mean_px']:.2f} -> {after['mean_px']:.2f} px  {name}"))
    worse = sum(by > 0 for by, _ in moved)
    lines = [f"beside {path}: {len(both)} cells in both, {worse} worse and {len(moved) - worse} better"]
    return lines + [line for _, line in sorted(moved, key=lambda pair: -pair[0])]
