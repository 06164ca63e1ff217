"""The page of a run: self-contained, escaped, whole, and right about what it says."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from posewarper.errors import LabelsError
from posewarper.reporting.report import write_report
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, RunResult, Track
from posewarper.video.source import open_video
from posewarper.video.writing import write_video

HEIGHT, WIDTH, N_FRAMES = 120, 160, 12
SKELETON = Skeleton(("nose", "left_hand", "right_hand", "tail"), ((0, 3), (0, 1), (0, 2)), name="mouse")
SHAPE = np.array([[40.0, 30.0], [30.0, 50.0], [50.0, 50.0], [40.0, 70.0]])
FACTS = {
    "posewarper": "1.2.3",
    "inputs": {"video": {"path": "clip.mp4", "sha256": "ab" * 32}, "labels": None},
    "effort": "fast",
    "seed": 7,
    "device": "cpu",
    "versions": {"python": "3.99.1"},
    "command": ["propagate", "my clip.mp4"],
    "config": {"extend": False, "crop_size": (192, 128)},
    "seconds": {"optical flow": 1.5, "total": 75.25},
    "peak_memory_bytes": 1_234_000_000,
}


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "path", "line", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    grey = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    write_video(folder / "clip.mp4", [grey] * N_FRAMES, fps=12.5)
    return folder / "clip.mp4"


def made_result(skeleton: Skeleton = SKELETON, labelled=(2, 8), n_tracks: int = 1, **more) -> RunResult:
    """Subjects that move by 3 pixels a frame; frame 5 has a low score at the tail."""
    frames, labelled = np.arange(N_FRAMES), np.array(labelled)
    poses, labels = {}, {}
    for n in range(n_tracks):
        points = SHAPE + np.stack([3.0 * frames + 30 * n, 10.0 * n + 0 * frames], -1)[:, None]
        scores = np.full((N_FRAMES, 4), 0.9)
        scores[5, 3], scores[labelled] = 0.2, 1.0
        poses[n] = Track(frames, points, keypoint_scores=scores)
        labels[n] = Track(labelled, points[labelled])
    given = Labels(skeleton, labels, **more)
    size = HEIGHT, WIDTH
    return RunResult(
        Poses(skeleton, poses, size, N_FRAMES, labelled_frames=labelled, video="clip"), given, "default"
    )


@pytest.fixture
def report(clip, tmp_path):
    """Write a report and parse it."""

    def write(result: RunResult | None = None, facts=FACTS, video: Path = clip, **more) -> Page:
        with open_video(video) as opened:
            write_report(tmp_path / "report.html", opened, result or made_result(), facts, **more)
        return Page(tmp_path / "report.html")

    return write


def pictures(page: Page, *, film: bool = False) -> list[np.ndarray]:
    """The pictures of the page without its film, or those of the film alone."""
    decoded = []
    for image in page.all("img"):
        if film != ("hidden" in image or image.get("class") == "first"):
            continue
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/jpeg;base64"
        decoded.append(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR))
    assert all(picture is not None for picture in decoded)
    return decoded


def test_the_page_needs_nothing_else(report, tmp_path) -> None:
    page = report(overlay="overlay.mp4")
    assert page.open == []
    ids = {attributes.get("id") for _, attributes in page.elements}
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base"), tag
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or ""
            if tag == "video":
                assert (name, value) in (("src", "overlay.mp4"), (name, ""))
                continue
            assert value == "" or value.startswith("data:image/jpeg") or value[1:] in ids, value[:80]
        assert not any(name.startswith("on") for name in attributes)
    style = page.source.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    assert not re.search(r"https?://|file://", page.source)
    # Were something forgotten, the browser would refuse it.
    policy = page.all("meta")[3]
    allowed = policy["content"] or ""
    assert policy["http-equiv"] == "Content-Security-Policy" and allowed.startswith("default-src 'none'; ")
    [script] = page.scripts
    assert page.all("script") == [{}]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in allowed
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML|WebSocket", script)
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    assert os.listdir(tmp_path) == ["report.html"]


def test_what_it_says(report) -> None:
    page = report(replace(made_result(), notes=("tail is rarely labelled",), seconds={"training": 3.0}))
    for text in (
        "2 labelled frames gave 12 poses of 1 track with 4 keypoints, on 12 frames.",
        "Method default, effort fast · ran for 1 min 15 s · clip of 160 x 120 pixels, 1.0 s at 12.5 fps",
        "tail is rarely labelled",
        "1 frame 5 0.40 s Show Low score: tail (0.20); 0.90 is usual for this track.",
        "track 0 12 0 to 11 2 0.88 none",
        "posewarper propagate 'my clip.mp4'",
        "video: clip.mp4 sha256 " + "ab" * 32,
        "optical flow 1.5 s",
        "reading and writing 1 min 14 s",
        "seed 7",
        "extend no",
        "crop size 192, 128",
        "python 3.99.1",
        "posewarper 1.2.3",
        "device cpu",
        "peak memory 1.23 GB",
    ):
        assert text in page.text, (text, page.text)
    assert "Errors against" not in page.text and "labels: " not in page.text
    headings = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1" and headings.count("h1") == 1
    assert all(len(image["alt"] or "") > 10 for image in page.all("img"))


def test_pictures_show_poses_and_labelled_frames_are_marked(report) -> None:
    page = report()
    shown = pictures(page)
    assert 5 <= len(shown) <= 20
    assert all(max(picture.shape) <= 1120 for picture in shown)
    # The clip is grey; limbs are drawn in plain colours.
    assert min((np.ptp(picture.astype(int), axis=-1) > 40).mean() for picture in shown) > 0.004
    captions = re.findall(r"<figcaption>.*?</figcaption>", page.source, re.DOTALL)
    badges = {int(re.findall(r"frame (\d+)", c)[0]) for c in captions if "badge" in c}
    assert badges == {2, 8}


def test_scores_over_time(report) -> None:
    result = made_result()
    page = report(result)
    svg = page.all("svg")[0]
    assert (svg["role"], svg["aria-label"]) == ("img", "Scores of track 0 over time")
    assert svg["viewbox"] == "0 0 12 4"
    paths = {p["class"]: p["d"] for p in page.all("path")}
    # Frame 5 of the last row is one bar; the others are runs that it does not part.
    assert paths == {
        "level-0": "M5 3.07h1v0.86h-1z",
        "level-4": "M0 0.07h12v0.86h-12zM0 1.07h12v0.86h-12zM0 2.07h12v0.86h-12zM0 3.07h5v0.86h-5z"
        "M6 3.07h6v0.86h-6z",
    }
    assert [line["x1"] for line in page.all("line")] == ["2.5", "8.5"]
    assert "tail: mean 0.83, lowest 0.20 on frame 5." in page.text
    assert "tail 2 0.83 0.20 5" in page.text
    assert [a["style"] for a in page.all("a") if a["href"] == "#check-1"] == ["left: 45.833%"]


def test_names_may_hold_anything(report, clip) -> None:
    names = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}", "näse &amp; 鼻")
    result = made_result(Skeleton(names, ((0, 3),)), track_names={0: "</title><b>mouse</b>"}, n_tracks=2)
    poses = replace(result.poses, video="<h1>clip</h1>\udcff")
    facts = {**FACTS, "command": ["propagate", "<i>x</i>"], "config": {"<u>": "{% raw %}"}}
    page = report(replace(result, poses=poses, notes=("<style>*{display:none}",)), facts)
    for name in (*names, "<h1>clip</h1>\\udcff: poses", "<style>*{display:none}", "<u> {% raw %}"):
        assert name in page.text, name
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"u"} and page.all("script") == [{}] and "alert" not in page.scripts[0]
    assert len(page.all("style")) == len(page.all("h1")) == 1
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
    assert "track 0 (</title><b>mouse</b>)" in page.text and "49" not in page.text.split("sha256")[0]


def test_keypoints_that_are_missing_or_never_labelled(report) -> None:
    result = made_result()
    track, label = result.poses.tracks[0], result.labels.tracks[0]
    points, visibility = np.array(track.keypoints), np.array(label.visibility)
    points[:, 1] = np.nan
    points[6, :] = np.nan
    visibility[:, 1] = 0
    poses = replace(result.poses, tracks={0: replace(track, keypoints=points, visibility=None)})
    labels = replace(result.labels, tracks={0: replace(label, visibility=visibility)})
    page = report(replace(result, poses=poses, labels=labels))
    assert "nan" not in page.source.lower().replace("nan,", "").split("sha256")[0].split("base64")[0]
    assert "left_hand never – – –" in page.text
    assert "left_hand: no score." in page.text
    assert "track 0 12 0 to 11 2 0.87 left_hand" in page.text
    assert not any("M0 1.07" in (path["d"] or "") for path in page.all("path"))


def test_poses_of_a_trained_model_have_no_labels(report) -> None:
    result = made_result()
    poses = replace(result.poses, labelled_frames=np.zeros(0, int))
    page = report(replace(result, poses=poses, labels=Labels(SKELETON, {}), method="predict"))
    assert "A trained model found 12 poses" in page.text
    assert "Labels given to posewarper predict only say where to look" in page.text
    for untrue in ("add it to the labels", "labelled frame", "never", "limbs unlike"):
        assert untrue not in page.text, untrue
    assert "track poses on frames mean score track 0" in page.text


def test_a_single_frame_and_one_label(report, tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "only.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    track = Track(np.array([0]), SHAPE[None], keypoint_scores=np.ones((1, 4)))
    labels = Labels(SKELETON, {3: Track(np.array([0]), SHAPE[None])})
    poses = Poses(SKELETON, {3: track}, (HEIGHT, WIDTH), 1, labelled_frames=np.array([0]))
    page = report(RunResult(poses, labels, "nearest"), {}, video=tmp_path / "only.png")
    assert "1 labelled frame gave 1 pose of 1 track with 4 keypoints, on 1 frame." in page.text
    assert "Nothing stands out" in page.text and "only.png" in page.text
    assert len(pictures(page)) == 2
    assert "What was run" in page.text and "sha256" not in page.text


def test_two_tracks_far_apart_are_shown_one_by_one(report) -> None:
    result = made_result(n_tracks=2)
    tracks = dict(result.poses.tracks)
    small = {
        n: replace(t, keypoints=(t.keypoints - SHAPE.mean(0)) / 8 + np.array([20 + 100 * n, 20 + 80 * n]))
        for n, t in tracks.items()
    }
    labels = {n: replace(t, keypoints=small[n].keypoints[[2, 8]]) for n, t in result.labels.tracks.items()}
    result = replace(
        result,
        poses=replace(result.poses, tracks=small),
        labels=replace(result.labels, tracks=labels, track_names={1: "rat"}),
    )
    page = report(result)
    assert re.search(r"frame 0 0.00 s track 0 .*frame 0 0.00 s track 1 \(rat\)", page.text)
    assert len({picture.shape for picture in pictures(page)} - {(HEIGHT, WIDTH, 3)}) == 1


def test_all_keypoints_outside_of_the_image(report) -> None:
    result = made_result()
    away = replace(result.poses.tracks[0], keypoints=result.poses.tracks[0].keypoints + 5000.0)
    page = report(replace(result, poses=replace(result.poses, tracks={0: away})))
    assert "outside of the image" in page.text
    assert all(picture.shape == (420, 560, 3) for picture in pictures(page))


def test_rows_of_errors(report) -> None:
    rows = [
        {"method": "linear", "mean": 3.25, "median": 2.0, "p95": 9.0, "pck05": 80.0, "pck10": 97.0,
         "coverage": 100.0, "seconds": None},
        {"method": "default", "mean": 1.0, "seconds": 12.5},
    ]  # fmt: skip
    page = report(scores=rows)
    assert "method mean median 95 % below within 5 % within 10 % coverage seconds" in page.text
    assert "linear 3.2 2.0 9.0 80.0 97.0 100.0 –" in page.text
    assert "default 1.0 – – – – – 12.5" in page.text
    assert len([row for row in page.all("tr") if row.get("class") == "used"]) == 1


def test_a_long_clip_with_dense_labels_stays_small(report, clip) -> None:
    n = 50_000
    frames = np.arange(n)
    points = np.repeat(SHAPE[None], n, 0)
    scores = np.where(frames[:, None] % 7 < 3, 0.9, 0.4) * np.ones(4)
    labelled = frames[frames % 5 == 0]
    labels = Labels(SKELETON, {0: Track(labelled, points[labelled])})
    poses = Poses(SKELETON, {0: Track(frames, points, keypoint_scores=scores)}, (HEIGHT, WIDTH), n, labelled)

    class Still:
        path, image_size, n_frames, fps, frame_names = "long.mp4", (HEIGHT, WIDTH), n, 25.0, ()
        times = frames / 25.0

        def __getitem__(self, i: int) -> np.ndarray:
            return np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    path = clip.parent / "long.html"
    write_report(path, Still(), RunResult(poses, labels, "linear"), {})  # type: ignore[arg-type]
    page = Page(path)
    assert page.all("svg")[0]["viewbox"] == "0 0 320 4"
    assert len(page.all("i")) == 200
    assert path.stat().st_size < 400_000
    assert "Each column shows the lowest score of 156.2 frames." in page.text


def test_the_file_appears_whole_or_not_at_all(report, clip, tmp_path, monkeypatch) -> None:
    def full(source, target):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched, open_video(clip) as video:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            write_report(tmp_path / "report.html", video, made_result(), FACTS)
    assert os.listdir(tmp_path) == []


def test_poses_that_do_not_fit_are_refused(report) -> None:
    result = made_result()
    with pytest.raises(LabelsError, match="another size"):
        report(replace(result, poses=replace(result.poses, image_size=(WIDTH, HEIGHT))))
    with pytest.raises(LabelsError, match="no poses"):
        report(replace(result, poses=replace(result.poses, tracks={})))


# --- the clip plays ---------------------------------------------------------------------------------------


def test_the_overlay_beside_the_page_is_played(report) -> None:
    page = report(overlay="overlay.mp4")
    [player] = [attributes for _, attributes in page.elements if attributes.get("id") == "player"]
    told = {
        name: player[f"data-{name}"] for name in ("first", "count", "frames", "fps", "labelled", "doubts")
    }
    assert told == {
        "first": "0",
        "count": "12",
        "frames": "12",
        "fps": "12.5",
        "labelled": "2 8",
        "doubts": "5",
    }
    assert page.all("video")[0]["src"] == "overlay.mp4"
    assert pictures(page, film=True) == []
    part = report(overlay="overlay.mp4", span=range(4, 9))
    [player] = [attributes for _, attributes in part.elements if attributes.get("id") == "player"]
    assert [player[f"data-{name}"] for name in ("first", "count", "frames", "labelled")] == [
        "4",
        "5",
        "12",
        "8",
    ]
    assert (part.all("input")[0]["min"], part.all("input")[0]["max"]) == ("4", "8")


def test_a_short_clip_without_an_overlay_is_played_from_pictures(report) -> None:
    page = report()
    assert not page.all("video")
    film = pictures(page, film=True)
    assert [picture.shape for picture in film] == [(HEIGHT, WIDTH, 3)] * N_FRAMES
    assert len([image for image in page.all("img") if "hidden" in image]) == N_FRAMES - 1
    # The subject moves by 3 pixels a frame, so no two pictures are alike.
    assert min(np.abs(a.astype(int) - b).max() for a, b in pairwise(film)) > 50


def test_expected_errors_over_time(report) -> None:
    result = made_result()
    track = result.poses.tracks[0]
    # The subject is 40 pixels long, so that 0.3 pixels are 0.75 percent, and 6 are 15.
    error = np.full((N_FRAMES, 4), 0.3)
    error[7, 1], error[9, 2], error[[2, 8]] = 6.0, 1.0, 0.0
    poses = replace(result.poses, tracks={0: replace(track, expected_error=error)})
    page = report(replace(result, poses=poses))
    assert page.all("svg")[0]["aria-label"] == "Expected error of track 0 over time"
    paths = {p["class"]: p["d"] for p in page.all("path")}
    assert paths["level-0"] == "M7 1.07h1v0.86h-1z"
    assert paths["level-2"] == "M9 2.07h1v0.86h-1z"
    assert "level-1" not in paths and "level-3" not in paths
    assert "above 10 %" in page.text and "up to 1 %" in page.text
    # On the ten frames without a label: nine of 0.3 and one of 6.
    assert "left_hand: 0.9 pixels on average, 6.0 on frame 7." in page.text
    assert "left_hand 2 0.90 0.90 0 0.9 px 6.0 px 7" in page.text


def test_why_there_is_no_pose_is_told(report) -> None:
    result = made_result(labelled=(2, 5))
    poses = replace(result.poses, tracks={0: result.poses.tracks[0].at(range(1, 6))})
    labels = replace(result.labels, labelled_frames=np.array([2, 5, 9]))
    facts = {**FACTS, "command": ["propagate", "my clip.mp4", "--labels", "l.json", "--overwrite"]}
    page = report(replace(result, poses=poses, labels=labels), facts)
    for text in (
        "track 0: no pose on 0 (1 frame): more than one gap between labels before its first label, "
        "on frame 2.",
        "track 0: no pose on 6 to 11 (6 frames): it is not there on the labelled frame 9.",
        "posewarper propagate 'my clip.mp4' --labels l.json --extend --overwrite",
    ):
        assert text in page.text, text
    whole = report(result, facts)
    assert "no pose on" not in whole.text and "--extend" not in whole.text
    found = report(replace(result, poses=poses, labels=Labels(SKELETON, {}), method="predict"))
    assert "no pose on 6 to 11 (6 frames): it was not found there." in found.text


def test_what_to_do_next_are_commands(report, tmp_path) -> None:
    page = report(overlay="overlay.mp4")
    assert f"posewarper label clip.mp4 --out {tmp_path} --frame 5 " in page.text
    assert f"posewarper suggest clip.mp4 --result {tmp_path} -n 10" in page.text
    assert len([button for button in page.all("button") if "data-copy" in button]) == 3
    assert "What to do next" not in report(facts={}).text
