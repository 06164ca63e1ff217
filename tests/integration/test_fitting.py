"""``fit`` and ``propagate`` from Python: what comes out, what Ctrl-C keeps, what is refused at once."""

from __future__ import annotations

import os
import weakref
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from moving_clip import (
    N_FRAMES,
    SKELETON,
    TINY_FIT,
    TINY_NETWORK,
    some_labels,
    true_keypoints,
    write_clip,
    write_some_labels,
)

from posewarper import fit, fitting, load_model, propagate
from posewarper.errors import ConfigError, Interrupted, LabelsError, ModelError, PosewarperWarning
from posewarper.model import heatmap_runner
from posewarper.model.checkpoint import parameters_sha256
from posewarper.model.pretrained import read_backbone_weights
from posewarper.options import EFFORTS, NetworkConfig
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.training import own_clip
from posewarper.video.source import open_video
from posewarper.video.writing import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def video(clip):
    with open_video(clip) as opened:
        yield opened


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Train a network of next to nothing."""
    monkeypatch.setitem(EFFORTS, "normal", TINY_FIT)
    monkeypatch.setattr(fitting, "NetworkConfig", lambda: TINY_NETWORK)


def tiny_fit(video, labels, **more):
    return fit(video, labels, **{"config": TINY_FIT, "network": TINY_NETWORK, "device": "cpu", **more})


def test_a_moving_patch_is_followed_and_labels_are_kept_to_the_bit(video):
    labels = some_labels()
    told = []
    result = propagate(video, labels, effort="fast", progress=lambda *what: told.append(what))
    poses = result.poses
    dense = poses.dense()
    assert dense.shape == (N_FRAMES, 1, 4, 2)
    labelled = labels.labelled_frames
    np.testing.assert_array_equal(dense[labelled, 0], labels.tracks[0].keypoints)
    off = np.linalg.norm(dense[:, 0] - true_keypoints(range(N_FRAMES)), axis=-1)
    assert off.max() < 1.5
    assert poses.labelled_frames.tolist() == [3, 10, 16]
    assert (poses.image_size, poses.n_frames, poses.skeleton) == ((96, 128), N_FRAMES, SKELETON)
    scores = poses.tracks[0].keypoint_scores
    assert (scores[labelled] == 1).all()
    assert (np.delete(scores, labelled, 0) < 1).all()
    assert (result.method, result.notes) == ("default", ())
    assert set(result.seconds) == {"optical flow", "propagation"}
    for stage in {what for what, _, _ in told}:
        counts = [(done, total) for what, done, total in told if what == stage]
        assert counts[-1] == (N_FRAMES, N_FRAMES)
        assert counts == sorted(counts)


def test_paths_do_as_well_as_what_is_opened(clip, video, tmp_path):
    labels = write_some_labels(tmp_path)
    expected = propagate(video, some_labels(), method="flow").poses.dense()
    np.testing.assert_array_equal(propagate(str(clip), str(labels), method="flow").poses.dense(), expected)
    np.testing.assert_array_equal(propagate(clip, labels, method="flow").poses.dense(), expected)
    assert video[0].shape == (96, 128, 3)  # was not closed


def test_a_track_is_there_around_its_labels_unless_extended(video):
    labels = some_labels((8, 11))
    frames = propagate(video, labels, method="linear").poses.tracks[0].frames
    assert frames.tolist() == list(range(5, 15))
    for method in ("linear", "default"):
        poses = propagate(video, labels, method=method, effort="fast", extend=True).poses
        assert poses.tracks[0].frames.tolist() == list(range(N_FRAMES))
        assert np.isfinite(poses.tracks[0].keypoints).all()


def test_frames_smaller_than_optical_flow_takes(tmp_path):
    tile = np.random.default_rng(0).integers(0, 255, (6, 10, 3), np.uint8)
    write_video(tmp_path / "tiny.mp4", (tile for _ in range(5)), fps=25)
    points = np.tile([[2.0, 3.0], [7.0, 4.0]], (2, 1, 1))
    labels = Labels(Skeleton(("a", "b")), {0: Track([0, 4], points)})  # type: ignore
    for method in ("flow2", "default"):
        dense = propagate(tmp_path / "tiny.mp4", labels, method=method, effort="fast").poses.dense()
        np.testing.assert_allclose(dense[:, 0], np.tile(points[0], (5, 1, 1)), atol=0.5)


def test_every_run_notes_what_is_odd(video):
    labels = some_labels((4,))
    hidden = Track([4], labels.tracks[0].keypoints, visibility=[[2, 2, 2, 0]])  # type: ignore[arg-type]
    odd = Labels(SKELETON, {0: hidden}, image_size=(96, 128))
    for _ in range(2):
        with pytest.warns(PosewarperWarning) as caught:
            result = propagate(video, odd, method="linear")
        assert len(caught) == len(result.notes) == 2
        assert "tail" in result.notes[0]
        assert "only frame 4 is labelled" in result.notes[1]
        assert np.isnan(result.poses.dense()[:, 0, 3]).all()
        assert np.isfinite(result.poses.dense()[:, 0, :3]).all()


def test_a_model_is_fitted_where_one_is_needed_and_used_where_one_is_given(video, tiny, tmp_path):
    labels, path = some_labels(), tmp_path / "model.pt"
    first = propagate(video, labels, checkpoint=path, device="cpu")
    assert "training" in first.seconds
    model = load_model(path)
    assert model.spec.trained == {"pose": 4, "warp": 2}
    second = propagate(video, labels, model=model, checkpoint=tmp_path / "unused.pt", device="cpu")
    assert "training" not in second.seconds
    assert not (tmp_path / "unused.pt").exists()
    np.testing.assert_allclose(second.poses.dense(), first.poses.dense(), atol=0.02)
    for method in ("frame", "warper", "paper"):
        found = propagate(video, labels, method=method, model=model, device="cpu").poses.dense()
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found[[3, 10, 16], 0], labels.tracks[0].keypoints)


def test_a_backbone_starts_from_given_weights(video, tiny, tmp_path):
    whole = timm.create_model("hrnet_w18_small").state_dict()
    whole["conv1.weight"] *= 0  # which training by a few steps cannot hide
    torch.save(whole, tmp_path / "start.pth")
    network = TINY_NETWORK.model_copy(update={"backbone_weights": str(tmp_path / "start.pth")})
    path = tmp_path / "model.pt"
    result = propagate(video, some_labels(), network=network, checkpoint=path, device="cpu")
    assert result.config["backbone_weights"] == str(tmp_path / "start.pth")
    model = load_model(path)
    assert model.spec.provenance["backbone_weights"]["source"] == str(tmp_path / "start.pth")
    assert len(model.spec.provenance["backbone_weights"]["sha256"]) == 64
    assert model.backbone.get_parameter("conv1.weight").abs().max() < 0.05
    assert "backbone_weights" not in tiny_fit(video, some_labels()).spec.provenance


@pytest.mark.parametrize("halved", [True, False], ids=["bfloat16", "float32"])
def test_fitting_works_where_onnxruntime_does_not_compute(video, monkeypatch, halved):
    # As on GPUs, which PyTorch drives, and on processors that multiply in bfloat16.
    for module in (own_clip, heatmap_runner):
        monkeypatch.setattr(module, "half_precision", lambda device, network=None: halved)
    monkeypatch.setattr(heatmap_runner, "accelerate", lambda *_: None)
    assert tiny_fit(video, some_labels()).spec.trained.keys() == {"pose", "warp"}


def test_the_seed_decides_the_weights(video, tmp_path):
    def fitted(seed: int, **more) -> str:
        return parameters_sha256(tiny_fit(video, some_labels(), seed=seed, **more))

    torch.manual_seed(11)
    first = fitted(1, checkpoint=tmp_path / "model.pt")
    following = torch.rand(3)
    torch.manual_seed(12)
    assert fitted(1) == first == parameters_sha256(load_model(tmp_path / "model.pt"))
    assert fitted(2) != first
    torch.manual_seed(11)
    assert torch.equal(torch.rand(3), following)  # fitting leaves the caller's numbers alone


def test_a_fitted_model_says_what_it_is(video):
    spec = tiny_fit(video, some_labels(), seed=5).spec
    assert (spec.skeleton, spec.crop_size, spec.sigma) == (SKELETON, (64, 64), TINY_FIT.sigma)
    assert spec.trained == {"pose": 4, "warp": 2}
    assert spec.provenance["seed"] == 5
    assert spec.provenance["labelled_frames"] == 3
    assert spec.provenance["config"] == TINY_FIT.model_dump()


@pytest.mark.parametrize(
    ("stage", "trained"),
    [
        ("training the pose network", {"pose": 2}),
        ("propagating (default)", {"pose": 3}),
        ("training the warper", {"pose": 4, "warp": 2}),
    ],
)
def test_ctrl_c_keeps_the_model(video, tmp_path, stage, trained):
    def stop(what: str, done: int, total: int) -> None:
        if what == stage and done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"model\.pt") as caught:
        tiny_fit(video, some_labels(), checkpoint=tmp_path / "model.pt", progress=stop)
    assert ", ".join(f"{name} {n}" for name, n in trained.items()) in caught.value.kept
    assert os.listdir(tmp_path) == ["model.pt"]
    model = load_model(tmp_path / "model.pt")
    assert model.spec.trained == trained
    complete = trained == {"pose": 4, "warp": 2}  # Ctrl-C came after the last iteration
    with nullcontext() if complete else pytest.warns(PosewarperWarning, match="stopped at"):
        result = propagate(video, some_labels(), model=model, device="cpu")
    assert np.isfinite(result.poses.dense()).all()
    with pytest.raises(Interrupted, match="not written"):
        tiny_fit(video, some_labels(), progress=stop)


def test_propagated_poses_are_trained_on_where_nothing_is_labelled(video, monkeypatch):
    seen = []

    def keep(model, labelled, propagated, *what, **more):
        seen.append((labelled, propagated))
        return False

    monkeypatch.setattr(fitting, "train_pose_on_propagated", keep)
    labels = some_labels()
    tiny_fit(video, labels)
    [(labelled, propagated)] = seen
    there = {(i, int(f)) for i, track in labels.tracks.items() for f in track.frames}
    assert {(r.track, r.frame) for r in labelled} == there
    frames = {(r.track, r.frame) for r in propagated}
    assert len(frames) == len(propagated) and frames and not frames & there
    for region in propagated:
        assert np.isfinite(region.keypoints[region.visibility > 0]).all()


def test_what_is_trained_on(video, monkeypatch):
    """Each region is that of its label, and the unlabelled ones are close to it and of its track."""
    rows = {(0, 2): [2, 2, 2, 2], (0, 12): [2, 0, 2, 2], (1, 7): [0, 2, 2, 2], (1, 12): [2, 2, 0, 1]}
    tracks = {
        i: Track(
            np.array([f for t, f in rows if t == i]),
            true_keypoints([f for t, f in rows if t == i]) + 3 * i,
            visibility=np.array([v for (t, _), v in rows.items() if t == i]),
        )
        for i in (0, 1)
    }
    seen = []
    monkeypatch.setattr(fitting, "train_pose", lambda model, *what, **more: False)
    monkeypatch.setattr(fitting, "train_warper", lambda model, *what, **more: seen.append(what))
    tiny_fit(video, Labels(SKELETON, tracks, labelled_frames=np.array([2, 7, 12]), image_size=(96, 128)))
    labelled, nearby, _ = seen[0]
    assert [(r.track, r.frame) for r in labelled] == list(rows)
    for n, region in enumerate(labelled):
        assert region.visibility.tolist() == rows[region.track, region.frame]
        assert (np.isfinite(region.keypoints).all(1) == (region.visibility > 0)).all()
        assert nearby[n]
        for other in nearby[n]:
            assert other.track == region.track
            assert (other.track, other.frame) not in rows
            assert abs(other.frame - region.frame) <= 5
            assert not other.visibility.any()
            assert other.image.shape == region.image.shape
    assert seen[0][2] == TINY_FIT


def refused(error, message: str, call, **more) -> None:
    """The call fails, and before any work was begun."""
    told = []
    with pytest.raises(error, match=message) as caught:
        call(progress=lambda *what: told.append(what), **more)
    assert caught.value.fix
    assert told == []


def test_what_cannot_work_is_refused_before_the_work(video, tiny):
    def run(labels: Labels | None = None, **more):
        propagate(video, labels or some_labels(), **more)

    refused(ConfigError, "unknown method", run, method="magic")
    for method in ("linear", "flow", "default"):
        refused(ConfigError, "fast, normal, best", run, effort="medium", method=method)
    refused(ConfigError, "no iterations", run, effort="fast", method="frame")
    refused(ConfigError, "unknown device", run, device="tpu")
    refused(LabelsError, "there are no labels", run, labels=Labels(SKELETON, {}))
    empty = Track([3], np.full((1, 4, 2), 5.0), visibility=np.zeros((1, 4)))  # type: ignore[arg-type]
    refused(LabelsError, "there are no labels", run, labels=Labels(SKELETON, {0: empty}))
    refused(LabelsError, r"0 to 19[^$]*frame 20", run, labels=some_labels((3, 20), n_frames=None))
    refused(LabelsError, "another size", run, labels=some_labels(image_size=(128, 96)))
    model = tiny_fit(video, some_labels())
    names = ("nose", "right_paw", "left_paw", "tail")
    refused(ModelError, "skeleton", run, labels=some_labels(skeleton=Skeleton(names)), model=model)
    refused(ConfigError, "no iterations", lambda **more: fit(video, some_labels(), **more), effort="fast")
    network = NetworkConfig(backbone_weights="absent.pth")
    unused = {"effort": "fast", "method": "linear", "model": model}
    for name, value in unused.items():
        refused(ConfigError, "no network is trained", run, network=network, **{name: value})
    refused(ModelError, "no such file", run, network=network)
    refused(ModelError, "no such file", lambda **more: fit(video, some_labels(), **more), network=network)


def test_memory_does_not_grow_with_the_clip(tmp_path):
    """Of 200 frames only a few are alive at a time, and the cache keeps to its limit."""
    tile = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    path, n_frames = tmp_path / "long.mp4", 200
    write_video(path, (np.roll(tile, n // 4, 1) for n in range(n_frames)), fps=25)
    frames = np.arange(20, n_frames, 40)
    points = np.tile([[30.0, 20.0], [40.0, 30.0]], (len(frames), 1, 1))
    labels = Labels(Skeleton(("a", "b")), {0: Track(frames, points)})
    alive: set[int] = set()
    most_alive, most_cached = 0, 0
    with open_video(path, cache_bytes=20 * tile.nbytes) as video:

        def watch(name: str) -> None:
            read = getattr(video._frames, name)

            def watched(i: int, *how) -> np.ndarray:
                image = read(i, *how)
                alive.add(i)
                weakref.finalize(image, alive.discard, i)
                return image

            setattr(video._frames, name, watched)

        watch("read")
        watch("read_grey")

        def look(what: str, done: int, total: int) -> None:
            nonlocal most_alive, most_cached
            most_alive, most_cached = (
                max(most_alive, len(alive)),
                max(most_cached, video._frames._cache.n_bytes),
            )

        poses = propagate(video, labels, effort="fast", progress=look).poses
    assert len(poses.tracks[0].frames) == n_frames
    # Those since the last label, 40 frames before, wait for the labels that are carried back.
    assert 0 < most_alive <= 48
    assert most_cached <= 20 * tile.nbytes


def test_the_poses_stand_before_the_training_for_new_videos(video, tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, "normal", TINY_FIT)
    monkeypatch.setattr(fitting, "NetworkConfig", lambda: TINY_NETWORK)
    path, given = tmp_path / "model.pt", []
    how = {"checkpoint": path, "device": "cpu", "on_result": lambda r: given.append((r, load_model(path)))}
    result = propagate(video, some_labels(), **how)
    ((first, model),) = given
    assert first.trains_on and not result.trains_on
    assert model.spec.trained == {"pose": 3}
    assert load_model(path).spec.trained == {"pose": 4, "warp": 2}
    np.testing.assert_array_equal(first.poses.dense(), result.poses.dense())
    assert set(result.seconds) - set(first.seconds) == {"training for new videos"}
    # What was trained afterwards has no say: without it the poses are the same.
    given.clear()
    alone = propagate(video, some_labels(), keep_training=False, **how)
    np.testing.assert_array_equal(alone.poses.dense(), result.poses.dense())
    assert not given[0][0].trains_on
    assert load_model(path).spec.trained == {"pose": 3}


def test_a_model_learns_further_from_more_labels(video, tmp_path, monkeypatch):
    config = TINY_FIT.model_copy(update={"pose_iterations": 16})
    monkeypatch.setitem(EFFORTS, "normal", config)
    model = tiny_fit(video, some_labels(), config=config)
    before, path = parameters_sha256(model), tmp_path / "model.pt"
    how = {"device": "cpu", "checkpoint": path, "parts": tmp_path / "parts"}
    result = propagate(video, some_labels(), model=model, learn=True, keep_training=False, **how)
    learned = load_model(path)
    # A copy has learned, for an eighth of the iterations.
    assert parameters_sha256(model) == before != parameters_sha256(learned)
    assert learned.spec.trained["pose"] == model.spec.trained["pose"] + 2
    assert learned.spec.trained["warp"] == model.spec.trained["warp"]
    assert learned.spec.provenance["learned_further_from"] == before
    assert "pose_iterations" in result.config
    # The poses are those of the model that has learned.
    again = propagate(video, some_labels(), model=learned, device="cpu")
    np.testing.assert_allclose(again.poses.dense(), result.poses.dense(), atol=1e-3)
    with pytest.raises(ConfigError, match="no model to train further"):
        propagate(video, some_labels(), learn=True)


@pytest.mark.parametrize("stage", ["training on propagated poses", "training the warper"])
def test_ctrl_c_after_the_first_result_keeps_both_and_resumes(video, tmp_path, monkeypatch, stage):
    monkeypatch.setitem(EFFORTS, "normal", TINY_FIT.model_copy(update={"pseudo_iterations": 3}))
    monkeypatch.setattr(fitting, "NetworkConfig", lambda: TINY_NETWORK)
    given = []

    def stop(what: str, done: int, total: int) -> None:
        if what == stage:
            raise KeyboardInterrupt

    how = {"device": "cpu", "on_result": given.append}
    whole = propagate(video, some_labels(), checkpoint=tmp_path / "whole.pt", **how)
    how |= {"checkpoint": tmp_path / "model.pt", "parts": tmp_path / "parts"}
    with pytest.raises(Interrupted, match="the poses stand"):
        propagate(video, some_labels(), progress=stop, **how)
    assert load_model(tmp_path / "model.pt").spec.stopped.startswith("iteration 1 of")
    np.testing.assert_array_equal(given[1].poses.dense(), whole.poses.dense())
    resumed = propagate(video, some_labels(), **how)
    np.testing.assert_array_equal(resumed.poses.dense(), whole.poses.dense())
    both = (load_model(tmp_path / name) for name in ("model.pt", "whole.pt"))
    assert len({parameters_sha256(model) for model in both}) == 1
    assert load_model(tmp_path / "model.pt").spec.stopped == ""


def test_trained_weights_keep_their_lower_stages(video):
    network = TINY_NETWORK.model_copy(
        update={"backbone": "tf_efficientnet_lite0", "backbone_weights": "auto", "neck": "pyramid"}
    )
    model = tiny_fit(video, some_labels(), network=network)
    start = read_backbone_weights(network)
    assert start is not None
    for name, learns in (("conv_stem.weight", False), ("blocks.2.1.conv_pw.weight", False)):
        kept = torch.equal(model.backbone.trunk.get_parameter(name), start.state[name].flip(2, 3))
        assert kept is not learns
    learned = model.backbone.trunk.get_parameter("blocks.5.0.conv_pw.weight")
    assert not torch.equal(learned, start.state["blocks.5.0.conv_pw.weight"].flip(2, 3))
    assert model.spec.mean == (127 / 255,) * 3
    # Their norms have the statistics of the clip; those above go on as usual.
    seen = model.backbone.trunk.get_buffer("blocks.1.0.bn1.running_mean")
    assert not torch.equal(seen, start.state["blocks.1.0.bn1.running_mean"])
    assert int(model.backbone.trunk.get_buffer("blocks.1.0.bn1.num_batches_tracked")) == 4
    assert int(model.backbone.trunk.get_buffer("blocks.5.0.bn1.num_batches_tracked")) == (
        TINY_FIT.pose_iterations + TINY_FIT.pseudo_iterations
    )
    assert model.backbone.see_lower is None
