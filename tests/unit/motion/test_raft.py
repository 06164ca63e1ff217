"""RAFT around torchvision's network: sizes that it does not take, weights that are not there. Untrained."""

from __future__ import annotations

import urllib.error

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large, raft_small

from posewarper.errors import ModelError
from posewarper.motion.raft import load_raft, raft_flow


@pytest.fixture(scope="module")
def small():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield raft_small(weights=None).eval()
    torch.set_num_threads(threads)


def noise(seed: int, size=(50, 140)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def test_any_size_is_padded_by_its_border_and_cut_again(small) -> None:
    source, target = noise(0), noise(1)
    flow = raft_flow(small, source, target)
    assert flow.shape == (50, 140, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
    padded = [np.pad(image, ((0, 78), (0, 4), (0, 0)), mode="edge") for image in (source, target)]
    inputs = [torch.from_numpy(image / 255 * 2 - 1).permute(2, 0, 1)[None].float() for image in padded]
    with torch.no_grad():
        expected = small(*inputs)[-1][0].numpy()
    np.testing.assert_allclose(flow[..., 0], expected[0, :50, :140], atol=1e-4)  # x first
    np.testing.assert_allclose(flow[..., 1], expected[1, :50, :140], atol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    assert np.abs(raft_flow(small, target, source) - flow).max() > 1e-3  # source and target differ


@pytest.mark.parametrize("build", [raft_small, raft_large])
def test_weights_of_both_sizes_are_told_apart(build, tmp_path) -> None:
    given = build(weights=None).state_dict()
    torch.save(given, tmp_path / "raft.pth")
    model = load_raft(tmp_path / "raft.pth")
    assert not model.training
    loaded = model.state_dict()
    assert loaded.keys() == given.keys()
    assert all(torch.equal(loaded[name], given[name]) for name in given)


def test_unusable_files_are_explained(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"no such file[\s\S]*raft_large_C_T_SKHT_V2"):
        load_raft(tmp_path / "absent.pth")
    path = tmp_path / "raft.pth"
    path.write_bytes(b"\x00damaged")
    with pytest.raises(ModelError, match=r"cannot read this file[\s\S]*TORCH_HOME"):
        load_raft(path)
    torch.save([1], path)
    with pytest.raises(ModelError, match="a list"):
        load_raft(path)
    torch.save({"module.fnet.conv1.weight": torch.zeros(1)}, path)  # the authors' own names
    with pytest.raises(ModelError, match=r"not hold weights of torchvision's RAFT[\s\S]*module.fnet.conv1"):
        load_raft(path)


def test_without_a_network_it_is_said_where_the_weights_go(tmp_path, monkeypatch) -> None:
    def fails(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fails)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be downloaded[\s\S]*no network[\s\S]*method dis") as caught:
        load_raft()
    assert str(tmp_path / "checkpoints") in str(caught.value)
    place = tmp_path / "checkpoints" / "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
    given = raft_large(weights=None).state_dict()
    torch.save(given, place)  # as the message says
    assert torch.equal(load_raft().state_dict()["update_block.flow_head.conv1.bias"],
                       given["update_block.flow_head.conv1.bias"])  # fmt: skip
