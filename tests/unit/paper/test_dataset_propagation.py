"""Propagation over a made-up PoseTrack: files, going on after an interruption, and the official AP."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from posewarper.demo.posetrack_tree import write_posetrack_tree
from posewarper.errors import Interrupted, LabelsError, ModelError, OutputError, PosewarperWarning
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.motion import raft
from posewarper.paper import propagation
from posewarper.paper.carrying import Rules
from posewarper.paper.propagation import plan_dataset, propagate_dataset, score_propagation
from posewarper.posetrack.dataset import open_dataset
from posewarper.posetrack.posetrack18 import read_posetrack18
from posewarper.posetrack.preparation import prepare_dataset
from posewarper.posetrack.selection import Step
from posewarper.posetrack.tables import read_tables
from posewarper.skeletons import POSETRACK


@pytest.fixture(scope="module", params=["posetrack17", "posetrack18"])
def dataset(request, tmp_path_factory):
    top = tmp_path_factory.mktemp(request.param)
    write_posetrack_tree(
        top / "download", request.param, n_videos=(2, 1), n_frames=14, seed=3, labelled="all"
    )
    return prepare_dataset(request.param, top / "download", top / "data")[0]


@pytest.fixture(scope="module")
def model() -> PoseWarper:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = ModelSpec(
            "hrnet_w18_small", POSETRACK, (64, 32), 1, head_width=4, head_blocks=1, head_dilations=(1,)
        )
        made = PoseWarper(spec).eval()
    made.record("warp", 1)
    return made


def ap(dataset, folder, plan, split="train") -> float:
    score = score_propagation(dataset, folder, split=split, plan=plan)
    return score.to_dict()["ap"]["groups"]["total"]


def test_labels_alone_score_in_full_and_count_only_where_planned(dataset, tmp_path) -> None:
    first = dataset.of_split("train")[0].first
    plan = {
        video.file_stem: [Step(n, n, 0) for n in (first + 2, first + 9)]
        for video in dataset.of_split("train")
    }
    result = propagate_dataset(dataset, None, tmp_path / "out", split="train", method="copy", plan=plan)
    assert (result.videos, result.frames, result.unfilled, result.reused) == (2, 4, 0, 0)
    assert ap(dataset, result.folder, plan) == pytest.approx(100)
    for stem, video in ((v.file_stem, v) for v in dataset.of_split("train")):
        truth, found = dataset.table(video), read_posetrack18(result.folder / f"{stem}.json")
        assert found.frame_names == truth.frame_names
        np.testing.assert_array_equal(found.frame_numbers, truth.frame_numbers)
        own = np.isin(truth.frame_numbers[truth.rows], [first + 2, first + 9])
        np.testing.assert_allclose(found.keypoints, truth.keypoints[own])
    # The same poses, asked about frames that they were not made for, miss everybody there.
    other = {stem: [*steps, Step(first + 5, first + 2, 3)] for stem, steps in plan.items()}
    assert 50 < ap(dataset, result.folder, other) < 80


def test_the_papers_pattern_on_moving_people(dataset, model, tmp_path, monkeypatch) -> None:
    # Nothing is seen, and a new head leaves labels where they are, rounded to pixels of its heatmaps.
    large = PoseWarper(replace(model.spec, crop_size=(256, 192), trained={"warp": 1})).eval()
    monkeypatch.setattr(large, "heatmaps", lambda crops: torch.zeros(len(crops), 17, 64, 48))
    plan = plan_dataset(dataset, "val", "consecutive")
    figures = {}
    for method in ("copy", "dis", "warper"):
        result = propagate_dataset(
            dataset, large, tmp_path / method, split="val", method=method, plan=plan, batch=32
        )
        figures[method] = ap(dataset, result.folder, plan, "val")
        assert result.frames == 14
    assert figures["dis"] > figures["copy"] + 2 and figures["dis"] > 80
    assert abs(figures["warper"] - figures["copy"]) < 6


def test_pseudo_labels_of_a_sparse_selection(dataset, model, tmp_path) -> None:
    video = dataset.of_split("train")[1]
    chosen = {video.file_stem: [video.first + 1, video.first + 6]}
    plan = plan_dataset(dataset, "train", "neighbours", selection=chosen)
    told = []
    result = propagate_dataset(
        dataset, model, tmp_path / "out", split="train", method="warper", plan=plan,
        rules=Rules(min_score=0.2), progress=lambda *what: told.append(what),
    )  # fmt: skip
    assert told[-1] == ("propagation", 8, 8) and told == sorted(told)
    tables = read_tables(result.folder)  # as training reads them
    assert list(tables) == [video.file_stem]
    found = tables[video.file_stem]
    filled = found.frame_numbers[found.is_labelled] - video.first
    assert filled.tolist() == [0, 2, 3, 4, 5, 7, 8, 9]  # neither selected frame among them
    assert set(np.flatnonzero(found.is_labelled)) >= set(found.rows.tolist())
    assert found.n_instances == result.instances > 0
    scores = found.keypoint_scores[np.isfinite(found.keypoints[..., 0])]
    assert scores.min() > 0.2 and np.isfinite(found.boxes).all() and np.isnan(found.head_boxes).all()


def test_an_interrupted_run_goes_on_and_a_finished_one_rests(dataset, model, tmp_path, monkeypatch) -> None:
    plan = plan_dataset(dataset, "train", "consecutive")
    options = {"split": "train", "method": "dis", "plan": plan}
    whole = propagate_dataset(dataset, model, tmp_path / "whole", **options)
    usual, calls = propagation.propagate_video, []

    def stops(*values, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(*values, **named)

    monkeypatch.setattr(propagation, "propagate_video", stops)
    with pytest.raises(Interrupted, match="1 of 2 videos are done"):
        propagate_dataset(dataset, model, tmp_path / "out", **options)
    with pytest.raises(OutputError, match="other settings"):
        propagate_dataset(dataset, model, tmp_path / "out", **options, rules=Rules(min_score=0.2))
    again = propagate_dataset(dataset, model, tmp_path / "out", **options)
    assert again.reused == 1 and len(calls) == 3
    for path in whole.folder.iterdir():
        assert (again.folder / path.name).read_bytes() == path.read_bytes()
    rested = propagate_dataset(dataset, None, tmp_path / "out", **options)  # flow needs no model
    assert rested.reused == 2 and len(calls) == 3
    assert (rested.frames, rested.instances) == (whole.frames, whole.instances)
    propagate_dataset(dataset, model, tmp_path / "out", **options, overwrite=True)
    assert len(calls) == 5


def test_frames_that_are_missing_are_counted(dataset, tmp_path) -> None:
    video = dataset.of_split("val")[0]
    path = dataset.frame_path(video, video.first + 4)
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.warns(PosewarperWarning):
            gappy, _ = prepare_dataset(dataset.kind, dataset.root.parent / "download", tmp_path / "data")
    finally:
        path.write_bytes(content)
    plan = plan_dataset(gappy, "val", "consecutive")
    result = propagate_dataset(gappy, None, tmp_path / "out", split="val", method="dis", plan=plan)
    assert result.unfilled == 1 and result.frames == 13


def test_what_cannot_work_is_said_before_the_work(dataset, model, tmp_path, monkeypatch) -> None:
    plan = plan_dataset(dataset, "train", "consecutive")
    out = tmp_path / "out"
    for strangers in ({"999": [Step(1, 1, 0)]}, {}):
        with pytest.raises(LabelsError, match="does not fit the split 'train'"):
            propagate_dataset(dataset, model, out, split="train", method="copy", plan=strangers)
    with pytest.raises(ModelError, match="needs a network"):
        propagate_dataset(dataset, None, out, split="train", method="warper", plan=plan)

    def fails(**_):
        raise OSError("no network")

    monkeypatch.setattr(type(raft.Raft_Large_Weights.C_T_SKHT_V2), "get_state_dict", lambda *_, **__: fails())
    with pytest.raises(ModelError, match="cannot be downloaded"):
        propagate_dataset(dataset, None, out, split="train", method="raft", plan=plan)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        propagate_dataset(dataset, None, tmp_path / "file", split="train", method="copy", plan=plan)


def test_a_head_that_was_never_trained_is_noticed(dataset, model, tmp_path) -> None:
    fresh = PoseWarper(replace(model.spec, trained={})).eval()
    plan = {dataset.of_split("val")[0].file_stem: [Step(5, 5, 0)]}
    with pytest.warns(PosewarperWarning, match="never trained"):
        propagate_dataset(dataset, fresh, tmp_path / "out", split="val", method="warper", plan=plan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        propagate_dataset(dataset, fresh, tmp_path / "frame", split="val", method="frame", plan=plan)


def test_what_is_read_back_is_what_was_written(dataset, model, tmp_path) -> None:
    plan = plan_dataset(dataset, "val", "consecutive")
    result = propagate_dataset(
        dataset, model, tmp_path / "out", split="val", method="warper", plan=plan, batch=32
    )
    assert open_dataset(dataset.root).of_split("val")[0].file_stem in read_tables(result.folder)
    found = next(iter(read_tables(result.folder).values()))
    labelled = {step.number for step in plan[next(iter(plan))] if step.delta == 0}
    is_label = np.isin(found.frame_numbers[found.rows], list(labelled))
    scores = found.keypoint_scores[np.isfinite(found.keypoints[..., 0])]
    assert np.isfinite(scores).all() and (found.tracks >= 0).all() and (found.scores == 1).all()
    assert np.isfinite(found.head_boxes).all(1).tolist() == is_label.tolist()
