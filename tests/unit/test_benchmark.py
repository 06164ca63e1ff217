"""The comparison of methods: its rows, what it refuses, and what it finds again after an interruption."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from posewarper import benchmark
from posewarper.benchmark import compare
from posewarper.errors import ConfigError, Interrupted, ModelError, OutputError, VideoError
from posewarper.options import NetworkConfig
from posewarper.propagation.clip import Clip
from posewarper.runs import sole_writer
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Poses, Track

N_FRAMES = 12
METHODS = {"near": "no model", "net": "with a model", "late": "with a model"}


@dataclass
class FakeModel:
    """Knows on how many labels it was fitted, and on which device it is."""

    text: str
    device: str = "cpu"

    def to(self, device) -> FakeModel:
        return FakeModel(self.text, str(device))


class Fake:
    """Stands for video, flow, fitting and checkpoints: counts calls, and moves labels by a method's offset.

    Boxes are 100 pixels, so the offset is the mean error in percent. ``near`` does not look at the video.
    """

    METHODS = METHODS
    INTERPOLATIONS: ClassVar = {"near": None}

    def __init__(self, dense: Labels) -> None:
        self.dense = dense
        self.offset = {"near": 3.0, "net": 2.0, "late": 1.0}
        self.calls: list[tuple[str, ...]] = []
        self.interrupt_at: str | None = None
        self.open_videos = 0

    @contextmanager
    def open_video(self, path):
        self.open_videos += 1
        try:
            yield f"video {path}"
        finally:
            self.open_videos -= 1

    def prepare_clip(self, video, labels, *, flow, narrow, progress):
        assert self.open_videos == 1 and video.startswith("video ") and not narrow
        self.calls.append(("flow" if flow else "no flow", str(len(labels.labelled_frames))))
        progress("optical flow", 1, 1)
        return Clip(video, labels, {}, {0: None} if flow else {})

    def check_labels(self, video, labels):
        return labels

    def needs_model(self, method, effort):
        return method != "near"

    def needs_all_stages(self, method, config):
        return False

    def fit_clip(self, clip, config, network, *, start, seed, device, further, progress):
        assert clip.chains and config.pose_iterations and isinstance(network, NetworkConfig)
        frames = len(clip.labels.labelled_frames)
        self.start, self.seed = start, seed
        self.calls.append(("fit", str(frames)))
        progress("training", 1, 1)
        return FakeModel(f"model of {frames} labels")

    def propagate_clip(self, clip, method, model, *, progress):
        if method == self.interrupt_at:
            raise KeyboardInterrupt
        frames = len(clip.labels.labelled_frames)
        assert bool(clip.chains) == (method != "near")
        assert model == (FakeModel(f"model of {frames} labels") if self.needs_model(method, "") else None)
        self.calls.append((method, str(frames)))
        moved = {
            i: Track(
                t.frames,
                t.keypoints + np.array([0, self.offset[method]]),
                keypoint_scores=np.ones(t.visibility.shape),
            )
            for i, t in self.dense.tracks.items()
        }
        return Poses(clip.labels.skeleton, moved, (200, 200), N_FRAMES)

    def save_model(self, path, model):
        Path(path).write_text(model.text)

    def load_model(self, path):
        self.calls.append(("load",))
        return FakeModel(Path(path).read_text(), "wherever it was saved")


@pytest.fixture
def dense() -> Labels:
    keypoints = np.random.default_rng(0).uniform(0, 100, (N_FRAMES, 2, 2))
    boxes = np.tile((0.0, 0.0, 100.0, 40.0), (N_FRAMES, 1))
    track = Track(np.arange(N_FRAMES), keypoints, boxes=boxes)
    return Labels(Skeleton(("nose", "tail")), {0: track}, image_size=(200, 200), n_frames=N_FRAMES)


@pytest.fixture
def fake(dense, monkeypatch) -> Fake:
    made = Fake(dense)
    monkeypatch.setattr(benchmark, "fitting", made)
    monkeypatch.setattr(benchmark, "checkpoint", made)
    monkeypatch.setattr(benchmark, "prepare_clip", made.prepare_clip)
    monkeypatch.setattr(benchmark, "open_video", made.open_video)
    return made


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"frames")
    return path


@pytest.fixture
def run(video, dense, tmp_path):
    """Compare with a cache; any argument can be changed."""

    def call(labels=dense, every=(3,), methods=("near", "net", "late"), **more):
        arguments = {"seed": 0, "device": "cpu", "cache": tmp_path / "cache", **more}
        return compare(video, labels, every=every, methods=methods, **arguments)

    return call


def everything(n: str) -> list[tuple[str, str]]:
    """The calls of a comparison that finds nothing finished, from n labels."""
    return [(name, n) for name in ("no flow", "near", "flow", "fit", "net", "late")]


def test_rows(fake, run):
    rows = run(every=[3, 4], cache=None, seed=5)
    assert [(row["every"], row["method"]) for row in rows] == [(k, m) for k in (3, 4) for m in METHODS]
    # Flow and fit once a gap, for the first method that asks; 4 labels at a gap of 3, and 3 at a gap of 4.
    assert fake.calls == everything("4") + everything("3")
    assert fake.open_videos == 0
    near, net = rows[0], rows[1]
    assert near["mean"] == near["median"] == pytest.approx(3) and net["mean"] == pytest.approx(2)
    assert (near["clip"], near["n_labels"], near["seed"], fake.seed) == ("clip", 4, 5, 5)
    assert (near["pck05"], near["coverage"], near["n"]) == (100, 100, 16)
    # Kept are frames 1, 4, 7, 10: six frames between them, two beyond.
    assert (near["between_n"], near["beyond_n"]) == (12, 4)
    assert near["beyond_mean"] == pytest.approx(3)
    assert near["fit_seconds"] == 0 < net["fit_seconds"]
    json.dumps(rows, allow_nan=False)


def test_keypoints_may_be_withheld_from_the_kept_labels(fake, run, monkeypatch):
    prepared = []
    usual = fake.prepare_clip
    monkeypatch.setattr(
        benchmark, "prepare_clip", lambda v, kept, **more: prepared.append(kept) or usual(v, kept, **more)
    )
    row = run(methods=("near",), withheld=0.5)[0]
    # Of two keypoints on each of four labelled frames one is left out, and scored too.
    assert [track.labelled.sum(1).tolist() for track in prepared[0].tracks.values()] == [[1] * 4]
    assert (row["withheld"], row["n_labels"], row["n"]) == (0.5, 4, 16 + 4)
    # Other labels make other parts.
    assert run(methods=("near",))[0]["n"] == 16
    with pytest.raises(ConfigError, match="share"):
        run(withheld=1.0)


def test_seconds_hold_the_shared_flow_and_fit_seconds_the_shared_fit(fake, run, monkeypatch):
    lasts = {"no flow": 0.25, "near": 1, "flow": 10, "fit": 100, "net": 2, "late": 3, "load": 0}
    monkeypatch.setattr(time, "perf_counter", lambda: sum(lasts[name] for name, *_ in fake.calls))
    fake.interrupt_at = "late"
    with pytest.raises(Interrupted):
        run()
    fake.interrupt_at = None
    # The flow is computed anew, and the model comes from the cache with its time.
    rows = run()
    assert ("load",) in fake.calls
    uninterrupted = run(seed=1)
    for found in (rows, uninterrupted):
        assert [row["seconds"] for row in found] == [1.25, 12, 13]
        assert [row["fit_seconds"] for row in found] == [0, 100, 100]


def test_methods_without_a_model_or_flow_compute_none(fake, run):
    run(methods=["near"])
    assert fake.calls == [("no flow", "4"), ("near", "4")]


def test_repeated_names_and_gaps_count_once(fake, run):
    rows = run(every=[3, 3], methods=["near", "net", "near"])
    assert [row["method"] for row in rows] == ["near", "net"]


def test_an_interrupted_run_goes_on(fake, run, tmp_path):
    fake.interrupt_at = "late"
    with pytest.raises(Interrupted, match="kept in") as caught:
        run()
    assert str(tmp_path / "cache") in caught.value.kept
    assert fake.calls == everything("4")[:-1] and fake.open_videos == 0
    fake.calls.clear()
    fake.interrupt_at = None
    resumed = run()
    assert fake.calls == [("load",), ("flow", "4"), ("late", "4")]
    fake.calls.clear()
    assert run() == resumed and fake.calls == []
    assert [row["mean"] for row in resumed] == pytest.approx([3, 2, 1])
    assert resumed[1]["fit_seconds"] == resumed[2]["fit_seconds"] > 0


def test_without_a_cache_ctrl_c_is_left_alone(fake, run):
    fake.interrupt_at = "near"
    with pytest.raises(KeyboardInterrupt) as caught:
        run(cache=None)
    assert not isinstance(caught.value, Interrupted)


def moved_label(labels: Labels, frame: int) -> Labels:
    track = labels.tracks[0]
    keypoints = track.keypoints.copy()
    keypoints[frame, 0, 0] += 1
    return replace(labels, tracks={0: replace(track, keypoints=keypoints)})


def test_what_changes_is_computed_again(fake, run, video, dense, monkeypatch):
    def calls_of(**changed):
        fake.calls.clear()
        run(**changed)
        return fake.calls

    every = everything("4")
    assert calls_of() == every and calls_of() == []
    assert calls_of(labels=moved_label(dense, 4)) == every  # a kept label
    # A label that is only scored on: the model need not be fitted again.
    again = [*every[:2], ("load",), ("flow", "4"), *every[4:]]
    assert calls_of(labels=moved_label(dense, 5)) == again
    assert calls_of(every=[4]) == everything("3")
    assert calls_of(seed=1) == every
    assert calls_of(effort="best") == every
    assert calls_of() == []
    monkeypatch.setattr(benchmark, "source_digest", lambda: "other code")
    assert calls_of() == every
    video.write_bytes(b"other frames")
    assert calls_of() == every


def test_the_weights_that_it_starts_from_are_part_of_the_key(fake, run, monkeypatch):
    digests = {"a.pth": "one", "b.pth": "one", "c.pth": "other"}
    asked = []

    def read(network, *, trains):
        asked.append(trains)
        name = network.backbone_weights
        return SimpleNamespace(sha256=digests[name]) if name in digests else None

    monkeypatch.setattr(benchmark, "read_backbone_weights", read)

    def begun(weights: str) -> bool:
        fake.calls.clear()
        run(network=NetworkConfig(backbone_weights=weights))
        return ("fit", "4") in fake.calls

    assert begun("none") and fake.start is None
    assert begun("a.pth") and begun("c.pth") and fake.start.sha256 == "other"
    assert not begun("none") and not begun("b.pth")  # the same content at another place
    run(methods=["near"])
    assert asked == [True] * 5 + [False]


def test_damaged_parts_are_computed_again(fake, run, tmp_path):
    rows = run()
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    parts = {"-".join(path.name.split("-")[:2]): path for path in folder.iterdir()}
    rest = {"model_on_labels.json", "model_on_labels.pt", "request.json"}
    assert set(parts) == {"every3-near", "every3-net", "every3-late", *rest}
    fake.calls.clear()
    parts["every3-near"].write_text(parts["every3-near"].read_text()[:50])  # cut off
    parts["every3-net"].write_text("[]")
    assert [row["mean"] for row in run()] == [row["mean"] for row in rows]
    assert fake.calls == [("no flow", "4"), ("near", "4"), ("load",), ("flow", "4"), ("net", "4")]
    parts["every3-late"].unlink()
    parts["model_on_labels.json"].unlink()  # a run was killed before it had written it
    fake.calls.clear()
    run()
    assert fake.calls == [("flow", "4"), ("fit", "4"), ("late", "4")]


def test_two_comparisons_do_not_write_to_one_part_of_the_cache(fake, run, tmp_path):
    run(methods=["near"])
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    with sole_writer(folder):
        with pytest.raises(OutputError, match="another run is writing"):
            run(methods=["near"])
        run(every=[4], methods=["near"])


def test_a_checkpoint_that_cannot_be_loaded_is_made_again(fake, run, monkeypatch):
    run(methods=["net"])
    fake.calls.clear()

    def refuse(path):
        raise ModelError("of another version", fix="fit it again")

    monkeypatch.setattr(fake, "load_model", refuse)
    run(methods=["late"])
    assert fake.calls == [("flow", "4"), ("fit", "4"), ("late", "4")]


def test_folders_of_frames(fake, dense, tmp_path):
    folder = tmp_path / "clip.v2"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(b"a")
    arguments = {"every": [3], "methods": ["near"], "cache": tmp_path / "cache", "device": "cpu"}
    assert compare(folder, dense, **arguments)[0]["clip"] == "clip.v2"
    assert len(fake.calls) == 2
    compare(folder, dense, **arguments)
    assert len(fake.calls) == 2
    (folder / "1.jpg").write_bytes(b"b")
    compare(folder, dense, **arguments)
    assert len(fake.calls) == 4
    with pytest.raises(VideoError, match="no such video"):
        compare(tmp_path / "absent.mp4", dense, **arguments)


def test_a_cache_that_cannot_be_written_shows_at_once(fake, run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        run(cache=tmp_path / "file")
    assert fake.calls == []


def test_progress_names_gap_and_method(fake, run):
    told = []
    run(progress=lambda *what: told.append(what))
    assert told[0] == ("methods", 0, 3) and told[-1] == ("methods", 3, 3)
    assert ("every 3, fitting: training", 1, 1) in told
    assert ("every 3: optical flow", 1, 1) in told
