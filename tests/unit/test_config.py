"""Settings: unknown names and impossible values are refused, and told how to fix."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from posewarper.cli.common import Unlabelled
from posewarper.errors import ConfigError
from posewarper.formats.records import UNLABELLED, LabelFile
from posewarper.options import EFFORTS, ClipSettings, FitConfig, NetworkConfig, effort_config


def test_plain_values_are_read_and_the_rest_keeps_its_default():
    config = FitConfig.read({"pose_iterations": 7, "sigma": 1})
    assert (config.pose_iterations, config.sigma) == (7, 1.0)
    assert config == FitConfig(pose_iterations=7, sigma=1.0)
    assert NetworkConfig.read({"crop_size": [64, 96]}).crop_size == (64, 96)


def test_an_unknown_name_is_refused_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"did you mean pose_iterations\?"):
        FitConfig.read({"pose_iteration": 3})
    with pytest.raises(ConfigError, match="use one of the names expected") as caught:
        FitConfig.read({"zzz": 3})
    assert "warp_batch" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (FitConfig, "pose_iterations", -1),
        (FitConfig, "pose_iterations", 1.5),
        (FitConfig, "pose_learning_rate", 0),
        (FitConfig, "pose_learning_rate", float("nan")),
        (FitConfig, "sigma", float("inf")),
        (FitConfig, "scale", 1),  # a crop of no size
        (FitConfig, "flip", 1.1),
        (FitConfig, "half_body", "often"),
        (NetworkConfig, "head_width", 0),
        (NetworkConfig, "crop_size", [64]),
    ],
)
def test_impossible_values_are_refused_by_name(settings, name, value):
    with pytest.raises(ConfigError) as caught:
        settings.read({name: value})
    text = str(caught.value)
    assert name in text
    assert "expected" in text
    assert "Traceback" not in text


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        FitConfig().sigma = 1.0  # type: ignore[misc]


def test_settings_survive_the_way_through_plain_values():
    for config in EFFORTS.values():
        assert FitConfig.read(config.model_dump()) == config


def test_efforts_train_more_and_more_and_the_lowest_nothing():
    assert set(EFFORTS) == {"fast", "normal", "best"}
    assert effort_config("fast").pose_iterations == effort_config("fast").warp_iterations == 0
    normal, best = effort_config("normal"), effort_config("best")
    assert 0 < normal.pose_iterations < best.pose_iterations
    assert 0 < normal.warp_iterations < best.warp_iterations


def test_an_unknown_effort_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="fast, normal, best"):
        effort_config("medium")


def test_what_unlabelled_keypoints_may_be_is_the_same_everywhere():
    # Written more than once, since the command line is to start without what reads labels.
    assert tuple(kind.value for kind in Unlabelled) == UNLABELLED
    assert get_args(ClipSettings.model_fields["unlabelled"].annotation) == UNLABELLED
    assert LabelFile("labels.json").unlabelled == ClipSettings.model_fields["unlabelled"].default
