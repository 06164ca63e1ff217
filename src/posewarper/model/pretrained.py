"""Trained weights that a backbone starts from: a file of timm's, or timm's own from Hugging Face."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import timm
import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from posewarper.crops import IMAGENET_MEAN, IMAGENET_STD
from posewarper.errors import ConfigError, ModelError
from posewarper.model.backbone import build_backbone, trunk_of, trunk_options
from posewarper.options import NetworkConfig

PathLike = str | os.PathLike[str]


def read_state(path: PathLike, what: str, fix: str) -> Mapping[str, Any]:
    """Return the state dict that a file holds; nothing in it is executed.

    Args:
        path: a ``.pth`` file.
        what: whose weights they should be, for messages.
        fix: what to do where the file is no use.

    Raises:
        ModelError: if the file is missing, cannot be read or holds something else.
    """
    try:
        check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"there are no such weights of {what}", path=path, fix=fix) from error
    except Exception as error:  # what is damaged fails in any way
        got = _first_sentence(error)
        raise ModelError("cannot read these weights", path=path, got=got, fix=fix) from error
    if not isinstance(state, Mapping):
        got = f"a {type(state).__name__}"
        raise ModelError(f"these are not weights of {what}", path=path, got=got, fix=fix)
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


def downloaded_state(weights: WeightsEnum, what: str, fix: str) -> Mapping[str, Any]:
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
            fix=fix,
        ) from error


def load_state(
    network: nn.Module, state: Mapping[str, Any], path: PathLike | None, what: str, fix: str
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
            fix=fix,
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


NONE, IMAGENET = "none", "imagenet"
# As timm looks for them: in its repositories, and within a file, where averaged weights come first.
_FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
_WITHIN = ("state_dict_ema", "model_ema", "state_dict", "model")

RGB = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class BackboneWeights:
    """Weights that fit a backbone, read and checked.

    Args:
        source: where they come from: the file as it was named, or timm's repository on Hugging Face.
        sha256: of the file.
        mean: of RGB from 0 to 1 that the network was trained with.
        std: of RGB, likewise.
        state: every parameter and buffer of the part of the backbone that is timm's.
    """

    source: str
    sha256: str
    mean: RGB
    std: RGB
    state: Mapping[str, Tensor]

    def load_into(self, backbone: nn.Module) -> None:
        """Set all that is timm's in a backbone as :func:`build_backbone` returns it for the same crops."""
        trunk_of(backbone).load_state_dict(dict(self.state))


def read_backbone_weights(network: NetworkConfig, *, trains: bool = True) -> BackboneWeights | None:
    """Read the weights that a network's backbone is to start from, and check that they fit it.

    Nothing in a file is executed, and the caller's random numbers stay as they are.

    Args:
        network: names the backbone and the weights: ``none``, ``imagenet`` or a ``.safetensors``, ``.pth`` or
            ``.pt`` file of that backbone with timm's names. ``imagenet`` stands for the weights that timm has
            for it first; they are taken from the cache of Hugging Face or else downloaded into it.
        trains: whether a network is going to be trained at all.

    Returns:
        The weights; None for ``none``, random ones.

    Raises:
        ConfigError: if there are weights to start from, but nothing is trained.
        ModelError: if they are missing, damaged, cannot be downloaded or belong to another network.
    """
    if network.backbone_weights == NONE:
        return None
    if not trains:
        raise ConfigError(
            "weights to start the backbone from are of no use where no network is trained",
            expected=f"{NONE!r} with a model that is given, the effort fast, or methods without a network",
            got=network.backbone_weights,
            fix="leave out --backbone-weights; or give no model, and the effort normal or best",
        )
    # What is wrong with the backbone itself is said here.
    with torch.device("meta"):
        trunk = trunk_of(build_backbone(network.backbone, network.crop_size)[0])
    if network.backbone_weights == IMAGENET:
        path, source = _fetch(network.backbone)
    else:
        path = source = network.backbone_weights
    state = _read(path, network.backbone)
    known = timm.get_pretrained_cfg(network.backbone)
    with open(path, "rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    return BackboneWeights(
        source,
        sha256,
        _rgb(known.mean) if known else IMAGENET_MEAN,
        _rgb(known.std) if known else IMAGENET_STD,
        _fitted(state, trunk, network, path),
    )


