"""The options of ``predict`` have the defaults of the settings, which `cli/predict.py` may not import."""

from __future__ import annotations

import inspect

import pytest

from posewarper.cli import predict
from posewarper.options import ClipPredictionConfig, PredictionConfig


@pytest.mark.parametrize(
    ("settings", "own"),
    [(ClipPredictionConfig, predict._OF_VIDEOS), (PredictionConfig, predict._OF_DATASETS)],
)
def test_the_options_have_the_defaults_of_the_settings(settings, own):
    options = inspect.signature(predict.run).parameters
    shared = set(settings.model_fields) & set(options) - {"nms_oks"}  # whose default differs by use
    assert len(shared) >= 4
    for name in shared:
        default = settings.model_fields[name].default
        assert options[name].default == default, name
        assert own.get(name, default) == default, name
