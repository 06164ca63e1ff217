"""Process-wide settings that make the network fast and repeatable on this machine."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.utils.deterministic
from torch import nn

from posewarper.errors import ConfigError
from posewarper.processes import local_rank

_ISAS_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Larger than the blocks that a training step asks for, and small enough that what lies idle stays bounded.
# Older versions of glibc take no mmap threshold above 32 MB and refuse larger ones.
_MMAP_BYTES, _OLD_MMAP_BYTES, _TRIM_BYTES = 2**26, 2**25, 2**28


@cache
def keep_memory() -> bool:
    """Make the C library keep freed blocks instead of returning them to the system at every step.

    Training frees and allocates the same large blocks over and over; with glibc's defaults the system takes
    each back and clears its pages again. Returns whether it worked (only glibc has the switch).
    """
    library = _glibc()
    if library is None:
        return False
    mallopt = library.mallopt
    large = mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES) or mallopt(_M_MMAP_THRESHOLD, _OLD_MMAP_BYTES)
    return bool(large and mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))


def release_memory() -> None:
    """Return freed blocks to the system: between stages that allocate blocks of other sizes."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        _ = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return None
    return library


def resolve_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``mps``; ``auto`` takes the fastest there is.

    Of several processes that ``torchrun`` started on a machine each takes a GPU of its own, as long as there
    are enough of them.

    Raises:
        ConfigError: if the name is unknown or the machine lacks the device.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there.get(name, False):
        raise ConfigError(
            "this machine does not have the device" if name in there else "unknown device",
            expected=", ".join(["auto", *(n for n, ok in there.items() if ok)]),
            got=name,
            fix="use one of the names expected; for cuda install a build of torch with CUDA",
        )
    if name == "cuda" and local_rank():
        own = torch.device("cuda", local_rank() % torch.cuda.device_count())
        torch.cuda.set_device(own)  # for what is started without naming a device
        return own
    return torch.device(name)


def half_precision(device: torch.device, network: object = None) -> bool:
    """Tell whether bfloat16 is worth using: any CUDA GPU that has it, or a CPU that multiplies in it.

    A CPU gains with dense convolutions and loses with those of single channels, whether it has a matrix unit
    (AMX) or not, so that a ``network`` with these is better off in float32. Of what is no module nothing is
    known.

    ``ONEDNN_MAX_CPU_ISA`` and ``ATEN_CPU_CAPABILITY`` make PyTorch act on a large processor as on an ordinary
    one, without bfloat16.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    # oneDNN's levels below AVX512_CORE_BF16, under its present and its former name.
    level = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    if level.upper() in _ISAS_WITHOUT_BF16 or os.environ.get("ATEN_CPU_CAPABILITY") in ("default", "avx2"):
        return False
    capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    modules = network.modules() if isinstance(network, nn.Module) else ()
    is_depthwise = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in modules)
    return bool(capability.get("amx_bf16") or capability.get("avx512_bf16")) and not is_depthwise


def precision(device: torch.device, *, halved: bool) -> torch.autocast:
    """Return the autocast context of a device: bfloat16 or none."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=halved)


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Run a block with seeded, deterministic torch operations, and put the old state back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    fills = settings.fill_uninitialized_memory
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling every new tensor costs time and changes nothing here: none is read before it is written.
        settings.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=only_warned)
            settings.fill_uninitialized_memory = fills