def _rgb(values: tuple[float, ...]) -> RGB:
    red, green, blue = values
    return red, green, blue


def _fix(backbone: str) -> str:
    return (
        f"give a file with weights of timm's {backbone} (.safetensors, .pth), {IMAGENET!r} for timm's own, "
        f"or {NONE!r} to start from random weights"
    )


def _fetch(backbone: str) -> tuple[str, str]:
    """Return the file with timm's weights of a backbone, and the name of their repository.

    Raises:
        ModelError: if timm has none, or they are not in the cache and cannot be downloaded.
    """
    known = timm.get_pretrained_cfg(backbone)
    if known is None or not known.hf_hub_id:
        url = known.url if known is not None else None
        raise ModelError(
            f"timm has no weights of {backbone} on Hugging Face",
            got=f"weights at {url} alone" if url else "no weights at all",
            fix=(f"fetch {url} and give that file" if url else f"give a file with weights of {backbone}")
            + f", take another backbone, or {NONE!r} to start from random weights",
        )
    repository, _, revision = known.hf_hub_id.partition("@")
    names = (known.hf_hub_filename,) if known.hf_hub_filename else _FILE_NAMES
    for name in names:
        # What is there is used as it is: asking for news of it takes a minute where there is no network.
        cached = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return cached, repository
    try:
        return _download(repository, names, revision or None), repository
    except Exception as error:  # no network, a proxy, a full disk, a repository that is gone: all is told
        raise _not_fetched(backbone, repository, names[0], error) from error


def _download(repository: str, names: Sequence[str], revision: str | None) -> str:
    """Download the first of these files that the repository has."""
    *others, last = names
    for name in others:
        try:
            return hf_hub_download(repository, name, revision=revision)
        except LocalEntryNotFoundError:  # an EntryNotFoundError, but here it is the network that is not there
            raise
        except EntryNotFoundError:
            continue
    return hf_hub_download(repository, last, revision=revision)


def _not_fetched(backbone: str, repository: str, name: str, error: Exception) -> ModelError:
    return ModelError(
        f"timm's weights of {backbone} are not on this machine and cannot be downloaded",
        path=constants.HF_HUB_CACHE,
        expected=f"{name} of {repository} in this folder, the cache of Hugging Face (HF_HOME moves it)",
        got=_first_line(error),
        fix=f"on a machine with a network fetch https://huggingface.co/{repository}/resolve/main/{name} and "
        f"give the file in place of {IMAGENET!r} (or copy the cache); or take {NONE!r}, random weights",
    )


def _read(path: str, backbone: str) -> dict[str, Tensor]:
    """Return the tensors of a file by the names that timm gives them.

    Raises:
        ModelError: if the file is missing, cannot be read or holds no tensors.
    """
    what, fix = f"the backbone {backbone}", _fix(backbone)
    if path.lower().endswith(".safetensors"):
        content = _read_safetensors(path, what, fix)
    else:
        # timm's own training writes its options beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = read_state(path, what, fix)
    within = next((content[key] for key in _WITHIN if isinstance(content.get(key), Mapping)), content)
    tensors = {str(name): value for name, value in within.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(
            f"these are not weights of {what}",
            path=path,
            expected="tensors by name, or such under state_dict or model",
            got=f"no tensors but {', '.join(map(str, list(content)[:6])) or 'nothing'}",
            fix=fix + " (a model of posewarper's goes with --model)",
        )
    return clean_state_dict(tensors)


def _read_safetensors(path: str, what: str, fix: str) -> Mapping[str, Any]:
    if not os.path.exists(path):
        raise ModelError(f"there are no such weights of {what}", path=path, fix=fix)
    try:
        return load_file(path)
    except Exception as error:  # safetensors has an error of its own beside those of the system
        raise ModelError("cannot read these weights", path=path, got=_first_line(error), fix=fix) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]


