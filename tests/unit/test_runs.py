"""An output folder has one writer, knows what its results were made by, and is gone on with after a stop."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from posewarper.errors import OutputError, PosewarperWarning
from posewarper.processes import machine_name
from posewarper.runs import (
    DoneBefore,
    InUse,
    RecordLog,
    _check_shared,
    _token,
    claim,
    differences,
    is_in_use,
    knows_locks,
    sole_writer,
)


def test_one_writer_at_a_time(tmp_path) -> None:
    out = tmp_path / "out"
    with sole_writer(out):
        with pytest.raises(OutputError, match="another run is writing here"), sole_writer(out):
            pass
        (out / "poses.json").touch()
    with sole_writer(out):
        pass
    assert [path.name for path in out.iterdir()] == ["poses.json"]


def test_who_holds_a_folder_is_told(tmp_path) -> None:
    assert not is_in_use(tmp_path) and not is_in_use(tmp_path / "absent") and knows_locks(tmp_path)
    with sole_writer(tmp_path):
        assert is_in_use(tmp_path)
        with pytest.raises(InUse, match=f"{machine_name()}, process {os.getpid()}$".replace("$", "\n")):
            sole_writer(tmp_path).__enter__()
    assert not is_in_use(tmp_path) and list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_shared_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("posewarper.runs._SEEN_WITHIN", 0.0)
    with sole_writer(tmp_path / "here"), sole_writer(tmp_path / "there"):
        token = _token(tmp_path / "here")
        assert token is not None
        _check_shared(tmp_path / "here", token)
        with pytest.raises(OutputError, match="a folder that all machines share"):
            _check_shared(tmp_path / "there", token)


def test_locks_that_hold_on_one_machine_alone_are_warned_of(tmp_path) -> None:
    tmp_path.joinpath(".lock").write_text("another-machine, process 7, 123\n")
    with pytest.warns(PosewarperWarning, match="do not hold on another"):
        _check_shared(tmp_path, "another-machine, process 7, 123\n")


def test_a_folder_to_which_nothing_was_written_goes_again(tmp_path) -> None:
    with pytest.raises(ValueError), sole_writer(tmp_path / "out"):
        raise ValueError
    (tmp_path / "own").mkdir()
    with sole_writer(tmp_path / "own"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no forks")
def test_a_killed_writer_is_in_nobodys_way(tmp_path) -> None:
    child = os.fork()
    if child == 0:
        with sole_writer(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / ".lock").exists()
    with sole_writer(tmp_path):
        pass


def test_what_is_no_folder(tmp_path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/in", "n" * 300):
        with pytest.raises(OutputError, match="another output folder"), sole_writer(tmp_path / name):
            pass


def claim_now(folder, request, **options):
    """Claim a folder, begin, and write a result."""
    with claim(folder, request, ["poses.json", "parts"], **options) as run:
        run.begin()
        (run.folder / "poses.json").write_text(request["model"])
        return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_same_request_goes_on_and_another_is_refused(tmp_path) -> None:
    out = tmp_path / "out"
    claim_now(out, {"model": "a", "size": (1, 2)})
    (out / "parts").mkdir()
    with claim(out, {"model": "a", "size": (1, 2)}, ["poses.json", "parts"]) as run:
        run.begin()
        assert names(out) == {"poses.json", "parts", "request.json", ".lock"}
    with pytest.raises(OutputError, match=r"of other settings(.|\n)*model was a, is b(.|\n)*--overwrite"):
        claim_now(out, {"model": "b", "size": (1, 2)})
    with claim(out, {"model": "b"}, ["poses.json", "parts"], overwrite=True) as run:
        assert "poses.json" in names(out)  # until the input has proved usable
        told: list[tuple] = []
        run.beginning(lambda *what: told.append(what))("work", 0, 1)
        assert told == [("work", 0, 1)] and names(out) == {"request.json", ".lock"}
    assert not names(out)  # nothing was written


def test_a_finished_run_is_not_done_again_unless_that_is_wanted(tmp_path) -> None:
    claim_now(tmp_path, {"model": "a"}).finish({"seconds": 1})
    with pytest.raises(DoneBefore, match="holds results already"):
        claim_now(tmp_path, {"model": "a"})
    with pytest.raises(OutputError) as caught:
        claim_now(tmp_path, {"model": "b"})
    assert not isinstance(caught.value, DoneBefore)
    claim_now(tmp_path, {"model": "a"}, again=True)
    assert (tmp_path / "run.json").exists()
    claim_now(tmp_path, {"model": "a"}, overwrite=True)
    assert not (tmp_path / "run.json").exists()
    with pytest.raises(DoneBefore):
        claim_now(tmp_path, {"model": "a"}, last=("poses.json",), resume=False)
    # Older versions wrote no request: whoever takes their results checks them.
    (tmp_path / "request.json").unlink()
    with pytest.raises(OutputError, match="results already"):
        claim_now(tmp_path, {"model": "a"})
    with claim(tmp_path, {"model": "a"}, ["poses.json"], adopt=True) as run:
        run.begin()
        assert names(tmp_path) == {"poses.json", "request.json", ".lock"}
    # None replaces the results of another request, and goes on with its own.
    claim_now(tmp_path, {"model": "a"}, overwrite=None)
    claim_now(tmp_path, {"model": "b"}, overwrite=None)
    assert (tmp_path / "poses.json").read_text() == "b"


def test_results_of_nobody_knows_what_are_refused_and_other_files_stay(tmp_path) -> None:
    (tmp_path / "holiday.jpg").touch()
    claim_now(tmp_path, {"model": "a"})
    assert names(tmp_path) == {"holiday.jpg", "request.json", "poses.json"}
    for damage in ("", "{", "[1]"):
        (tmp_path / "request.json").write_text(damage)
        with pytest.raises(OutputError, match=r"results already(.|\n)*poses\.json"):
            claim_now(tmp_path, {"model": "a"})


def test_leftovers_of_a_killed_run_are_removed(tmp_path) -> None:
    claim_now(tmp_path, {"model": "a"})
    (tmp_path / "parts").mkdir()
    (tmp_path / ".parts.7.old").mkdir()
    for name in (".poses.7.partial.json", ".notes.7.partial.json", "parts/.a.7.partial.json"):
        (tmp_path / name).touch()
    claim_now(tmp_path, {"model": "a"})
    assert names(tmp_path) == {"request.json", "poses.json", "parts", ".notes.7.partial.json"}
    assert not names(tmp_path / "parts")


def test_results_may_be_named_by_a_pattern(tmp_path) -> None:
    for name in ("a/1.json", "a/.1.7.partial.json", "a/b/.2.7.partial.json", "a/notes.txt", "a/.x.7.old"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with claim(tmp_path, {}, ["a/*.json", "a/*"], adopt=True, inputs=[tmp_path / "a" / "notes.txt"]) as run:
        assert set(run.written) == {"a/1.json", "a/b"}
        run.begin()
    assert names(tmp_path / "a") == {"1.json", "b", "notes.txt"} and not names(tmp_path / "a" / "b")
    with claim(tmp_path, {}, ["a/*.json"], overwrite=True) as run:
        run.begin()
    assert names(tmp_path / "a") == {"b", "notes.txt"}


def test_inputs_may_lie_among_the_results_and_are_not_removed(tmp_path) -> None:
    (tmp_path / "poses.json").write_text("labels")
    with claim(tmp_path, {}, ["poses.json"], inputs=[tmp_path / "poses.json"]) as run:
        run.begin()
        assert (tmp_path / "poses.json").read_text() == "labels"
    with (
        pytest.raises(OutputError, match="place of the input"),
        claim(tmp_path, {}, ["poses.json"], overwrite=True, source=tmp_path / "poses.json"),
    ):
        pass


def test_results_that_cannot_be_removed_are_reported(tmp_path, monkeypatch) -> None:
    claim_now(tmp_path, {"model": "a"})

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name != ".lock":
            raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="cannot be removed"):
        claim_now(tmp_path, {"model": "b"}, overwrite=True)


def test_differences_name_what_changed() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": "x" * 99}, {"a": {"b": 1, "c": 3}, "d": "y"}
    assert differences(old, new) == f"a.c was 2, is 3; d was {'x' * 20}..., is y"


def test_a_log_keeps_what_was_kept(tmp_path) -> None:
    with RecordLog(tmp_path) as log:
        for n in range(5):
            log.append({"frame": n})
            if n != 4:
                log.keep({"done": n + 1})
        assert [record["frame"] for record in log.records()] == [0, 1, 2, 3, 4]
    with RecordLog(tmp_path) as log:
        assert log.state == {"done": 4} and [record["frame"] for record in log.records()] == [0, 1, 2, 3]
        log.append({"frame": 4})
        assert [record["frame"] for record in log.records()] == [0, 1, 2, 3, 4]


def test_a_log_has_one_writer(tmp_path) -> None:
    with RecordLog(tmp_path) as log:
        log.append({"frame": 0})
        with pytest.raises(OutputError, match="another run is writing"):
            RecordLog(tmp_path)
        assert [record["frame"] for record in log.records()] == [0]
    RecordLog(tmp_path).__exit__()


def test_a_log_cut_off_in_its_last_state_goes_on_from_the_state_before(tmp_path) -> None:
    with RecordLog(tmp_path) as log:
        for n in range(2):
            log.append({"frame": n})
            log.keep({"done": n + 1})
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-3])
    with RecordLog(tmp_path) as log:
        assert log.state == {"done": 1} and [record["frame"] for record in log.records()] == [0]


def test_a_damaged_line_is_reported(tmp_path) -> None:
    with RecordLog(tmp_path) as log:
        log.append({"frame": 0})
        log.keep({"done": 1})
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"no json" + path.read_bytes())
    with RecordLog(tmp_path) as log, pytest.raises(OutputError, match=r"damaged(.|\n)*--overwrite"):
        list(log.records())
