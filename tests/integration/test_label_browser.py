"""The labelling page in a real browser: from nothing to poses, corrected, and the same after a kill."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from label_page import Page
from moving_clip import (
    HEIGHT,
    N_FRAMES,
    SKELETON,
    WIDTH,
    command,
    true_keypoints,
    write_clip,
    write_some_labels,
)

# As root, which is usual in containers, chromium refuses to start in its sandbox; the others keep it quiet.
_BLOCK = """([first, last]) => fetch(`/api/poses?from=${first}&to=${last}`)
    .then(answer => answer.arrayBuffer())
    .then(buffer => [...new Float32Array(buffer)].map(value => isNaN(value) ? null : value))"""
FRAMES = (0, 4, 8, 12, 16, 19)
SWAPPED = 8  # on this frame left and right are labelled the wrong way round
STATE = 6  # column of a block


class Desk:
    """A browser's window with the page in it, and what a labeller does there."""

    def __init__(self, browser, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]", timeout=20_000)

    def go(self, frame: int) -> None:
        self.page.keyboard.press("Control+j")
        self.page.keyboard.type(str(frame))
        self.page.keyboard.press("Enter")
        self.until(f"document.getElementById('place-now').textContent.startsWith('frame {frame} ')")

    def where(self, xy) -> tuple[float, float]:
        """On the screen, where the whole frame is shown."""
        box = self.page.locator("#picture").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        left = box["x"] + (box["width"] - WIDTH * scale) / 2
        top = box["y"] + (box["height"] - HEIGHT * scale) / 2
        return left + (xy[0] + 0.5) * scale, top + (xy[1] + 0.5) * scale

    def poses(self, first: int = 0, last: int = N_FRAMES - 1) -> np.ndarray:
        """(frames, tracks, K, 7)."""
        values = np.array(self.page.evaluate(_BLOCK, [first, last]), float)
        return values.reshape(last - first + 1, -1, len(SKELETON), 7)

    def until(self, condition: str, seconds: float = 30) -> None:
        """Wait for a condition; the page's own rules forbid to hand it a text to run."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, [condition, *map(self.text, ("message", "run-text", "ready"))]
            time.sleep(0.03)

    def text(self, name: str) -> str:
        return self.page.locator(f"#{name}").inner_text()

    def saved(self) -> None:
        self.until("document.getElementById('saved').textContent === 'saved'")

    def labelled(self) -> np.ndarray:
        return (self.poses()[..., STATE] >= 2).sum((1, 2))


@pytest.fixture
def servers():
    started: list[Page] = []
    yield lambda *arguments: started.append(Page(*arguments, enter=False)) or started[-1]
    for server in started:
        server.process.kill()
        server.process.communicate()


@pytest.fixture
def desk(browser):
    desks: list[Desk] = []
    yield lambda **how: desks.append(Desk(browser, **how)) or desks[-1]
    for each in desks:
        each.context.close()


def propagate(desk: Desk) -> None:
    desk.page.select_option("#effort", "fast")
    desk.page.keyboard.press("Control+Enter")
    desk.until("/^(Done|Error|error)/.test(document.getElementById('run-text').textContent)")
    assert desk.text("run-text").startswith("Done")
    # Ready to go again.
    desk.until("document.getElementById('ready').textContent === ''")


def begin(desk: Desk) -> None:
    """Type the keypoints, and click six frames, one of them the wrong way round."""
    desk.page.get_by_role("button", name="Choose keypoints").click()
    # What is wrong is said, and the window stays with what was typed.
    desk.page.fill("#skeleton-names", "nose\nnose")
    desk.page.get_by_role("button", name="Use these").click()
    assert "there twice" in desk.page.locator("#skeleton-problem").inner_text()
    assert desk.page.input_value("#skeleton-names") == "nose\nnose"
    desk.page.fill("#skeleton-names", "\n".join(SKELETON.names))
    assert desk.page.input_value("#skeleton-pairs") == "left_paw - right_paw"
    desk.page.fill("#skeleton-edges", "nose - tail")
    desk.page.get_by_role("button", name="Use these").click()
    desk.until("document.querySelectorAll('#keypoints .keypoint').length === 4")

    for frame in FRAMES:
        desk.go(frame)
        places = true_keypoints([frame])[0]
        if frame == SWAPPED:
            places = places[[0, 2, 1, 3]]
        for xy in places:
            desk.page.mouse.click(*desk.where(xy))
    desk.page.keyboard.press("Escape")
    desk.saved()
    assert desk.labelled().tolist() == [4 if frame in FRAMES else 0 for frame in range(N_FRAMES)]
    clicked = desk.poses()[:, 0, :, :2]
    right = true_keypoints(FRAMES)
    right[FRAMES.index(SWAPPED), [1, 2]] = right[FRAMES.index(SWAPPED), [2, 1]]
    assert np.abs(clicked[list(FRAMES)] - right).max() < 0.2


def test_from_nothing_to_poses_and_the_same_after_a_kill(servers, desk, tmp_path, capsys):
    clip, out = write_clip(tmp_path), tmp_path / "out"
    server, desk = servers(clip, "--out", out), desk()
    desk.open(server.address)
    begin(desk)
    propagate(desk)
    assert (desk.poses()[:, 0, :, STATE] > 0).all()

    # The exchanged label gives itself away around it.
    desk.page.keyboard.press("Space")
    desk.until("!document.getElementById('place-now').textContent.startsWith('frame 19 ')")
    frame = int(desk.text("place-now").split()[1])
    assert frame not in FRAMES and "open of" in desk.text("doubt-count")
    assert desk.page.locator(".doubt[aria-pressed=true]").count() == 1

    exchange_sides(desk)
    drag(desk)

    # Undone and redone.
    desk.page.keyboard.press("Control+z")
    desk.until("document.getElementById('do-redo').disabled === false")
    desk.saved()
    assert desk.labelled()[14] == 0
    desk.page.keyboard.press("Control+Shift+z")
    desk.until("document.getElementById('do-redo').disabled === true")
    desk.saved()
    assert desk.labelled()[14] == 1

    # A reload, a kill and a new start: all is there.
    labels = desk.poses()[..., :2][desk.poses()[..., STATE] >= 2]
    desk.page.reload()
    desk.page.wait_for_selector("html[data-ready]")
    assert desk.text("place-now").startswith("frame 14 ")
    server.end(signal.SIGKILL)
    desk.until("document.getElementById('trouble').textContent.includes('does not answer')")
    again = servers(clip, "--out", out)
    desk.open(again.address)
    poses = desk.poses()
    assert np.array_equal(poses[..., :2][poses[..., STATE] >= 2], labels)

    # The final result is that of the command line.
    propagate(desk)
    desk.until("document.getElementById('provisional').hidden")
    code, _, _ = command(
        capsys, "propagate", clip, "--labels", out / "label" / "labels.json", "--effort", "fast", "--quiet",
        "--out", tmp_path / "line",
    )  # fmt: skip
    assert code == 0
    assert (out / "poses.json").read_bytes() == (tmp_path / "line" / "poses.json").read_bytes()
    assert [text for text in desk.complaints if "net::ERR" not in text] == []  # the kill was noticed


def exchange_sides(desk: Desk) -> None:
    """Left and right change places over a window of one frame; what lies around follows."""
    desk.go(SWAPPED)
    before = desk.poses()
    desk.page.keyboard.press("f")
    desk.page.keyboard.press("Enter")
    desk.until("document.getElementById('do-undo').title.includes('exchange')")
    desk.until("document.getElementById('provisional').hidden === false")
    after = desk.poses()
    assert np.allclose(after[SWAPPED, 0, [1, 2], :2], before[SWAPPED, 0, [2, 1], :2])
    error = np.linalg.norm(after[SWAPPED - 1, 0, :, :2] - true_keypoints([SWAPPED - 1])[0], axis=-1)
    assert error.max() < 1


def drag(desk: Desk) -> None:
    """One keypoint is dragged: it alone becomes a label, and its neighbours follow."""
    desk.go(14)
    start = desk.poses(14, 14)[0, 0, 0, :2]
    still = desk.poses()
    desk.page.mouse.move(*desk.where(start))
    desk.page.mouse.down()
    desk.page.mouse.move(*desk.where(start + np.array([3, 3])))
    desk.page.mouse.move(*desk.where(start + np.array([5, -4])))
    desk.page.mouse.up()
    desk.saved()
    deadline = time.monotonic() + 20
    while np.allclose(desk.poses(13, 13)[0, 0, 0, :2], still[13, 0, 0, :2], atol=0.5):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    moved = desk.poses()
    assert np.abs(moved[14, 0, 0, :2] - start - (5, -4)).max() < 0.3
    assert moved[14, 0, :, STATE].tolist() == [2, 1, 1, 1]
    assert np.isfinite(moved[13, 0, 0, 4:6]).all(), "the old path stays as a ghost"


def test_the_keyboard_alone_suffices(servers, desk, tmp_path):
    server, desk = servers(write_clip(tmp_path), "--out", tmp_path / "out"), desk()
    desk.open(server.address)
    press, typed = desk.page.keyboard.press, desk.page.keyboard.type
    while desk.page.evaluate("document.activeElement.id") != "do-skeleton-begin":
        press("Tab")
    press("Enter")
    desk.until("document.activeElement.id === 'skeleton-names'")
    typed("nose\ntail\nleft_paw\nright_paw")
    while desk.page.evaluate("document.activeElement.textContent") != "Use these":
        press("Tab")
    press("Enter")
    desk.until("document.querySelectorAll('#keypoints .keypoint').length === 4")
    # The page begins to place keypoints once the server has taken them.
    desk.until("document.getElementById('picture').classList.contains('placing')")
    desk.page.evaluate("document.activeElement.blur()")
    for frame in (2, 17):
        desk.go(frame)
        for _ in range(4):  # the cross goes right and down by 10 and by 1
            press("Shift+D")
            press("s")
            press("Enter")
        desk.saved()
    press("Escape")
    assert desk.labelled()[[2, 17]].tolist() == [4, 4]
    placed = desk.poses(2, 2)[0, 0, :, :2]
    assert np.allclose(np.diff(placed, axis=0), (10, 1))
    # States, nudges, undo, the window of an exchange, and a run with cancel.
    press("v")
    desk.until("document.querySelector('.keypoint[aria-pressed=true]').ariaLabel.includes('hidden')")
    press(",")
    press("Shift+W")
    press("a")
    desk.saved()
    desk.until("document.getElementById('do-undo').title.includes('place')")
    press("[")
    press("ArrowLeft")
    press("]")
    press("f")
    assert (
        desk.page.input_value("#exchange-first") == "17" and desk.page.input_value("#exchange-last") == "16"
    )
    press("Escape")
    press("Control+Enter")
    desk.until("document.getElementById('do-cancel').hidden === false")
    press("?")
    assert "Exchange left and right" in desk.text("help")
    press("Escape")
    while desk.page.evaluate("document.activeElement.id") != "do-cancel":
        press("Tab")
    press("Enter")
    desk.until("/^(Cancelled|Done)/.test(document.getElementById('run-text').textContent)")
    assert desk.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_can_be_read(servers, desk, tmp_path, width, scheme):
    from test_report_browser import _TEXTS, contrast, luminance

    labels = write_some_labels(tmp_path)
    server, desk = (
        servers(write_clip(tmp_path), "--out", tmp_path / "out", "--labels", labels),
        desk(width=width, scheme=scheme),
    )
    desk.open(server.address)
    assert desk.page.evaluate("document.documentElement.scrollWidth") <= width
    desk.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert desk.page.evaluate("document.documentElement.scrollWidth") <= width
    texts = desk.page.evaluate(_TEXTS)
    assert len(texts) > 40
    assert [(t, a, b) for t, a, b in texts if contrast(a, b) < 4.5] == []
    body = desk.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(body) > 0.8) == (scheme == "light")
    unnamed = (
        "[...document.querySelectorAll('button, input, select, textarea')].filter(e => e.offsetParent && "
    )
    unnamed += "!e.textContent.trim() && !e.ariaLabel && !e.labels?.length).map(e => e.outerHTML)"
    assert desk.page.evaluate(unnamed) == []
    assert desk.complaints == []


def test_it_begins_on_the_frame_that_is_asked_for(servers, desk, tmp_path):
    words = ("--labels", write_some_labels(tmp_path), "--out", tmp_path / "out")
    server = servers(write_clip(tmp_path), *words, "--frame", "12")
    window = desk()
    window.open(server.address)
    window.until("document.getElementById('place-now').textContent.startsWith('frame 12 ')")
    # The token is gone from the address line.
    window.until("/^(#frame=\\d+)?$/.test(location.hash)")
    assert window.complaints == []


def test_a_stale_address_and_a_server_that_ended_are_said(servers, desk, tmp_path):
    server, first, second = servers(write_clip(tmp_path), "--out", tmp_path / "out"), desk(), desk()
    first.open(server.address)
    second.page.goto(server.address)
    second.page.wait_for_selector("#closed:not([hidden])")
    assert "posewarper label CLIP" in second.text("closed")
    assert first.page.evaluate("document.cookie") == "", "scripts cannot read the cookie"
    assert "#" not in first.page.url or server.address.partition("#")[2] not in first.page.url
