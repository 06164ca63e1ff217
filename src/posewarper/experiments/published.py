"""The published figures: mean AP of the official evaluation. Only these are known; none is made up."""

from __future__ import annotations

GROUPS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "total")

Row = tuple[float | None, ...]

# (dataset, experiment) -> name of our row -> what was published, by GROUPS.
PUBLISHED: dict[tuple[str, str], dict[str, Row]] = {
    ("posetrack17", "propagation"): {
        "per-frame pseudo-labels": (79.1, 86.5, 81.4, 74.7, 81.4, 79.4, 72.3, 79.3),
        "optical flow (FlowNet2)": (82.7, 91.0, 83.8, 78.4, 89.7, 83.6, 78.1, 83.8),
        "PoseWarper": (86.0, 92.7, 89.5, 86.0, 91.5, 89.1, 86.6, 88.7),
    },
    ("posetrack17", "aggregation"): {
        "per-frame": (*[None] * 7, 80.9),
        "PoseWarper": (81.4, 88.3, 83.9, 78.0, 82.4, 80.5, 73.6, 81.2),
    },
    ("posetrack18", "aggregation"): {
        "per-frame": (*[None] * 7, 79.4),
        "PoseWarper": (79.9, 86.3, 82.4, 77.5, 79.8, 78.8, 73.2, 79.7),
    },
}
NOTES = {
    "aggregation": "published: PoseWarper by its authors, per-frame by others who ran it; detected boxes",
    "propagation": "published: labelled frames themselves count, as in ours",
    "augmentation": "the paper's figures of these sweeps are not known here",
}


def published_rows(dataset: str, experiment: str) -> dict[str, Row]:
    """Return the published rows of an experiment by the name of our row; none where none is known."""
    return PUBLISHED.get((dataset, experiment), {})
