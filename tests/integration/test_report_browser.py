"""The report as a real browser shows it: narrow and wide, light and dark."""

from __future__ import annotations

import os
import shutil
from itertools import combinations
from pathlib import Path

import pytest
from moving_clip import command, write_clip, write_some_labels

WIDTHS, SCHEMES = (1280, 400), ("light", "dark")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Colours of all text, with the first background that is not transparent behind it.
_TEXTS = """() => {
  const background = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (text && !element.closest("svg"))
      found.push([text, getComputedStyle(element).color, background(element)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        message = f"no browser to look at the report with: none of {', '.join(_BROWSERS)} is in PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, which is usual in containers, chromium refuses to start in its sandbox.
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    labels = write_some_labels(folder, (3, 10))
    out = folder / "out"
    capture = type("Capture", (), {"readouterr": lambda self: ("", "")})()
    code, _, _ = command(
        capture,
        "propagate",
        write_clip(folder),
        "--labels",
        labels,
        "--out",
        out,
        "--method",
        "flow",
        "--quiet",
    )
    assert code == 0
    return out / "report.html"


@pytest.fixture(params=[(w, s) for w in WIDTHS for s in SCHEMES], ids=lambda p: f"{p[0]}-{p[1]}")
def page(request, browser, report):
    """The report, opened from disk, with what the browser complained of and asked for."""
    width, scheme = request.param
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        opened = context.new_page()
        opened.complaints, opened.asked = [], []
        opened.on("console", lambda message: opened.complaints.append(message.text))
        opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.on("request", lambda asked: opened.asked.append(asked.url))
        opened.goto(report.as_uri())
        opened.width, opened.scheme = width, scheme
        yield opened


def luminance(colour: str) -> float:
    """Relative luminance as the accessibility guidelines define it."""
    channels = [float(c) / 255 for c in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_it_asks_for_nothing_and_nothing_goes_wrong(page, report):
    assert [url for url in page.asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.complaints == []
    sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    assert len(sizes) >= 5
    assert all(complete and natural > 0 and shown > 0 for complete, natural, shown in sizes)


def test_it_fits_the_width(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width
    outside = page.evaluate(
        """width => [...document.querySelectorAll("main *")]
        .filter(e => !e.closest(".scroll") && e.getBoundingClientRect().right > width + 0.5)
        .map(e => e.outerHTML.slice(0, 80))""",
        page.width,
    )
    assert outside == []


def test_text_can_be_read(page):
    texts = page.evaluate(_TEXTS)
    assert len(texts) > 60
    poor = [(t, a, b) for t, a, b in texts if contrast(a, b) < 4.5]
    assert poor == []
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(body) > 0.8) == (page.scheme == "light")
    assert (luminance(body) < 0.05) == (page.scheme == "dark")


def test_scores_can_be_told_apart(page):
    swatches = page.evaluate(
        """[...document.querySelectorAll(".legend .swatch")].slice(0, 5)
        .map(e => getComputedStyle(e).backgroundColor)"""
    )
    assert len(set(swatches)) == 5
    # Also by who sees no colours.
    assert min(contrast(a, b) for a, b in combinations(swatches, 2)) > 1.3
    row = page.evaluate("document.querySelector('.rows > div').getBoundingClientRect().toJSON()")
    strip = page.evaluate("document.querySelector('svg').getBoundingClientRect().toJSON()")
    assert strip["height"] == 4 * row["height"] and strip["y"] == row["y"]
    assert strip["width"] > 0.6 * page.width - 60


def test_frames_to_check_can_be_jumped_to(page):
    marks = page.locator(".doubts a")
    assert marks.count() >= 1
    before = page.evaluate("scrollY")
    marks.first.click()
    target = page.locator(":target")
    assert target.count() == 1 and "frame" in target.inner_text()
    assert page.evaluate("scrollY") != before
