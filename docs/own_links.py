"""A hook of the pages' builder: CHANGELOG and CONTRIBUTING, which lie above, are pages as well.

Their links are those of the repository (``docs/log.md``), and become links between pages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_TOP = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a file of the repository in the place of the line that names it."""
    return re.sub(r'^--8<-- "(.+)"$', lambda line: _page_of(line[1]), markdown, flags=re.MULTILINE)


def _page_of(name: str) -> str:
    return (_TOP / name).read_text(encoding="utf-8").replace("](docs/", "](")
