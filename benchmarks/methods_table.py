"""Tables, in Markdown, of what `posewarper benchmark --json` has written.

    python benchmarks/methods_table.py FIGURES.json ... [--extremities REGEX]

For each clip a table of all methods at all gaps, the mean over seeds where there are several; then for each
cell (clip, gap, seed) the default beside the best simple method of that cell: the one of nearest, linear,
pchip, flow and flow2 with the lowest figure, chosen anew for mean, 95th percentile and PCK. *Ends* is
PCK@0.05 of the keypoints whose names fit the pattern: wrists, ankles, feet, leg tips.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIMPLE = ("nearest", "linear", "pchip", "flow", "flow2")
Row = Mapping[str, Any]


def ends(row: Row, pattern: re.Pattern[str]) -> float:
    """Return PCK@0.05 of the keypoints that fit the pattern: the mean of theirs."""
    values = [v for name, v in row["per_keypoint_pck05"].items() if v is not None and pattern.search(name)]
    return float(np.nanmean(values)) if values else float("nan")


def table_of_clip(clip: str, rows: Sequence[Row], pattern: re.Pattern[str]) -> list[str]:
    """Return the lines of one clip's table; the lowest mean of each gap is bold."""
    seeds = sorted({r["seed"] for r in rows})
    lines = [
        f"**{clip}**, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
        "",
        "| gap | method | mean | median | p95 | PCK@0.05 | ends | PCK@0.1 | between | beyond | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for gap in sorted({r["every"] for r in rows}, reverse=True):
        own = [r for r in rows if r["every"] == gap]
        methods = list(dict.fromkeys(r["method"] for r in own))
        means = {m: np.mean([r["mean"] for r in own if r["method"] == m]) for m in methods}
        for method in methods:
            of_method = [r for r in own if r["method"] == method]

            def over_seeds(key: str, chosen: Sequence[Row] = of_method) -> float:
                return float(np.mean([r[key] for r in chosen if r[key] is not None] or [np.nan]))

            mean = f"{means[method]:.2f}"
            cells = [
                str(gap),
                method,
                f"**{mean}**" if method == min(methods, key=means.__getitem__) else mean,
                f"{over_seeds('median'):.2f}",
                f"{over_seeds('p95'):.1f}",
                f"{over_seeds('pck05'):.1f}",
                f"{np.mean([ends(r, pattern) for r in of_method]):.1f}",
                f"{over_seeds('pck10'):.1f}",
                f"{over_seeds('between_mean'):.2f}",
                f"{over_seeds('beyond_mean'):.2f}",
                f"{over_seeds('seconds'):.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        fits = [r["fit_seconds"] for r in own if r.get("fit_seconds")]
        if fits:
            lines.append(f"| {gap} | fitting | | | | | | | | | {np.median(fits):.0f} |")
    return [*lines, ""]


def ratios(cells: Mapping[tuple[str, int, int], Mapping[str, Row]], pattern: re.Pattern[str]) -> list[str]:
    """Return the lines that set the default beside the best simple method of each cell."""
    lines = [
        "| clip, gap, seed | mean: best simple | default | ratio | p95: best simple | default | ratio "
        "| ends: best simple | default |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    found: dict[int, list[tuple[float, float]]] = {}
    for (clip, gap, seed), by_method in sorted(cells.items(), key=lambda c: (-c[0][1], c[0][0], c[0][2])):
        simple, own = [by_method[m] for m in SIMPLE if m in by_method], by_method["default"]
        mean, p95 = min(r["mean"] for r in simple), min(r["p95"] for r in simple)
        pair = own["mean"] / mean, own["p95"] / p95
        found.setdefault(gap, []).append(pair)
        lines.append(
            f"| {clip}, {gap}, {seed} | {mean:.2f} | {own['mean']:.2f} | {pair[0]:.2f} "
            f"| {p95:.1f} | {own['p95']:.1f} | {pair[1]:.2f} "
            f"| {max(ends(r, pattern) for r in simple):.1f} | {ends(own, pattern):.1f} |"
        )
    for gap, pairs in found.items():
        mean, p95 = np.mean(pairs, axis=0)
        lines.append(f"| mean of {len(pairs)} cells, {gap} | | | {mean:.2f} | | | {p95:.2f} | | |")
    return [*lines, ""]


def main() -> None:
    """Read the command line and the figures, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("figures", nargs="+", type=Path, metavar="FIGURES.json")
    parser.add_argument("--extremities", default="wrist|ankle|toe|heel|foot|paw|leg", metavar="REGEX")
    options = parser.parse_args()
    pattern = re.compile(options.extremities, re.IGNORECASE)
    rows = [row for path in options.figures for row in json.loads(path.read_text("utf-8"))["rows"]]
    cells: dict[tuple[str, int, int], dict[str, Row]] = {}
    for row in rows:
        cells.setdefault((row["clip"], row["every"], row["seed"]), {})[row["method"]] = row
    for clip in dict.fromkeys(row["clip"] for row in rows):
        of_clip = [r for key, by_method in cells.items() if key[0] == clip for r in by_method.values()]
        print("\n".join(table_of_clip(clip, of_clip, pattern)))
    print("\n".join(ratios({key: found for key, found in cells.items() if "default" in found}, pattern)))


if __name__ == "__main__":
    main()