def _fitted(
    state: Mapping[str, Tensor], trunk: nn.Module, network: NetworkConfig, path: str
) -> dict[str, Tensor]:
    """Return what a trunk holds after timm has loaded the weights into it.

    Raises:
        ModelError: if any parameter is not set by them, or they are those of a deeper network.
    """
    needed = [name for name, _ in trunk.named_parameters()]
    needed += [name for name, _ in trunk.named_buffers() if name.endswith(("running_mean", "running_var"))]
    _refuse_deeper(state, network.backbone, path)
    try:
        loaded = _loaded(state, network)
        # timm renames and resizes on loading, and does not say which parameters it has set: those that turn
        # into NaN when the file holds nothing else.
        marks = {n: torch.full_like(v, torch.nan) if v.is_floating_point() else v for n, v in state.items()}
        marked = _loaded(marks, network)
    except Exception as error:  # other shapes: RuntimeError; renaming what is not there: KeyError, ...
        got = next((line for line in str(error).split("\n") if "size mismatch" in line), _first_line(error))
        raise _other_network(state, network.backbone, path, trunk, needed[0], got.strip()) from error
    missing = [name for name in needed if not marked[name].isnan().all()]
    if missing:
        got = f"{len(needed) - len(missing)} of {len(needed)} tensors that it needs"
        raise _other_network(state, network.backbone, path, trunk, missing[0], got)
    broken = [name for name in needed if not loaded[name].isfinite().all()]
    if broken:
        raise ModelError(
            f"{len(broken)} tensors hold values that are no numbers (NaN or infinite)",
            path=path,
            got=", ".join(broken[:5]),
            fix=_fix(network.backbone),
        )
    return {name: loaded[name] for name in trunk.state_dict()}


def _loaded(state: Mapping[str, Tensor], network: NetworkConfig) -> dict[str, Tensor]:
    """Return all tensors of timm's network with these weights, by the names of the trunk."""
    with torch.random.fork_rng(devices=[]), _silenced(logging.getLogger("timm")):
        built = timm.create_model(
            network.backbone,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": dict(state)},
            **trunk_options(network.backbone, network.crop_size),
        )
    return built.state_dict()


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    """Keep timm from warning of the classifier's weights, which the trunk has no place for."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _refuse_deeper(state: Mapping[str, Tensor], backbone: str, path: str) -> None:
    """Refuse weights of a network with more blocks, of which the first would be taken for these."""
    with torch.device("meta"):
        own = timm.create_model(backbone, pretrained=False).state_dict()
    parts = {name.partition(".")[0] for name in own if name in state}
    more = [n for n in state if n not in own and n.partition(".")[0] in parts and n.endswith(".weight")]
    # Where timm would rename some, names tell nothing.
    absent = [n for n in own if n not in state and n.partition(".")[0] in parts and n.endswith(".weight")]
    if more and not absent:
        raise ModelError(
            f"these are weights of another network than {backbone}, with more layers",
            path=path,
            expected=f"no tensors beside the {len(own)} of {backbone}",
            got=f"{len(state)} tensors, among them {more[0]} {tuple(state[more[0]].shape)}",
            fix=_fix(backbone),
        )


def _other_network(
    state: Mapping[str, Tensor], backbone: str, path: str, trunk: nn.Module, example: str, got: str
) -> ModelError:
    names = list(state)
    first, last = names[0], names[-1]
    known = timm.get_pretrained_cfg(backbone)
    fixed = known is not None and known.fixed_input_size
    return ModelError(
        f"these are not weights of the backbone {backbone}",
        path=path,
        expected=f"{example} {tuple(trunk.state_dict()[example].shape)} and all other tensors of {backbone}",
        got=f"{got}; the file holds {len(state)}, from {first} {tuple(state[first].shape)} to "
        f"{last} {tuple(state[last].shape)}",
        fix=_fix(backbone)
        + (" (some networks take their weights with square crops of one size alone)" if fixed else ""),
    )
