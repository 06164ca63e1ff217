"""Our evaluation against the reference's figures, from the files of both years and from a mixture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewarper.evaluation.posetrack import by_group, score_posetrack, total_of
from posewarper.posetrack.annolist import table_of_annolist, write_annolist_mat
from posewarper.posetrack.posetrack18 import tables_of_coco
from posewarper.posetrack.tables import read_tables

CASES = ("small_basic", "small_edge", "small_ignore", "medium", "constant_id")
PAIRS = (("gt17", "pred17"), ("gt18", "pred18"), ("gt17", "pred18"))


def leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        place = f"{path}/{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, place)
        else:
            yield place, np.nan if value is None else float(value)


def test_every_recorded_case_is_covered(parity_dir: Path) -> None:
    assert {p.name for p in (parity_dir / "poseval").iterdir() if p.is_dir()} == set(CASES)


@pytest.mark.filterwarnings("ignore:no tracking figures")
@pytest.mark.parametrize(("truth", "predictions"), PAIRS)
@pytest.mark.parametrize("case", CASES)
def test_all_figures_are_those_of_the_reference(parity_dir, parity_error, case, truth, predictions) -> None:
    folder = parity_dir / "poseval" / case
    recorded = json.loads((folder / "expected.json").read_text())
    expected = {key: recorded[key] for key in ("n_frames_evaluated", "ap", "mot") if key in recorded}
    score = score_posetrack(read_tables(folder / truth), read_tables(folder / predictions)).to_dict()
    if "mot" not in expected:
        assert score.pop("mot") is None
    wanted, got = dict(leaves(expected)), dict(leaves(score))
    assert set(got) == set(wanted)
    error = parity_error(f"poseval/{case}")(
        np.array([got[place] for place in wanted]), np.array(list(wanted.values()))
    )
    assert error < 1e-6
    # One by one as well, since counts are larger than percentages.
    for place, value in wanted.items():
        assert got[place] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), place


@pytest.mark.parametrize("case", ["small_edge", "small_ignore"])
def test_matlab_files_give_the_same(parity_dir, tmp_path, case) -> None:
    folder = parity_dir / "poseval" / case
    for side in ("gt17", "pred17"):
        for name, table in read_tables(folder / side).items():
            write_annolist_mat(tmp_path / side / f"{name}.mat", table)
    score = score_posetrack(read_tables(tmp_path / "gt17"), read_tables(tmp_path / "pred17")).to_dict()
    expected = json.loads((folder / "expected.json").read_text())
    assert score["ap"]["groups"] == pytest.approx(expected["ap"]["groups"])
    assert score["mot"]["groups"] == pytest.approx(expected["mot"]["groups"])


def test_one_track_id_for_everybody_has_no_tracking_figures(parity_dir) -> None:
    folder = parity_dir / "poseval" / "constant_id"
    with pytest.warns(match="no tracking figures.*several people have the same track id"):
        score = score_posetrack(read_tables(folder / "gt17"), read_tables(folder / "pred17"))
    assert score.tracking is None


@pytest.mark.filterwarnings("ignore:no tracking figures")
@pytest.mark.parametrize("year", ["posetrack17", "posetrack18"])
def test_ap_of_the_result_files_of_the_original(parity_dir, parity_error, year) -> None:
    recorded = json.loads((parity_dir / "result_files.json").read_text())[year]

    def tables(documents):
        read = (
            table_of_annolist(d, name) if "annolist" in d else next(iter(tables_of_coco(d, name).values()))
            for name, d in documents.items()
        )
        return dict(zip((Path(name).stem for name in documents), read, strict=True))

    score = score_posetrack(tables(recorded["ground_truth_files"]), tables(recorded["expected_result_files"]))
    ap = score.detection.ap
    ours = [*by_group(ap).values(), total_of(ap)]
    assert (
        parity_error("result_files.json")(np.array(ours), list(recorded["expected_ap_groups"].values()))
        < 1e-6
    )
