"""Ways in which label files get damaged: values, rows, bytes, parts of HDF5 files, files of a folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

JUNK = st.sampled_from(
    [
        *(None, True, False, -1, 0, 1, 3, 2**31, 2**63, 10**400),
        *(1.5, -0.0, 1e300, float("nan"), float("inf")),
        *("", "x", "\ud800", "clip/999999999999.jpg", [], [None], [[1, 2]], [1, 2, 3], {}, {"id": 1}, [{}]),
    ]
)
_CELLS = st.sampled_from(
    [
        *(
            "",
            "nan",
            "inf",
            "-1",
            "1.5",
            "x",
            "1e400",
            "999999999999",
            "9" * 5000,
            "\0",
            "\u00e9",
            '"',
            "a,b",
        ),
        *("true", "2", "3", "track", "x\ty", "0,5", "\u2028", "-0"),
    ]
)


def places_in(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a document, however deep."""
    places = [place] if place else []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places += places_in(inner, (*place, key))
    return places


def damage_once(document: Any, data: st.DataObject, places: list[tuple[Any, ...]]) -> None:
    """Replace, remove or double a value of a document, in place."""
    *way, key = data.draw(st.sampled_from(places))
    holder = document
    try:
        for step in way:
            holder = holder[step]
        action = data.draw(st.sampled_from(["replace", "remove", "double"]))
        if action == "replace":
            holder[key] = copy.deepcopy(data.draw(JUNK))
        elif action == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
    except (KeyError, IndexError, TypeError):
        pass  # an earlier damage took the place away


def damage(path: Path, data: st.DataObject) -> None:
    """Damage a label file, or one of a folder of label files, in place, as its kind allows."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        file = data.draw(st.sampled_from(files))
        action = data.draw(st.sampled_from(["content"] * 6 + ["remove", "rename", "only"]))
        if action == "content":
            damage(file, data)
        elif action == "remove":
            file.unlink()
        elif action == "rename":
            file.rename(
                file.with_name(data.draw(st.sampled_from(["x", "a_keypoints", "9" * 30])) + file.suffix)
            )
        else:
            for other in files:
                if other != file:
                    other.unlink()
        return
    ways = [_damage_bytes]
    ways += [_damage_json] * 4 * (path.suffix == ".json")
    ways += [_damage_lines] * 4 * (path.suffix in (".csv", ".yaml"))
    ways += [_damage_hdf5] * 4 * (path.suffix in (".h5", ".slp", ".nwb"))
    data.draw(st.sampled_from(ways))(path, data)


def _damage_bytes(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    action = data.draw(st.sampled_from(["cut", "flip", "insert", "empty"]))
    place = data.draw(st.integers(0, len(content)))
    if action == "cut":
        content = content[:place]
    elif action == "insert":
        content[place:place] = data.draw(st.binary(min_size=1, max_size=20))
    elif action == "empty":
        content = bytearray(
            data.draw(st.sampled_from([b"", b" \n", b"\xff\xfe", b"{}", b"[]", b"null", b"[" * 5000]))
        )
    else:
        for _ in range(data.draw(st.integers(1, 20))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))


def _damage_json(path: Path, data: st.DataObject) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    places = places_in(document)
    for _ in range(data.draw(st.integers(1, 3))):
        damage_once(document, data, places)
    path.write_text(json.dumps(document), encoding="utf-8")


def _damage_lines(path: Path, data: st.DataObject) -> None:
    text = path.read_text(encoding="utf-8")
    separator = ";" if ";" in text else ","
    rows = [line.split(separator) for line in text.splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        # The header is damaged as often as all rows together.
        row = rows[data.draw(st.integers(0, data.draw(st.sampled_from([0, len(rows) - 1]))))]
        cell = data.draw(st.integers(0, len(row) - 1))
        action = data.draw(st.sampled_from(["replace"] * 5 + ["remove", "double", "row"]))
        if action == "replace":
            row[cell] = data.draw(_CELLS)
        elif action == "remove" and len(row) > 1:
            del row[cell]
        elif action == "double":
            row.insert(cell, row[cell])
        else:
            rows.append(list(row))
    path.write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8", errors="surrogatepass")


def _damage_hdf5(path: Path, data: st.DataObject) -> None:
    import h5py
    import numpy as np

    values = [np.nan, -1, 2**40, "x", np.zeros(0), np.full((2, 3), np.inf), np.zeros((1, 2, 3, 4), np.uint8)]
    with h5py.File(path, "r+") as file:
        names = sorted(_names_of(file))
        for _ in range(data.draw(st.integers(1, 2))):
            name = data.draw(st.sampled_from(names))
            if name not in file:
                continue
            attributes = sorted(file[name].attrs)
            if attributes and data.draw(st.booleans()):
                attribute = data.draw(st.sampled_from(attributes))
                del file[name].attrs[attribute]
                if data.draw(st.booleans()):
                    file[name].attrs[attribute] = data.draw(st.sampled_from(values))
            elif name != "/":
                del file[name]
                if data.draw(st.booleans()):
                    file[name] = data.draw(st.sampled_from(values))


def _names_of(file: Any) -> Iterator[str]:
    yield "/"
    names: list[str] = []
    file.visit(names.append)
    yield from names
