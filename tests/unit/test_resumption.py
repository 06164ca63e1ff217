"""A folder knows the request that its results were made by."""

from __future__ import annotations

from pathlib import Path

import pytest

from posewarper.errors import OutputError
from posewarper.runs import claim_folder


def test_results_of_another_request_are_not_mixed_in(tmp_path) -> None:
    out = tmp_path / "out"
    claim_folder(out, {"model": "a"}, ["parts"], overwrite=False)
    (out / "parts").mkdir()
    claim_folder(out, {"model": "a"}, ["parts"], overwrite=False)
    with pytest.raises(OutputError, match="other settings"):
        claim_folder(out, {"model": "b"}, ["parts"], overwrite=False)
    claim_folder(out, {"model": "b"}, ["parts"], overwrite=True)
    assert not (out / "parts").exists()


def test_a_run_that_failed_before_its_first_result_is_in_nobodys_way(tmp_path) -> None:
    claim_folder(tmp_path, {"labels": "wrong.json"}, ["parts"], overwrite=False)
    claim_folder(tmp_path, {"labels": "right.json"}, ["parts"], overwrite=False)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(OutputError, match="other files"):
        claim_folder(tmp_path, {"labels": "more.json"}, ["parts"], overwrite=False)


def test_results_that_cannot_be_removed_are_told_of(tmp_path, monkeypatch) -> None:
    claim_folder(tmp_path, {"model": "a"}, ["poses.json"], overwrite=False)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="cannot be removed"):
        claim_folder(tmp_path, {"model": "b"}, ["poses.json"], overwrite=True)
