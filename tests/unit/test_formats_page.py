"""The tables in docs/formats.md are those that the code gives."""

from __future__ import annotations

import runpy
from pathlib import Path

from posewarper.formats.catalogue import FORMATS
from posewarper.formats.clips import PIECES

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_up_to_date_and_complete():
    maker = runpy.run_path(str(DOCS / "make_formats.py"))
    page = (DOCS / "formats.md").read_text(encoding="utf-8")
    assert page == maker["renew"](page), "run: python docs/make_formats.py"
    tables = page[page.index(maker["BEGIN"]) : page.index(maker["END"])]
    assert all(f"| `{name}` |" in tables for name in FORMATS)
    assert all(f"| {piece} |" in tables for piece in PIECES)


def test_every_format_says_what_it_reads_and_how_it_is_told():
    assert all(form.what and form.reads and form.told for form in FORMATS.values())
