"""DeepLabCut's tables as CSV.

Header rows ``scorer``, ``individuals`` (several animals only), ``bodyparts``, ``coords``; then one row for
each image, which stands in one column (``labeled-data/<video>/img0012.png``) or, in newer versions, in
three. In tables of predictions it is the index of the frame.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from posewarper.files import replacing
from posewarper.io.deeplabcut_table import (
    ONE_ANIMAL,
    SEVERAL_ANIMALS,
    Header,
    Table,
    frame_or_path,
    problem,
    read_header,
    wrong_cell,
)
from posewarper.io.records import PathLike


def is_csv(text: str) -> bool:
    """Return whether a text looks like DeepLabCut's table."""
    return text.lstrip().startswith("scorer,")


def parse_csv(text: str, path: PathLike) -> Table:
    """Return the table that a CSV file holds.

    Raises:
        LabelsError: if anything in it is not as it should be.
    """
    rows = _split(text, path)
    header, start, indent = _read_top(rows, path)
    body = [(line, row) for line, row in rows[start:] if any(row)]
    width = indent + len(header.places)
    cells = np.full((len(body), len(header.places)), np.nan)
    for values, (line, row) in zip(cells, body, strict=True):
        if len(row) != width:
            expected = f"{width} cells, as the header has"
            what = "the row has another length than the header"
            raise problem(path, f"line {line}", what, expected, len(row))
        for column, cell in enumerate(row[indent:]):
            if cell.strip():
                values[column] = _parse(cell, path, line, header, column)
    return Table(
        header,
        tuple(frame_or_path("/".join(row[:indent])) for _, row in body),
        tuple(f"line {line}" for line, _ in body),
        cells,
    )


def write_csv(path: PathLike, table: Table, titles: Sequence[str], levels: Sequence[Sequence[str]]) -> None:
    """Write a table as CSV, its numbers exactly as given.

    Args:
        path: the file.
        table: what to write.
        titles: :data:`ONE_ANIMAL` or :data:`SEVERAL_ANIMALS`.
        levels: the cells of these rows.

    Raises:
        OutputError: if the file cannot be written.
    """
    rows: list[list[object]] = [[title, *level] for title, level in zip(titles, levels, strict=True)]
    for image, cells in zip(table.images, table.cells.tolist(), strict=True):
        rows.append([image, *["" if value != value else repr(value) for value in cells]])
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        csv.writer(handle, lineterminator="\n").writerows(rows)


def _split(text: str, path: PathLike) -> list[tuple[int, list[str]]]:
    """Return (line number from 1, cells) of each row."""
    if not is_csv(text):
        expected = "a first cell 'scorer'"
        raise problem(path, "line 1", "the header is not DeepLabCut's", expected, text.lstrip()[:20])
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        what, expected = "the file is no valid CSV", "a comma separated table"
        raise problem(path, f"line {reader.line_num}", what, expected, error) from error


def _read_top(rows: Sequence[tuple[int, list[str]]], path: PathLike) -> tuple[Header, int, int]:
    """Return the header, the number of its rows, and the number of columns before the coordinates."""
    titles = [row[0].strip() if row else "" for _, row in rows[: len(SEVERAL_ANIMALS)]]
    wanted = SEVERAL_ANIMALS if "individuals" in titles else ONE_ANIMAL
    what = "the header is not DeepLabCut's"
    if tuple(titles[: len(wanted)]) != wanted:
        got = ", ".join(title[:20] or "(empty)" for title in titles)
        raise problem(path, "line 1", what, f"rows {', '.join(wanted)}", got)
    top = [row for _, row in rows[: len(wanted)]]
    width = len(top[0])
    if any(len(row) != width for row in top):
        lengths = ", ".join(str(len(row)) for row in top)
        text = "the header's rows have different lengths"
        raise problem(path, "line 1", text, f"{width} cells each", lengths)
    indent = next((i for i, cell in enumerate(top[0]) if i and cell.strip()), width)
    if indent not in (1, 3) or indent == width:
        expected = "1 or 3 columns for the image, then the coordinates"
        raise problem(path, "line 1", what, expected, f"{indent} of {width}")
    levels = [[cell.strip() for cell in row[indent:]] for row in top]
    return read_header(path, f"line {len(wanted)}", levels), len(wanted), indent


def _parse(cell: str, path: PathLike, line: int, header: Header, column: int) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise wrong_cell(path, f"line {line}", header, column, cell[:40]) from error
