"""The measure of the parity tests, and a note of the largest error of each recorded file.

``POSEWARPER_PARITY_REPORT=errors.md pytest tests/parity`` writes the notes as a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_LARGEST: dict[tuple[str, str], float] = {}


def relative_error(ours: Any, theirs: Any) -> float:
    """The largest difference as a share of the largest absolute value; NaN belongs where NaN is."""
    ours = ours.detach().cpu().numpy() if hasattr(ours, "detach") else np.asarray(ours)
    ours, theirs = ours.astype(np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    there = ~np.isnan(theirs)
    assert np.array_equal(there, ~np.isnan(ours))
    if not there.any():
        return 0.0
    ours, theirs = ours[there], theirs[there]
    return float(np.abs(ours - theirs).max() / (np.abs(theirs).max() or 1.0))


def record(file: str, error: float, kind: str = "float64") -> None:
    """Note an error of a file; ``kind`` is the precision that we computed in, or "exact" for indices."""
    _LARGEST[file, kind] = max(_LARGEST.get((file, kind), 0.0), error)


def measure(file: str, ours: Any, theirs: Any) -> float:
    """Return the relative error of an array or tensor and note it by the precision of ``ours``."""
    error = relative_error(ours, theirs)
    name = str(ours.dtype).removeprefix("torch.") if hasattr(ours, "dtype") else "float64"
    record(file, error, name if name.startswith("float") else "exact")
    return error


def write_report(path: Path) -> None:
    """Write what was noted as a Markdown table, one row a file."""
    kinds = ("exact", "float64", "float32")
    lines = ["| file | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for file in sorted({file for file, _ in _LARGEST}):
        cells = (f"{_LARGEST[file, kind]:.1e}" if (file, kind) in _LARGEST else "" for kind in kinds)
        lines.append(f"| `{file}` | " + " | ".join(cells) + " |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
