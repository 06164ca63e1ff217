"""Which process this is, and whether an error is that of a lost connection."""

from __future__ import annotations

import pickle

import pytest
import torch

from posewarper import processes
from posewarper.errors import ConfigError, LabelsError, OutputError
from posewarper.model.runtime import resolve_device


def started_as(monkeypatch, **variables: object) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_a_process_knows_its_place(monkeypatch):
    started_as(monkeypatch)
    assert (processes.rank(), processes.world(), processes.local_rank()) == (0, 1, 0)
    assert processes.is_first()
    started_as(monkeypatch, RANK=5, WORLD_SIZE=8, LOCAL_RANK=1)
    assert (processes.rank(), processes.world(), processes.local_rank()) == (5, 8, 1)
    assert not processes.is_first()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "first", "WORLD_SIZE": 2}, "RANK is no number"),
        ({"RANK": 0, "WORLD_SIZE": -2}, "WORLD_SIZE is no number"),
        ({"RANK": 2, "WORLD_SIZE": 2}, "do not fit together"),
        ({"RANK": 1}, "do not fit together"),
    ],
)
def test_an_environment_that_cannot_be_is_an_error(monkeypatch, variables, message):
    started_as(monkeypatch, **variables)
    with pytest.raises(ConfigError, match=message):
        processes.rank()


@pytest.mark.parametrize(("local_rank", "index"), [(0, None), (1, 1), (3, 3), (6, 2)])
def test_processes_of_a_machine_take_gpus_of_their_own(monkeypatch, local_rank, index):
    # RANK counts over all machines and must not decide: the second machine has no GPU 8.
    started_as(monkeypatch, RANK=8 + local_rank, WORLD_SIZE=16, LOCAL_RANK=local_rank)
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("auto", "cuda"):
        assert resolve_device(name) == (torch.device("cuda", index) if index else torch.device("cuda"))
    assert chosen == ([torch.device("cuda", index)] * 2 if index else [])
    assert resolve_device("cpu") == torch.device("cpu")


def test_alone_the_first_process_is_all(monkeypatch):
    started_as(monkeypatch)
    assert processes.of_first(lambda: 3) == 3
    processes.wait_for_all()
    with pytest.raises(LabelsError):
        processes.of_first(lambda: (_ for _ in ()).throw(LabelsError("none", fix="some")))


def test_errors_travel_to_other_processes():
    error = OutputError("taken", path="a/b", expected=range(3), got=None, fix="another")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is OutputError and str(copy) == str(error)
    assert (copy.what, copy.fix, copy.path, copy.got) == ("taken", "another", "a/b", None)


def test_a_lost_connection_is_told_from_other_errors(monkeypatch):
    closed = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer")
    started_as(monkeypatch, RANK=0, WORLD_SIZE=2)
    assert processes.is_lost_connection(closed)
    assert processes.is_lost_connection(torch.distributed.DistBackendError("timed out"))
    assert not processes.is_lost_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not processes.is_lost_connection(ValueError("gloo"))
    started_as(monkeypatch)
    assert not processes.is_lost_connection(closed)
