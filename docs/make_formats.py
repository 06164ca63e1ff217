"""Write the tables of ``docs/formats.md`` anew, from the table of formats in the code.

python docs/make_formats.py
"""

from __future__ import annotations

from pathlib import Path

from posewarper.formats.catalogue import FORMATS, LabelFormat, formats_by_suffix
from posewarper.formats.clips import PIECES

PAGE = Path(__file__).parent / "formats.md"
BEGIN, END = "<!-- made by docs/make_formats.py, begin -->", "<!-- made by docs/make_formats.py, end -->"


def main() -> None:
    """Write the page."""
    PAGE.write_text(renew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def renew(page: str) -> str:
    """Return the page with the tables as the code gives them."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{make_tables()}\n{END}{after}"


def make_tables() -> str:
    """Return both tables: what each format reads and writes, and which pieces it holds."""
    rows = [["format", "reads", "writes", "without `--from` told by", "without `--to` written as", "needs"]]
    rows += [_describe(name, form) for name, form in FORMATS.items()]
    written = {name: form for name, form in FORMATS.items() if form.write is not None}
    named = [f"`{name}`" for name in written]
    matrix = [["", *named]]
    matrix += [[piece, *(_is_held(piece, form) for form in written.values())] for piece in PIECES]
    return f"{_table(rows)}\nWhat comes back from each, and what is lost:\n\n{_table(matrix)}"


def _is_held(piece: str, form: LabelFormat) -> str:
    if piece in form.cannot_hold:
        return "lost"
    if piece in form.partly:
        return "partly"
    # What there is to say about scores goes with them.
    return "" if "score" in piece and "scores" in form.cannot_hold else "kept"


def _describe(name: str, form: LabelFormat) -> list[str]:
    writes = "nothing" if form.write is None else _plain(form.writes or "the same")
    suffix = ", ".join(f"`{suffix}`" for suffix, first in formats_by_suffix().items() if first == name)
    needs = f'`pip install "posewarper[{form.extra}]"`' if form.extra else ""
    return [f"`{name}`", _plain(form.reads), writes, _plain(form.told), suffix, needs]


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("|", "\\|").replace("_", "\\_")


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


if __name__ == "__main__":
    main()
