"""Lists of videos with what belongs to each: a table (.csv, .tsv), lines of paths (.txt) or YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from posewarper.errors import ConfigError, few_of
from posewarper.formats.records import PathLike, load_yaml, read_csv, read_text


def read_list(
    path: PathLike, columns: Sequence[str], needed: Sequence[str] = ("video",)
) -> list[tuple[str, dict[str, str]]]:
    """Read a list of videos.

    A table has the names of its columns in its first line, a text has one video in each line, and YAML is a
    list of rows such as ``{video: a.mp4, labels: a.json}``.

    Args:
        path: the file.
        columns: all that a row may have.
        needed: those that every row has.

    Returns:
        For each row what to call it in messages, and its values by column, without empty ones.

    Raises:
        ConfigError: if the file cannot be read, or a row lacks or misspells something.
    """
    place = Path(path)
    optional = [name for name in columns if name not in needed]
    expected = f"columns {', '.join(needed)} and, if you like, {', '.join(optional)}"
    text = read_text(place, "list")
    found = []
    for where, row in _rows(place, text, expected):
        values = {str(key): str(value).strip() for key, value in row.items() if value not in (None, "")}
        strangers = sorted(str(key) for key in row if key not in columns)
        missing = [name for name in needed if not values.get(name)]
        if strangers or missing:
            got = f"unknown {few_of(strangers)}" if strangers else f"no {' and no '.join(missing)}"
            raise ConfigError(
                f"{where} of this list cannot be used",
                path=place,
                expected=expected,
                got=got,
                fix="correct the row",
            )
        found.append((where, {name: value for name, value in values.items() if value}))
    return found


def _rows(place: Path, text: str, expected: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    suffix = place.suffix.lower()
    if suffix in (".csv", ".tsv"):
        rows = (
            (where, [cell.strip() for cell in cells]) for where, cells in read_csv(text, place) if any(cells)
        )
        _, header = next(rows, ("", []))
        for where, cells in rows:
            yield (
                where,
                dict(zip_longest(header, cells, fillvalue="")) if len(cells) <= len(header) else {"more": 1},
            )
    elif suffix == ".txt":
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield f"line {number}", {"video": line.strip()}
    else:
        content = load_yaml(text, place, "list")
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ConfigError(
                "this is not a list of videos",
                path=place,
                expected=f"rows with {expected}",
                got=type(content).__name__,
                fix="write a table, or a YAML list such as '- {video: a.mp4, labels: a.json}'",
            )
        for number, row in enumerate(content, start=1):
            yield f"row {number}", row
