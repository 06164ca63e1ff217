"""What integration tests share."""

from __future__ import annotations

import os
import shutil

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# As root, which is usual in containers, chromium refuses to start in its sandbox.
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        message = f"no browser to look at pages with: none of {', '.join(_BROWSERS)} is in PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=_OPTIONS)
        yield launched
        launched.close()
