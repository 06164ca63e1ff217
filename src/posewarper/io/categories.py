"""The categories of a COCO keypoints file: names, edges and mirror pairs of the keypoints."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.io.records import PathLike, Record, records_of
from posewarper.skeletons import Skeleton

_Key = int | str | None


def read_skeleton(
    document: Mapping[str, Any], annotations: Sequence[Record], path: PathLike, given: Skeleton | None
) -> tuple[Skeleton, list[Record]]:
    """Return the skeleton of a COCO file, and those of its annotations that have it.

    Args:
        document: the parsed file.
        annotations: all its annotations.
        path: its path, for messages.
        given: stands in where no category names keypoints.

    Raises:
        LabelsError: if there is no skeleton or more than one, or an annotation's category does not exist.
    """
    records = records_of(document, "categories", path) if "categories" in document or given is None else []
    categories: dict[_Key, Record] = {}
    for record in records:
        key = record.identifier("id")
        if key in categories:
            raise record.problem(
                "two categories have the same id", got=key, mend="number the categories anew"
            )
        categories[key] = record
    skeletons = {key: _read_category(r) for key, r in categories.items() if r.items("keypoints")}
    if skeletons:
        return _choose(skeletons, _used_categories(annotations, categories), annotations, path)
    if given is not None:
        return given, [record for record in annotations if "keypoints" in record.values]
    raise LabelsError(
        "no category names keypoints",
        path=path,
        expected='categories like [{"id": 1, "name": "person", "keypoints": ["nose", ...]}]',
        mend="export with keypoint names, or say which skeleton it is (--skeleton)",
    )


def _used_categories(annotations: Sequence[Record], categories: Mapping[_Key, Record]) -> list[_Key]:
    """Return the category of each annotation; one that names none has the only one."""
    keys = []
    for record in annotations:
        key = record.identifier("category_id")
        if key is None and len(categories) == 1:
            key = next(iter(categories))
        if key not in categories:
            raise record.problem(
                "category_id points to no category",
                expected=f"one of {', '.join(map(str, categories))}"[:200],
                got=key if key is not None else "no category_id",
                mend="correct category_id or add the category",
            )
        keys.append(key)
    return keys


def _choose(
    skeletons: Mapping[_Key, Skeleton], used: Sequence[_Key], annotations: Sequence[Record], path: PathLike
) -> tuple[Skeleton, list[Record]]:
    candidates = {key: s for key, s in skeletons.items() if key in set(used)} or skeletons
    chosen = next(iter(candidates.values()))
    if any(s.names != chosen.names for s in candidates.values()):
        raise LabelsError(
            "the file has labels of several skeletons",
            path=path,
            expected="one category with keypoints, or several with the same keypoints",
            got=", ".join(f"{s.name} ({len(s)} keypoints)" for s in candidates.values())[:200],
            mend="keep one category in a file",
        )
    return chosen, [record for record, key in zip(annotations, used, strict=True) if key in candidates]


def _read_category(record: Record) -> Skeleton:
    names = record.items("keypoints") or []
    if not all(isinstance(name, str) and name for name in names):
        raise record.problem(
            "keypoints is wrong",
            expected="a list of names",
            got=str(names[:10])[:80],
            mend="name each keypoint with a text",
        )
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise record.problem(
            "keypoints are named twice", got=", ".join(repeated)[:200], mend="make the names unique"
        )
    mirrored = record.items("flip_pairs")
    stated = record.values.get("flip_pairs") is not None  # an empty list says that there are none
    flip_pairs = _read_pairs(mirrored or [], len(names)) if stated else None
    if flip_pairs is not None and len(flip_pairs) < len(mirrored or []):
        raise record.wrong("flip_pairs", f"pairs of keypoint numbers from 1 to {len(names)}")
    return Skeleton(
        tuple(names),
        _read_edges(record, len(names)),
        flip_pairs,  # type: ignore[arg-type]
        record.text("name") or "person",
    )


def _read_edges(record: Record, count: int) -> tuple[tuple[int, int], ...]:
    """Return the edges; wrong ones are left out with a warning, since they are only for drawing."""
    value = record.values.get("skeleton") or []
    edges = _read_pairs(value, count) if isinstance(value, list) else ()
    if not isinstance(value, list) or len(edges) < len(value):
        warnings.warn(
            f"{record.path}: {record.where}: edges of the skeleton are left out that are no pairs of "
            f"keypoint numbers from 1 to {count}",
            PosewarperWarning,
            stacklevel=2,
        )
    return edges


def _read_pairs(values: list[Any], count: int) -> tuple[tuple[int, int], ...]:
    """Return pairs of indices from 0 for pairs of numbers from 1, without what is no such pair."""
    pairs = [value for value in values if isinstance(value, list) and len(value) == 2]
    good = [(a, b) for a, b in pairs if type(a) is int and type(b) is int]
    return tuple((a - 1, b - 1) for a, b in good if 1 <= a <= count and 1 <= b <= count)
