"""Process-wide settings: which device, and a state that is put back."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from posewarper.errors import ConfigError
from posewarper.model import runtime
from posewarper.model.runtime import (
    half_precision,
    keep_memory,
    precision,
    release_memory,
    repeatable,
    resolve_device,
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a switch of glibc")
def test_freed_memory_is_kept_on_linux():
    assert keep_memory() is True
    assert keep_memory() is True
    release_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(runtime.ctypes, "CDLL", None)
    assert keep_memory.__wrapped__() is False
    release_memory()


def test_a_libc_without_the_switch_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")

    def missing(name: str):
        raise OSError(name)

    monkeypatch.setattr(runtime.ctypes, "CDLL", missing)
    assert keep_memory.__wrapped__() is False
    release_memory()
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: object())
    assert keep_memory.__wrapped__() is False
    release_memory()


def have(monkeypatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_there_is(monkeypatch, cuda, mps, best):
    have(monkeypatch, cuda=cuda, mps=mps)
    assert resolve_device("auto") == torch.device(best)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(best) == torch.device(best)


def test_devices_that_are_not_there_are_refused_with_those_that_are(monkeypatch):
    have(monkeypatch, cuda=False, mps=False)
    for name in ("cuda", "mps"):
        with pytest.raises(ConfigError, match="does not have the device") as caught:
            resolve_device(name)
        assert "auto, cpu" in str(caught.value)
    with pytest.raises(ConfigError, match="unknown device"):
        resolve_device("tpu")


def test_half_precision_needs_a_machine_that_has_it(monkeypatch):
    capabilities = {"avx512_bf16": False, "amx_bf16": False}
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert half_precision(torch.device("cpu")) is False
    capabilities["amx_bf16"] = True
    assert half_precision(torch.device("cpu")) is True
    assert half_precision(torch.device("mps")) is False
    # Where it is asked to act as an ordinary processor, it has none either.
    for name, value in {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}.items():
        with monkeypatch.context() as ordinary:
            ordinary.setenv(name, value)
            assert half_precision(torch.device("cpu")) is False
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    assert half_precision(torch.device("cpu")) is True


@pytest.mark.parametrize("has_matrix_unit", [False, True])
def test_convolutions_of_single_channels_do_not_gain_from_half_precision(monkeypatch, has_matrix_unit):
    capabilities = {"avx512_bf16": True, "amx_bf16": has_matrix_unit}
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    dense, depthwise = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
    assert half_precision(torch.device("cpu"), dense) is True
    assert half_precision(torch.device("cpu"), nn.Sequential(dense, depthwise)) is False


@pytest.mark.parametrize(("halved", "expected"), [(False, torch.float32), (True, torch.bfloat16)])
def test_products_have_the_precision_that_was_asked_for(halved, expected):
    with precision(torch.device("cpu"), halved=halved):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def test_a_repeatable_block_gives_the_same_numbers_and_leaves_no_trace():
    torch.manual_seed(7)
    expected = torch.rand(5)
    numbers = []
    for seed in (1, 1, 2):
        torch.manual_seed(7)
        with repeatable(seed):
            assert deterministic() == (True, True)
            numbers.append(torch.rand(3))
        assert torch.equal(torch.rand(5), expected)
    assert torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[2])


@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_the_old_state_comes_back_also_after_a_failure(before):
    old = deterministic()
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    try:
        state = torch.get_rng_state()
        with pytest.raises(KeyboardInterrupt), repeatable(3):
            torch.rand(3)
            raise KeyboardInterrupt
        assert deterministic() == before
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.use_deterministic_algorithms(old[0], warn_only=old[1])
