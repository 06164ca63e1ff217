"""The three experiments: their stages, their rows, and the table with the published figures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from posewarper.cli.experiment import _show
from posewarper.errors import Interrupted, ModelError
from posewarper.experiments import EXPERIMENTS, GROUPS, NOTES, ResultTable, published_rows, run_experiments
from posewarper.training.recipes import read_experiment

FIGURES = dict.fromkeys(GROUPS, 12.345)


class Bench:
    """In a workshop's place: notes what is asked of it."""

    def __init__(self, out: Path, broken: tuple[str, ...] = ()) -> None:
        self.out, self.broken, self.told, self.done = out, broken, [], []
        self.settings = SimpleNamespace(
            propagation=SimpleNamespace(videos=9, labelled_frames=5), sweeps=((4, 1), (250, 2))
        )
        self.tell = self.told.append
        out.mkdir(exist_ok=True)

    def check_recipes(self):
        self.done.append("check")

    def weights(self, stage, *, subset=None, start=None, pseudo_labels=None):
        parts = [stage, *(f"{subset[0]}x{subset[1]}" for _ in [0] if subset)]
        given = [f"from {start}"] if start else []
        given += [f"with {pseudo_labels}"] if pseudo_labels else []
        self.done.append(" ".join([*parts, *given]))
        return "/".join(parts)

    def validation_plan(self):
        return "val plan"

    def training_plan(self, subset):
        return f"plan {subset[0]}x{subset[1]}"

    def propagate(self, weights, folder, *, split, method, plan, pseudo):
        if method in self.broken:
            raise ModelError("no weights", fix="fetch them")
        self.done.append(f"{method} by {weights} on {split}, {plan}{', pseudo' if pseudo else ''}")
        return folder

    def score_propagated(self, folder, plan):
        return FIGURES

    def predict(self, weights, folder, *, aggregate):
        self.done.append(f"predict {weights} {aggregate}")
        return FIGURES


def test_stages_in_order(tmp_path):
    bench = Bench(tmp_path)
    tables = run_experiments(bench, EXPERIMENTS)  # type: ignore[arg-type]
    assert bench.done == [
        "check",
        "sparse_pose 9x5",
        "sparse_warper 9x5 from sparse_pose/9x5",
        "frame by sparse_pose/9x5 on val, val plan",
        "dis by sparse_pose/9x5 on val, val plan",
        "raft by sparse_pose/9x5 on val, val plan",
        "warper by sparse_warper/9x5 on val, val plan",
        *(
            line
            for s, name in (("4x1", "V4_N1"), ("250x2", "V250_N2"))
            for line in (
                f"sparse_pose {s}",
                f"sparse_warper {s} from sparse_pose/{s}",
                f"warper by sparse_warper/{s} on train, plan {s}, pseudo",
                f"retraining {s} with train_{name}",
                f"predict sparse_pose/{s} none",
                f"predict retraining/{s} none",
            )
        ),
        "pose",
        "warper from pose",
        "predict pose none",
        "predict warper paper",
    ]
    assert [table.experiment for table in tables] == list(EXPERIMENTS)
    kept = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert list(kept) == list(EXPERIMENTS) and kept["aggregation"]["rows"]["PoseWarper"] == FIGURES


def test_raft_may_be_missing_and_others_may_not(tmp_path):
    (table,) = run_experiments(Bench(tmp_path, ("raft",)), ("propagation",))  # type: ignore[arg-type]
    assert list(table.rows) == ["per-frame pseudo-labels", "optical flow (DIS)", "PoseWarper"]
    assert "RAFT" in table.notes[0] and "fetch them" in table.notes[0]
    with pytest.raises(ModelError):
        run_experiments(Bench(tmp_path, ("dis",)), ("propagation",))  # type: ignore[arg-type]
    # Figures of other experiments stay.
    run_experiments(Bench(tmp_path), ("aggregation",))  # type: ignore[arg-type]
    assert set(json.loads((tmp_path / "figures.json").read_text())) == {"propagation", "aggregation"}


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def stop(*what, **more):
        raise Interrupted("the training's own words, of --resume")

    monkeypatch.setattr(Bench, "weights", stop)
    with pytest.raises(Interrupted) as caught:
        run_experiments(Bench(tmp_path), ("aggregation",))  # type: ignore[arg-type]
    assert "the same command resumes there" in caught.value.kept and "--resume" not in caught.value.kept


def test_the_published_rows_are_those_of_the_paper():
    # README of the original: validation sets, head to ankle and mean.
    assert published_rows("posetrack17", "propagation") == {
        "per-frame pseudo-labels": (79.1, 86.5, 81.4, 74.7, 81.4, 79.4, 72.3, 79.3),
        "optical flow (FlowNet2)": (82.7, 91.0, 83.8, 78.4, 89.7, 83.6, 78.1, 83.8),
        "PoseWarper": (86.0, 92.7, 89.5, 86.0, 91.5, 89.1, 86.6, 88.7),
    }
    own, others = published_rows("posetrack18", "aggregation"), published_rows("posetrack17", "aggregation")
    assert own["PoseWarper"] == (79.9, 86.3, 82.4, 77.5, 79.8, 78.8, 73.2, 79.7)
    assert others["PoseWarper"] == (81.4, 88.3, 83.9, 78.0, 82.4, 80.5, 73.6, 81.2)
    assert (own["per-frame"][-1], others["per-frame"][-1]) == (79.4, 80.9)
    # None is known, none is shown.
    assert published_rows("posetrack18", "propagation") == {}
    assert published_rows("posetrack17", "augmentation") == {}
    assert set(NOTES) == set(EXPERIMENTS)


def rows_of(name: str, folder: Path) -> dict:
    bench = Bench(folder)
    bench.settings = read_experiment("posetrack_experiments.yaml")
    return run_experiments(bench, (name,))[0].rows  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("kind", ["posetrack17", "posetrack18"])
def test_the_table_fits_eighty_columns_and_shows_each_row(capsys, tmp_path, name, kind):
    rows = rows_of(name, tmp_path)
    _show(ResultTable(name, rows, ("a note " * 30,)), kind)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    for row in rows:
        (line,) = [line for line in lines if line.startswith(f"{row} ") or line[:31] == row]
        assert line.split()[-8:] == ["12.3"] * 8
    # The published row stands beneath ours of the same name.
    for row, values in published_rows(kind, name).items():
        (place,) = [n for n, line in enumerate(lines) if line.startswith(row)]
        shown = ["-" if value is None else f"{value:.1f}" for value in values]
        assert lines[place + 1].split() == ["published", *shown]


def test_a_group_without_a_figure_is_a_dash(capsys):
    _show(ResultTable("aggregation", {"per-frame": {**FIGURES, "ankle": None}}), "posetrack21")
    assert capsys.readouterr().out.splitlines()[3].split()[-3:] == ["12.3", "-", "12.3"]
