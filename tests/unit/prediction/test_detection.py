"""Boxes by torchvision's detectors: weights, categories, and exact coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import detection

from posewarper.errors import ConfigError, ModelError
from posewarper.prediction.boxes import Detector, detect, load_detector

SMALL = "ssdlite320_mobilenet_v3_large"
SMALL_FILE = "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"


class Stub(nn.Module):
    """Says what it is told to, and remembers what it was shown."""

    def __init__(self, boxes: list[list[float]], labels: list[int], scores: list[float]) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))
        self.said = {
            "boxes": torch.tensor(boxes).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "scores": torch.tensor(scores),
        }

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        (self.seen,) = images
        return [self.said]


CATEGORIES = ("__background__", "person", "N/A", "dog")
FOUND = Stub(
    [[0, 0, 6, 4], [1, 2, 3, 4], [2, 1, 2.5, 3.25], [1, 1, 1, 3], [0, 1, 2, 3]],
    [1, 3, 1, 1, 1],
    [0.75, 0.5, 1.0, 0.8, 0.25],
)


def test_boxes_are_counted_from_the_centre_of_the_first_pixel() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    boxes, scores = detect(Detector(FOUND, CATEGORIES), image)
    # The whole image is (-0.5, -0.5, 6, 4) here; the box without width and the low score are left out.
    assert boxes.tolist() == [[1.5, 0.5, 0.5, 2.25], [-0.5, -0.5, 6, 4]]
    assert scores.tolist() == [1.0, 0.75]
    assert FOUND.seen.shape == (3, 4, 6)
    np.testing.assert_allclose(FOUND.seen[:, 2, 5], image[2, 5] / 255, rtol=1e-6)


def test_categories_and_thresholds() -> None:
    detector, image = Detector(FOUND, CATEGORIES), np.zeros((4, 6, 3), np.uint8)
    boxes, scores = detect(detector, image, "dog")
    assert boxes.tolist() == [[0.5, 1.5, 2, 2]] and scores.tolist() == [0.5]
    assert detect(detector, image, threshold=0.25)[1].tolist() == [1.0, 0.75, 0.25]
    none, no_scores = detect(detector, image, threshold=1.1)
    assert none.shape == (0, 4) and no_scores.shape == (0,)
    with pytest.raises(ConfigError, match="did you mean dog"):
        detect(detector, image, "dogs")
    with pytest.raises(ConfigError, match="no such category"):
        detect(detector, image, "N/A")


def test_nobody_is_found() -> None:
    boxes, scores = detect(Detector(Stub([], [], []), CATEGORIES), np.zeros((4, 6, 3), np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,) and boxes.dtype == np.float64


@pytest.fixture(scope="module")
def made_up() -> dict[str, torch.Tensor]:
    """Random weights whose detector is sure of something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
        state = network.state_dict()
        for name, tensor in state.items():
            if name.startswith("head.classification_head") and name.endswith("1.bias"):
                tensor += 3 * torch.randn(tensor.shape)
    return state


def test_weights_of_a_file_and_of_the_cache_are_torchvisions_own_network(
    tmp_path: Path, made_up: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / SMALL_FILE
    cached.parent.mkdir(parents=True)
    torch.save(made_up, cached)
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    theirs = detection.ssdlite320_mobilenet_v3_large(weights="DEFAULT").eval()
    with torch.inference_mode():
        expected = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    best = int(expected["labels"][0])
    for weights in (cached, None):
        detector = load_detector(SMALL, weights)
        assert not detector.network.training and len(detector.categories) == 91
        name = detector.categories[best]
        detector = Detector(detector.network, tuple(f"{i} {c}" for i, c in enumerate(detector.categories)))
        boxes, scores = detect(detector, image, f"{best} {name}", threshold=0.1)
        own = (expected["labels"] == best) & (expected["scores"] >= 0.1)
        corners = expected["boxes"][own].double().numpy()
        assert len(scores) > 0
        np.testing.assert_array_equal(scores, expected["scores"][own].double().numpy())
        np.testing.assert_allclose(boxes[:, :2] + 0.5, corners[:, :2], atol=1e-9)
        np.testing.assert_allclose(boxes[:, 2:], corners[:, 2:] - corners[:, :2], atol=1e-9)


def test_detectors_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="did you mean fasterrcnn_resnet50_fpn"):
        load_detector("fasterrcnn_resnet50")


def test_weights_that_do_not_fit_are_explained(tmp_path: Path, made_up: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ModelError, match=r"no such file[\s\S]*weights of the detector ssdlite320") as caught:
        load_detector(SMALL, tmp_path / "none.pth")
    assert f"fetch https://download.pytorch.org/models/{SMALL_FILE}" in str(caught.value)
    assert "--detector-weights FILE" in str(caught.value)
    (tmp_path / "damaged.pth").write_bytes(b"PK damaged")
    with pytest.raises(ModelError, match=r"damaged\.pth: cannot read this file"):
        load_detector(SMALL, tmp_path / "damaged.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match=r"list\.pth: this file does not hold weights[\s\S]*a list"):
        load_detector(SMALL, tmp_path / "list.pth")
    some = dict(list(made_up.items())[1:])
    torch.save(some, tmp_path / "some.pth")
    with pytest.raises(
        ModelError, match=rf"some\.pth: this file does not hold[\s\S]*{len(made_up)} parameters"
    ) as caught:
        load_detector(SMALL, tmp_path / "some.pth")
    assert f"got:      {len(some)} parameters" in str(caught.value)


def test_without_a_network_the_message_says_what_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("no network. Try again")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fails)
    with pytest.raises(ModelError, match="cannot be downloaded") as caught:
        load_detector(SMALL)
    assert str(caught.value).startswith(str(tmp_path / "hub" / "checkpoints" / SMALL_FILE))
    assert "got:      no network\n" in str(caught.value)
    assert "--detector-weights FILE" in str(caught.value)
