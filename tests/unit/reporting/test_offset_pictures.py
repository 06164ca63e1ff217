"""Offsets in pictures: they are measured around the target's peak, and turned round to show the motion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posewarper.errors import ModelError, OutputError
from posewarper.heatmaps import decode
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.reporting.network_pictures import (
    MADE_UP_STEP,
    check_head,
    made_up_pair,
    probe_offsets,
    tabulate_offsets,
    write_offset_picture,
)
from posewarper.skeletons import Skeleton
from posewarper.video.images import read_image

SKELETON = Skeleton(("nose", "left_paw", "right_paw", "tail"))
SIZE = (128, 96)


@pytest.fixture
def model() -> PoseWarper:
    torch.manual_seed(0)
    small = {"head_width": 8, "head_blocks": 1, "head_dilations": (1, 2)}
    return PoseWarper(ModelSpec("hrnet_w18_small", SKELETON, SIZE, 2.0, **small, trained={"warp": 1})).eval()


@pytest.fixture
def shifting(model: PoseWarper) -> PoseWarper:
    """A head whose second dilation reads each keypoint 2 pixels to the left and 1 pixel below, everywhere."""
    head = model.warp_head
    with torch.no_grad():
        # Features that are 1 throughout, by way of the last batch norm.
        for norm in (head.residual_stack[0].bn2, head.residual_stack[0].downsample[1]):  # type: ignore[index]
            norm.weight.zero_()
            norm.bias.fill_(0.5)
        offsets = head.offsets[1].weight.unflatten(0, (len(SKELETON), 9, 2))
        offsets[:, :, 0, :, 1, 1], offsets[:, :, 1, :, 1, 1] = 1 / 8, -2 / 8
    return model


def test_made_up_frames_move_every_keypoint_in_a_direction_of_its_own(model):
    (source, heights), (target, _) = (decode(h[0].numpy()) for h in made_up_pair(model))
    assert heights.min() > 0.9
    expected = MADE_UP_STEP * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    np.testing.assert_allclose(target - source, expected, atol=0.05)
    assert min(np.abs(a - b).max() for n, a in enumerate(source) for b in source[:n]) > 8


def test_offsets_are_turned_round_and_x_comes_first(shifting):
    source, target = made_up_pair(shifting)
    probe = probe_offsets(shifting, source, target)
    assert probe.reads.shape == (2, 4, 2, 32, 24)
    np.testing.assert_allclose(probe.reads[1, :, 0], -2, atol=1e-5)
    np.testing.assert_allclose(probe.reads[1, :, 1], 1, atol=1e-5)
    np.testing.assert_allclose(probe.reads[0], 0, atol=1e-6)
    rows = tabulate_offsets(probe)
    assert [row["keypoint"] for row in rows] == list(SKELETON.names)
    assert [row["moved by"] for row in rows] == ["+3.0, +0.0", "+0.0, +3.0", "-3.0, +0.0", "+0.0, -3.0"]
    for row in rows:
        assert (row["offset d=1"], row["offset d=2"]) == ("+0.0, +0.0", "+2.0, -1.0")
        # The mean of a map that stays and one that moves lies halfway.
        x, y = (float(n) for n in row["warped by"].split(","))
        assert 0.8 <= x <= 1.2 and -0.7 <= y <= -0.3


def test_taps_count_by_the_kernel_with_which_a_keypoint_reads_its_own_map(shifting):
    with torch.no_grad():
        kernel, offsets = shifting.warp_head.kernels[1], shifting.warp_head.offsets[1].weight
        kernel[2, 2, 1, 1], kernel[2, 2, 0, 0], kernel[2, 1] = 0.25, -0.75, 100.0
        offsets.unflatten(0, (4, 9, 2))[2, 0, :, :, 1, 1] = 6 / 8  # the tap above on the left: 6 both ways
    reads = probe_offsets(shifting, *made_up_pair(shifting)).reads
    np.testing.assert_allclose(reads[1, 2, :, 5, 5], [0.75 * 6 - 0.25 * 2, 0.75 * 6 + 0.25], atol=1e-5)
    np.testing.assert_allclose(reads[1, 1, :, 5, 5], [-2, 1], atol=1e-5)


def test_a_keypoint_that_is_not_seen_is_said_to_be_so(shifting, tmp_path):
    source, target = made_up_pair(shifting)
    target[:, 1] = 0
    probe = probe_offsets(shifting, source, target)
    row = tabulate_offsets(probe)[1]
    assert (row["moved by"], row["warped by"], row["offset d=2"]) == ("not seen", "", "+0.0, +0.0")
    write_offset_picture(tmp_path / "offsets.png", probe)


def test_the_picture_has_arrows_where_there_are_offsets(shifting, tmp_path):
    probe = probe_offsets(shifting, *made_up_pair(shifting))
    write_offset_picture(tmp_path / "offsets.png", probe)
    image = read_image(tmp_path / "offsets.png").astype(int)
    orange = (np.abs(image - (255, 140, 40)).sum(-1) < 60).sum(0)
    # Columns: names, then source (the motion), two dilations and the result, 138 pixels each.
    motion, first, second, warped = (orange[150 + 138 * n : 288 + 138 * n].sum() for n in range(4))
    assert second > first > 0 and motion > 0 and warped == 0
    with pytest.raises(OutputError, match=r"\.png or \.jpg"):
        write_offset_picture(tmp_path / "offsets.txt", probe)


def test_a_head_without_training_is_refused(model):
    check_head(model, "model.pt")
    untrained = PoseWarper(
        ModelSpec("hrnet_w18_small", SKELETON, SIZE, 2.0, head_blocks=1, trained={"pose": 3})
    )
    with pytest.raises(ModelError, match="was not trained"):
        check_head(untrained, "model.pt")
