"""What the documents say is run: the snippets work, and the names exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(text: str) -> list[tuple[int, str]]:
    """Each ```python block of a document, with the number of its first line of code."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def resolve(name: str) -> object:
    """The object of a dotted name: as many modules as there are, then attributes."""
    parts = name.split(".")
    thing = importlib.import_module(parts[0])
    for n, part in enumerate(parts[1:], start=2):
        if not hasattr(thing, part):
            importlib.import_module(".".join(parts[:n]))
        thing = getattr(thing, part)
    return thing


CONVENTIONS = (DOCS / "conventions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("line", "code"), blocks(CONVENTIONS), ids=lambda value: str(value)[:4].strip())
def test_snippets_of_the_conventions_run(line, code):
    # The empty lines make a failure point to the line in the document.
    exec(compile("\n" * (line - 1) + code, str(DOCS / "conventions.md"), "exec"), {"__name__": "snippet"})


def test_every_snippet_is_found_and_checks_something():
    assert len(blocks(CONVENTIONS)) == CONVENTIONS.count("```python") > 4
    assert all("assert" in code for _, code in blocks(CONVENTIONS))


def test_every_name_in_the_table_of_the_paper_exists():
    text = (DOCS / "paper_to_code.md").read_text(encoding="utf-8")
    names = sorted(set(re.findall(r"`(posewarper(?:\.\w+)+)(?:\(\))?`", text)))
    assert names, "docs/paper_to_code.md names no symbol of the package"
    missing = []
    for name in names:
        try:
            resolve(name)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("name", ["posewarper.geometry.CropTransform.to_crop", "posewarper.heatmaps"])
def test_names_are_resolved(name):
    assert resolve(name).__name__.endswith(name.split(".")[-1])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["posewarper.geometry.CropTransform.warp", "posewarper.nowhere.to_be"])
def test_names_that_do_not_exist_are_noticed(name):
    with pytest.raises((ImportError, AttributeError)):
        resolve(name)
