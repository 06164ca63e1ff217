"""The report as a real browser shows it: narrow and wide, light and dark."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path

import pytest
from moving_clip import command, write_clip, write_some_labels

WIDTHS, SCHEMES = (1280, 400), ("light", "dark")

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


def until(page, condition: str) -> None:
    """Wait until something holds; playwright's own way of waiting needs what the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def luminance(colour: str) -> float:
    """Relative luminance as the accessibility guidelines define it."""
    channels = [float(c) / 255 for c in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_it_asks_for_nothing_and_nothing_goes_wrong(page, report):
    until(page, "document.querySelector('video').readyState >= 1")
    asked = {url for url in page.asked if not url.startswith("data:")}
    assert asked == {report.as_uri(), (report.parent / "overlay.mp4").as_uri()}
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


def shown(page) -> tuple[int, float]:
    """The frame that the page says it shows, and the time of the video."""
    until(page, "!document.querySelector('video').seeking")
    said = page.locator("output").inner_text()
    return int(said.split()[1].rstrip(",")), page.evaluate("document.querySelector('video').currentTime")


def test_a_click_on_the_timeline_shows_that_frame(page):
    until(page, "document.querySelector('video').readyState >= 1")
    lane = page.locator(".lane").first
    box = lane.bounding_box()
    # The clip has 20 frames at 25 a second.
    lane.click(position={"x": box["width"] * 13.5 / 20, "y": box["height"] / 2})
    assert shown(page) == (13, pytest.approx(13.5 / 25))
    cursor = page.locator(".cursor").first.bounding_box()
    assert cursor["x"] + cursor["width"] / 2 == pytest.approx(box["x"] + box["width"] * 13.5 / 20, abs=1)
    # What the player shows is that frame, and the player is in sight.
    player = page.locator("#player").bounding_box()
    assert -1 <= player["y"] < 800 and player["height"] < 500


def test_the_keyboard_alone_plays_and_steps(page):
    until(page, "document.querySelector('video').readyState >= 2")
    page.locator("#player input").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert shown(page)[0] == 2
    page.keyboard.press("End")
    assert shown(page)[0] == 19
    for name, frame in (("Previous frame", 18), ("Next frame", 19)):
        page.get_by_role("button", name=name, exact=True).press("Enter")
        assert shown(page) == (frame, pytest.approx((frame + 0.5) / 25))
    doubts = sorted(int(text) for text in page.locator("#player").get_attribute("data-doubts").split())
    page.get_by_role("button", name="Previous frame to check").press("Enter")
    assert shown(page)[0] == max(frame for frame in doubts if frame < 19)
    page.keyboard.press("Tab")
    page.locator("#player input").press("Home")
    page.get_by_role("button", name="Play").press("Enter")
    until(page, "document.querySelector('video').currentTime > 0.2")
    page.get_by_role("button", name="Stop").press("Enter")
    until(page, "document.querySelector('video').paused")
    page.wait_for_timeout(100)  # what the video says on stopping is read
    frame, time = shown(page)
    assert frame == int(time * 25 + 1e-3) > 3
    assert page.complaints == []


def test_a_frame_to_check_is_shown_on_a_click(page):
    button = page.locator(".checks button").first
    button.click()
    frame = int(button.get_attribute("data-frame"))
    assert shown(page)[0] == frame
    assert page.locator(".command code").first.inner_text().endswith(f" --frame {frame}")
    assert abs(page.locator("#player").bounding_box()["y"]) < 2


def test_a_command_is_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("button[data-copy]").first.click()
    page.get_by_role("button", name="Copied").wait_for()
    command_line = page.locator(".command code").first.inner_text()
    assert page.evaluate("navigator.clipboard.readText()") == command_line
    assert command_line.startswith("posewarper label ")


def test_without_the_overlay_the_page_says_so(browser, report, tmp_path):
    shutil.copy(report, tmp_path)
    opened = browser.new_page(viewport={"width": 400, "height": 800})
    opened.goto((tmp_path / report.name).as_uri())
    opened.get_by_text("overlay.mp4 is not beside this page").wait_for()
    lane = opened.locator(".lane").first
    lane.click(position={"x": lane.bounding_box()["width"] * 10.5 / 20, "y": 5})
    assert opened.locator("output").inner_text() == "frame 10, 0.40 s, labelled"
    opened.close()


def test_a_short_clip_plays_from_pictures_in_the_page(browser, tmp_path):
    from moving_clip import some_labels

    from posewarper import open_video, propagate
    from posewarper.reporting.report import write_report

    with open_video(write_clip(tmp_path)) as video:
        result = propagate(video, some_labels(), method="linear")
        write_report(tmp_path / "film.html", video, result, {})
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.goto((tmp_path / "film.html").as_uri())
    assert opened.locator(".film img:visible").count() == 1
    opened.get_by_role("button", name="Next frame", exact=True).click()
    assert opened.locator(".film img:visible").get_attribute("alt") == "Frame 1 with its skeleton"
    opened.get_by_role("button", name="Play").click()
    opened.locator("output", has_text="frame 19").wait_for()
    opened.get_by_role("button", name="Play").wait_for()
    opened.close()
