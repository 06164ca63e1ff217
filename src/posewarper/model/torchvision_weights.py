"""Weights of torchvision's networks: from a file, or downloaded by torchvision into torch.hub's folder."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torchvision.models import WeightsEnum

from posewarper.errors import ModelError

PathLike = str | os.PathLike[str]


def read_state(path: PathLike, what: str, mend: str) -> Mapping[str, Any]:
    """Return the state dict that a file holds; nothing in it is executed.

    Args:
        path: a ``.pth`` file.
        what: whose weights they should be, for messages.
        mend: what to do where the file is no use.

    Raises:
        ModelError: if the file is missing, cannot be read or holds something else.
    """
    try:
        check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"there are no such weights of {what}", path=path, mend=mend) from error
    except Exception as error:  # what is damaged fails in any way
        got = _first_sentence(error)
        raise ModelError("cannot read these weights", path=path, got=got, mend=mend) from error
    if not isinstance(state, Mapping):
        got = f"a {type(state).__name__}"
        raise ModelError(f"these are not weights of {what}", path=path, got=got, mend=mend)
    return state


def check_sums(path: PathLike) -> None:
    """Check the sums that torch writes into a file and does not look at.

    Raises:
        BadZipFile: if one is wrong; a flipped bit would load as another weight.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the check sum of {damaged} is wrong")


def downloaded_state(weights: WeightsEnum, what: str, mend: str) -> Mapping[str, Any]:
    """Return torchvision's own weights, from the cache of torch.hub or else from its server.

    Raises:
        ModelError: if they are not there, or damaged, and cannot be downloaded.
    """
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # no network, a broken transfer, or a damaged file of an earlier one
        raise ModelError(
            f"the weights of {what} are not on this machine, or damaged, and cannot be downloaded",
            path=os.path.join(hub_folder(), weights.url.rpartition("/")[2]),
            got=_first_sentence(error),
            mend=mend,
        ) from error


def load_state(
    network: nn.Module, state: Mapping[str, Any], path: PathLike | None, what: str, mend: str
) -> None:
    """Set all parameters of a network; names and shapes must be its own.

    Raises:
        ModelError: if they are not.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ModelError(
            f"these are not weights of {what}",
            path=path,
            expected=_described(network.state_dict()),
            got=_described(state),
            mend=mend,
        ) from error


def hub_folder() -> str:
    """Return the folder to which torchvision downloads weights."""
    return os.path.join(torch.hub.get_dir(), "checkpoints")


def _described(state: Mapping[str, Any]) -> str:
    # The last parameters are those that another number of categories changes.
    names = list(state)
    last = names[-1] if names else None
    shape = tuple(state[last].shape) if last is not None and hasattr(state[last], "shape") else ""
    return f"{len(names)} parameters, from {names[0] if names else None} to {last} {shape}".rstrip()


def _first_sentence(error: Exception) -> str:
    # What torch adds is advice to read the file unsafely.
    return (str(error) or type(error).__name__).strip().split("\n")[0].split(". ")[0][:200]
