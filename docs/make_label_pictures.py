"""Makes the pictures of docs/label.md: the labelling page on the demo clip, in a browser.

    posewarper demo --effort fast && python docs/make_label_pictures.py posewarper_demo

It labels in a copy of the folder. Needs `pip install playwright` and chromium in PATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
CORRECTED = {"frame": 119, "keypoint": "right_ankle", "right": 60, "up": 30}  # pixels


def shoot(page: Page, name: str) -> None:
    """Write a picture."""
    page.wait_for_timeout(700)
    page.screenshot(path=PICTURES / f"{name}.jpg", type="jpeg", quality=70)


def wait(page: Page, condition: str) -> None:
    """Wait until something holds in the page, whose rules forbid to hand it a text to run."""
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        if time.monotonic() > end:
            raise SystemExit(f"nothing came: {condition}")
        time.sleep(0.1)


def correct(page: Page) -> None:
    """Move one keypoint by keys, and wait for what it changes."""
    page.keyboard.press("Control+j")
    page.keyboard.type(str(CORRECTED["frame"]))
    page.keyboard.press("Enter")
    page.locator(f".keypoint[data-name={CORRECTED['keypoint']}]").click()
    for key, count in (("Shift+D", CORRECTED["right"]), ("Shift+W", CORRECTED["up"])):
        for _ in range(int(count) // 10):
            page.keyboard.press(key)
    wait(page, "!document.getElementById('provisional').hidden")


def main(folder: Path) -> None:
    """Make all pictures."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        out = shutil.copytree(folder, Path(scratch) / "out", ignore=shutil.ignore_patterns("label"))
        words = [sys.executable, "-m", "posewarper", "label", str(folder / "clip.mp4"), "--no-browser"]
        server = subprocess.Popen([*words, "--out", str(out)], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            page = context.new_page()
            page.goto(address)
            page.wait_for_selector("html[data-ready]")
            ready = "document.getElementById('ready').textContent === '' && "
            wait(page, ready + "document.querySelectorAll('.doubt').length > 10")
            time.sleep(2)
            correct(page)
            shoot(page, "label_page")
            page.keyboard.press("z")
            page.evaluate("document.getElementById('do-skeleton-edit').click()")
            shoot(page, "label_keypoints")
            state = context.storage_state()
            narrow = {"width": 400, "height": 800}
            phone = browser.new_context(viewport=narrow, color_scheme="dark", storage_state=state).new_page()
            phone.goto(address.partition("#")[0] + f"#frame={CORRECTED['frame']}")
            phone.wait_for_selector("html[data-ready]")
            shoot(phone, "label_narrow")
            browser.close()
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
