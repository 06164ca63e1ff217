"""Any backbone ends at a quarter of the crop, trains whole, and comes back from a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from posewarper import fit
from posewarper.errors import ConfigError, ModelError
from posewarper.model.backbone import (
    PYRAMID_WIDTH,
    WIDTH,
    PyramidBackbone,
    UpsamplingHead,
    build_backbone,
    load_trunk,
    lower_stages,
)
from posewarper.model.checkpoint import load_model, parameters_sha256, save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.options import FitConfig, NetworkConfig
from posewarper.skeletons import POSETRACK, Skeleton, named_skeleton
from posewarper.structures import Labels, Track
from posewarper.training.recipes import read_recipe

SKELETON = Skeleton(("nose", "left_eye", "right_eye"))
SMALL = {"head_width": 8, "head_blocks": 1, "head_dilations": (1, 2)}


def a_model(backbone: str, size: tuple[int, int], seed: int = 0) -> PoseWarper:
    torch.manual_seed(seed)
    return PoseWarper(ModelSpec(backbone, SKELETON, size, 2.0, **SMALL))


# Strides 4, 32, 32, 32, 16, 8, 16; channels last; a map of stride 64 beside; parameters that feed nothing.
@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("hrnet_w18_small", (64, 96), 16),
        ("resnet18", (64, 96), WIDTH),
        ("resnet50", (64, 32), WIDTH),
        ("convnext_atto", (64, 96), WIDTH),
        ("vit_tiny_patch16_224", (64, 48), WIDTH),
        ("vit_small_patch8_224", (24, 32), WIDTH),
        ("vit_tiny_patch16_dinov3_qkvb", (48, 64), WIDTH),
        ("test_mambaout", (64, 96), WIDTH),
        ("levit_128", (64, 96), WIDTH),
        ("pit_ti_224", (64, 96), WIDTH),
    ],
)
def test_maps_are_a_quarter_of_the_crop_and_every_parameter_learns(name, size, channels):
    backbone, found = build_backbone(name, size)
    assert found == channels
    # As before each stage of training: what was to be left alone must not come back by this.
    backbone.requires_grad_(True).train()
    maps = backbone(torch.rand(2, 3, *size))
    assert [tuple(one.shape) for one in maps] == [(2, channels, size[0] // 4, size[1] // 4)]
    maps[0].square().sum().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


def test_what_feeds_nothing_is_no_parameter_and_keeps_its_name():
    # The last norm of this network stands before its classifier.
    backbone, _ = build_backbone("pit_ti_224", (64, 96))
    assert {"trunk.body.norm.weight", "trunk.body.norm.bias"} <= backbone.state_dict().keys()
    assert not any(name.startswith("trunk.body.norm.") for name, _ in backbone.named_parameters())


@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_gradients_switched_off_do_not_make_parameters_useless(switch):
    with switch():
        backbone, _ = build_backbone("test_vit", (64, 48))
    parts = {name.split(".")[0] for name, _ in backbone.named_parameters()}
    assert parts == {"trunk", "upsampling"}


@pytest.mark.parametrize(
    ("name", "size", "doublings", "prefix", "classifier"),
    [
        ("resnet18", (64, 96), 3, "", {"fc.weight", "fc.bias"}),
        (
            *("vit_tiny_patch16_224", (64, 48), 2, "model."),
            {"norm.weight", "norm.bias", "head.weight", "head.bias"},
        ),
    ],
)
def test_the_deepest_map_is_upsampled_and_the_trunk_s_names_are_timm_s(
    name, size, doublings, prefix, classifier
):
    backbone, _ = build_backbone(name, size)
    more = {"img_size": size} if name.startswith("vit") else {}
    whole = timm.create_model(name, pretrained=False, **more).eval()
    state = backbone.trunk.state_dict()
    loaded = whole.load_state_dict({n.removeprefix(prefix): v for n, v in state.items()}, strict=False)
    assert (loaded.unexpected_keys, set(loaded.missing_keys)) == ([], classifier)
    crops = torch.rand(2, 3, *size)
    with torch.inference_mode():
        if prefix:
            whole.norm = nn.Identity()
            tokens = whole.forward_features(crops)[:, 1:]
            deepest = tokens.transpose(1, 2).unflatten(2, (size[0] // 16, size[1] // 16))
        else:
            deepest = whole.forward_features(crops)
        assert deepest.std() > 0.01
        backbone.eval()
        torch.testing.assert_close(backbone(crops)[0], backbone.upsampling(deepest))
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in backbone.upsampling) == doublings


@pytest.mark.parametrize(
    ("name", "near"), [("resnet-50", "resnet50"), ("hrnet_w49", "hrnet_w48"), ("resnet50.tag", "resnet50")]
)
def test_an_unknown_name_is_refused_with_near_ones(name, near):
    with pytest.raises(ModelError, match="unknown backbone") as caught:
        build_backbone(name, (64, 64))
    assert caught.value.got == name
    assert near in caught.value.fix


@pytest.mark.parametrize(
    ("name", "size", "stride"),
    [
        ("hrnet_w18_small", (64, 48), 32),
        ("resnet18", (48, 64), 32),
        ("test_vit", (64, 40), 16),
        ("resnet18", (0, 64), 32),
        ("resnet18", (64, 64, 64), 32),
    ],
)
def test_crops_that_do_not_fit_the_stride_are_refused(name, size, stride):
    with pytest.raises(ConfigError, match=f"multiples of {stride}") as caught:
        build_backbone(name, size)
    assert caught.value.got == " x ".join(map(str, size))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("vit_small_patch14_dinov2", (56, 84), "stride.* 14"),  # 14 doubled and doubled is never 4
        ("mobilevitv2_050", (64, 96), "feature map of 2 x 4"),  # pads to multiples of 64
        ("inception_v3", (128, 96), "feature map of 2 x 1"),  # does not pad at all
        ("nest_tiny", (64, 96), "only handles square"),
    ],
)
def test_networks_whose_maps_do_not_fit_are_refused(name, size, said):
    with pytest.raises(ModelError, match=said) as caught:
        build_backbone(name, size)
    assert name in str(caught.value)


def test_the_seed_alone_decides_the_weights():
    first = parameters_sha256(a_model("test_vit", (64, 48)))
    assert parameters_sha256(a_model("test_vit", (64, 48))) == first
    assert parameters_sha256(a_model("test_vit", (64, 48), seed=1)) != first


@pytest.mark.parametrize(("name", "size"), [("test_resnet", (64, 96)), ("test_vit", (64, 48))])
def test_a_checkpoint_brings_the_network_back(name, size, tmp_path):
    model = a_model(name, size).train()
    crops = torch.rand(2, 3, *size)
    model.heatmaps(crops)  # batch norms have seen something
    save_model(tmp_path / "model.pt", model)
    back = load_model(tmp_path / "model.pt")
    assert back.spec == model.spec
    assert parameters_sha256(back) == parameters_sha256(model)
    assert [n for n, _ in back.named_parameters()] == [n for n, _ in model.named_parameters()]
    with torch.inference_mode():
        heatmaps = back.heatmaps(crops)
        assert heatmaps.shape == (2, 3, *model.spec.heatmap_size)
        assert torch.equal(heatmaps, model.eval().heatmaps(crops))


@pytest.mark.parametrize(("name", "size"), [("test_resnet", (64, 96)), ("test_vit", (64, 48))])
def test_channels_last_and_bfloat16_change_little(name, size):
    model = a_model(name, size).eval()
    nn.init.normal_(model.final_layer.weight)
    crops = torch.rand(2, 3, *size)
    with torch.inference_mode():
        expected = model.heatmaps(crops)
        model = model.to(memory_format=torch.channels_last)
        crops = crops.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(model.heatmaps(crops), expected, rtol=1e-3, atol=1e-3 * expected.std())
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.heatmaps(crops)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - expected).abs().mean() < 0.05 * expected.std()
    rough.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.backbone.parameters())


def test_two_crops_are_learned_by_heart():
    model = a_model("test_resnet", (64, 32)).train()
    crops, wanted = torch.rand(2, 3, 64, 32), torch.zeros(2, 3, 16, 8)
    wanted.view(6, -1)[torch.arange(6), torch.randint(16 * 8, (6,))] = 1
    optimiser = torch.optim.Adam([*model.backbone.parameters(), *model.final_layer.parameters()], 1e-3)
    losses = []
    for _ in range(15):
        loss = (model.heatmaps(crops) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_a_clip_is_fitted_with_another_backbone(moving_video, picture, tmp_path):
    frames = np.array([2, 9])
    keypoints = picture.keypoints([[40, 30], [60, 35], [50, 45]], frames)
    track = Track(frames, keypoints)
    labels = Labels(SKELETON, {0: track}, image_size=picture.size, n_frames=picture.n_frames)
    config = FitConfig(pose_iterations=2, pseudo_iterations=1, warp_iterations=2, pose_batch=2, warp_batch=2)
    network = NetworkConfig(backbone="resnet18", backbone_weights="none", crop_size=(64, 64), **SMALL)
    path = tmp_path / "model.pt"
    model = fit(moving_video, labels, config=config, network=network, device="cpu", checkpoint=path)
    assert model.spec.trained == {"pose": 3, "warp": 2}
    assert model.spec.backbone == "resnet18"
    assert parameters_sha256(load_model(path)) == parameters_sha256(model)


@pytest.mark.parametrize(
    ("recipe", "doublings"), [("posetrack18_resnet50.yaml", 3), ("posetrack18_vitpose_b.yaml", 2)]
)
def test_the_recipes_networks_are_built(recipe, doublings):
    settings = read_recipe(recipe).model
    with torch.device("meta"):
        backbone, channels = build_backbone(settings.backbone, settings.crop_size)
        maps = backbone(torch.rand(1, 3, *settings.crop_size))[0]
    assert maps.shape == (1, channels, settings.crop_size[0] // 4, settings.crop_size[1] // 4)
    assert isinstance(backbone.upsampling, UpsamplingHead)
    assert len(backbone.upsampling) == 3 * doublings
    assert named_skeleton(settings.skeleton) == POSETRACK


# --- the head that doubles feature maps: sizes, channels, and that nothing is shifted ---------------------


@pytest.mark.parametrize("doublings", [1, 2, 3])
def test_each_doubling_doubles_both_sides(doublings):
    head = UpsamplingHead(5, doublings, width=7)
    out = head(torch.rand(2, 5, 3, 4))
    assert out.shape == (2, head.channels, 3 * 2**doublings, 4 * 2**doublings)
    assert head.channels == 7
    assert out.min() >= 0


def test_without_doublings_the_map_leaves_as_it_came():
    head = UpsamplingHead(5, 0)
    features = torch.randn(2, 5, 3, 4)
    assert head.channels == 5
    assert torch.equal(head(features), features)
    assert UpsamplingHead(5, 1).channels == WIDTH == 256


def test_what_is_around_a_pixel_lies_evenly_around_it_when_doubled():
    head = UpsamplingHead(1, 2, width=1).eval()
    for layer in head:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.ones_(layer.weight)
    features = torch.zeros(1, 1, 6, 8)
    features[0, 0, 2, 5] = 1
    with torch.inference_mode():
        out = head(features)[0, 0]
    # The centre of pixel i is at 4 i + 1.5 in a map of four times the size.
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    assert (out * rows).sum() / out.sum() == pytest.approx(2 * 4 + 1.5, abs=1e-5)
    assert (out * columns).sum() / out.sum() == pytest.approx(5 * 4 + 1.5, abs=1e-5)
    assert out[0].sum() == 0


def test_every_parameter_gets_a_gradient_and_the_norms_count_batches():
    head = UpsamplingHead(4, 2, width=6)
    head(torch.rand(2, 4, 3, 4)).square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert {int(v) for n, v in head.named_buffers() if n.endswith("num_batches_tracked")} == {1}


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", (64, 96)), ("convnext_atto", (64, 64)), ("swin_tiny_patch4_window7_224", (224, 224))],
)
def test_a_pyramid_joins_the_maps_of_every_stride(name, size):
    backbone, channels = build_backbone(name, size, "pyramid")
    assert isinstance(backbone, PyramidBackbone)
    assert not backbone.turned
    assert channels == PYRAMID_WIDTH
    found = backbone.eval()(torch.rand(2, 3, *size))[0]
    assert found.shape == (2, channels, size[0] // 4, size[1] // 4)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("name", ["test_vit", "levit_128"])
def test_a_network_without_maps_of_several_strides_is_upsampled(name):
    backbone, _ = build_backbone(name, (64, 64), "pyramid")
    assert type(backbone).__name__ == "UpsampledBackbone"


def test_a_turned_trunk_gives_the_maps_of_the_network_that_pads_as_tensorflow():
    own = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    backbone, _ = build_backbone("tf_efficientnet_lite0", (96, 64), "pyramid")
    assert isinstance(backbone, PyramidBackbone)
    assert backbone.turned
    assert not any(isinstance(module, Conv2dSame) for module in backbone.modules())
    with torch.no_grad():
        for value in own.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.0) if value.ndim == 1 else value.normal_(0, 0.2)
        load_trunk(backbone, own.state_dict())
        backbone.eval()
        crops = torch.rand(2, 3, 96, 64)
        wanted = own(crops)
        found = [features.flip(2, 3) for features in backbone.trunk(crops.flip(2, 3))]
        for one, other in zip(wanted, found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
        joined = backbone.pyramid([features.flip(2, 3) for features in wanted]).flip(2, 3)
        torch.testing.assert_close(
            backbone(crops)[0], joined, rtol=1e-3, atol=1e-4 * float(joined.abs().max())
        )


def test_lower_stages_end_at_an_eighth_of_the_crop():
    backbone, _ = build_backbone("tf_efficientnet_lite0", (64, 64), "pyramid")
    assert isinstance(backbone, PyramidBackbone)
    lower = {id(parameter) for parameter in lower_stages(backbone)}
    names = [name for name, value in backbone.trunk.named_parameters() if id(value) in lower]
    assert {".".join(name.split(".")[:2]) for name in names if name.startswith("blocks")} == {
        "blocks.0",
        "blocks.1",
        "blocks.2",
    }
    assert "conv_stem.weight" in names
    assert len(lower_stages(build_backbone("convnext_atto", (64, 64), "pyramid")[0])) > 10
    assert lower_stages(build_backbone("hrnet_w18_small", (64, 64), "pyramid")[0]) == []


def test_what_the_lower_stages_see_can_be_computed_apart():
    torch.manual_seed(0)
    backbone = build_backbone("tf_efficientnet_lite0", (64, 64), "pyramid")[0].eval()
    assert isinstance(backbone, PyramidBackbone)
    crops, turned = torch.randn(2, 3, 64, 64), []

    def see(given: torch.Tensor) -> list[torch.Tensor]:
        turned.append(given)
        return backbone.lower(given)

    with torch.no_grad():
        whole = backbone(crops)[0]
        backbone.see_lower = see
        torch.testing.assert_close(backbone(crops)[0], whole, rtol=0, atol=0)
        assert [tuple(one.shape[1:]) for one in backbone.lower(crops)] == [(24, 16, 16), (40, 8, 8)]
    torch.testing.assert_close(turned[0], crops.flip(2, 3))
    other, _ = build_backbone("convnext_atto", (64, 64), "pyramid")
    assert isinstance(other, PyramidBackbone) and not len(other.lower_blocks)


def test_an_unknown_neck_is_refused():
    with pytest.raises(ModelError, match="pyramid"):
        build_backbone("resnet18", (64, 64), "pyramyd")
