"""The options of ``predict`` have the defaults of the settings, which `cli/predict.py` may not import."""

from __future__ import annotations

import inspect

import pytest

from posewarper.cli import predict
from posewarper.options import ClipPredictionConfig, PredictionConfig


@pytest.mark.parametrize("settings", [ClipPredictionConfig, PredictionConfig])
def test_the_options_have_the_defaults_of_the_settings(settings):
    options = inspect.signature(predict.run).parameters
    shared = set(settings.model_fields) & set(options) - {"nms_oks"}  # whose default differs by use
    assert len(shared) >= 4
    for name in shared:
        assert options[name].default == settings.model_fields[name].default, name
