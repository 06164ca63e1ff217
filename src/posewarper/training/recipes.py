"""Recipes from YAML files and ``key=value`` words, and the lists of clips that they name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from posewarper.errors import ConfigError, did_you_mean, unknown_name
from posewarper.formats.lists import read_list
from posewarper.formats.records import LabelFile, load_yaml, read_text
from posewarper.options import SOURCES, STAGES, ClipSettings, DataSettings, ExperimentSettings, Recipe

SPLITS = ("train", "val")


def choose_clips(data: DataSettings) -> tuple[list[ClipSettings], list[ClipSettings]]:
    """Return the clips to learn from and those to validate on.

    Raises:
        ConfigError: if the file that lists them cannot be used, or a video is in both lists.
    """
    clips, validation = list(data.clips), list(data.validation_clips)
    if data.clips_file is not None:
        listed = read_clip_list(data.clips_file)
        clips += listed["train"]
        validation += listed["val"]
    known = {os.path.realpath(clip.video) for clip in clips}
    for clip in validation:
        if os.path.realpath(clip.video) in known:
            raise ConfigError(
                "this video is in both lists: the one for training and the one for validation",
                path=clip.video,
                expected="a split by video, so that the figures tell how well others are done",
                got="the same video in both lists",
                fix="leave it out of one of them",
            )
    return clips, validation


def label_file(clip: ClipSettings) -> LabelFile:
    """Return the labels of a clip with what the recipe says about them."""
    return LabelFile(clip.labels, clip.labels_of, clip.frame_number, unlabelled=clip.unlabelled)


_NO_PATHS = ("labels_of", "unlabelled")  # columns of a list


def read_clip_list(path: str | os.PathLike[str]) -> dict[str, list[ClipSettings]]:
    """Read a list of videos and their labels; returns ``train`` and ``val`` -> clips, in its order.

    :func:`posewarper.formats.lists.read_list` reads it; its columns are ``video``, ``labels`` and, if you
    like, ``split`` (train or val), ``pseudo_labels``, ``labels_of`` and ``unlabelled``. Relative paths begin
    at the file's folder. Rows without a split are for training.

    Raises:
        ConfigError: if there is no such file, or a row lacks or misspells something.
    """
    place = Path(path)
    found: dict[str, list[ClipSettings]] = {split: [] for split in SPLITS}
    columns = ("video", "labels", "split", "pseudo_labels", *_NO_PATHS)
    rows = read_list(place, columns, ("video", "labels"))
    for where, values in rows:
        split = values.pop("split", "train")
        if split not in SPLITS:
            raise unknown_name(f"unknown split in {where} of this list", split, SPLITS, path=place)
        own = {n: value if n in _NO_PATHS else str(place.parent / value) for n, value in values.items()}
        found[split].append(ClipSettings.read(own, place))
    if not found["train"]:
        raise ConfigError(
            "this list names no video to learn from",
            path=place,
            expected="at least one row whose split is train or empty",
            fix="add rows",
        )
    return found


FOLDER = Path(__file__).parents[1] / "recipes"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without two of its traps: ``1e-4`` is a number, and ``no``, ``on``, ``y`` are text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:bool"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tfTF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.name for path in FOLDER.glob("*.yaml"))


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Return the file of a recipe or of experiments: the path if there is such a file, else the shipped one.

    Raises:
        ConfigError: if there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    full = path.name if path.suffix else f"{path.name}.yaml"
    for shipped in (FOLDER / full, FOLDER / "experiments" / full):
        if path.parent == Path() and shipped.is_file():
            return shipped
    known = shipped_recipes()
    raise ConfigError(
        "there is no such recipe",
        path=name,
        expected=f"a YAML file, or one of {', '.join(known)}",
        fix=did_you_mean(full, known, "check the path"),
    )


def read_recipe(name: str | os.PathLike[str], changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe and change some of its settings.

    Args:
        name: path of a YAML file, or name of a shipped recipe.
        changes: words such as ``train.epochs=3``; values are YAML.

    Raises:
        ConfigError: if there is no such recipe, it is no YAML, a setting is unknown (with the nearest known
            name) or its value is out of its limits.
    """
    path = find_recipe(name)
    values = _read_settings(path)
    for change in changes:
        _apply(values, change)
    return Recipe.read(values, path)


def read_experiment(name: str | os.PathLike[str], changes: Iterable[str] = ()) -> ExperimentSettings:
    """Read the settings of the experiments; arguments and errors as :func:`read_recipe`.

    The changes are for the recipes of all stages, after the file's own.
    """
    path = find_recipe(name)
    settings = ExperimentSettings.read(_read_settings(path), path)
    for stage in settings.stages:
        if stage not in STAGES:
            raise unknown_name("the experiments have no such stage", stage, STAGES, path=path)
    # The file's words for all stages first, then those of the stage, then those of the command line.
    words = {stage: (*settings.changes, *settings.stages.get(stage, ()), *changes) for stage in STAGES}
    return settings.model_copy(update={"changes": (), "stages": words})


def _read_settings(path: Path) -> dict[str, Any]:
    values = load_yaml(read_text(path, "recipe"), path, "recipe", _Loader)
    if not isinstance(values, dict):
        raise ConfigError(
            "this is not a recipe", path=path, expected="settings by name", got=type(values).__name__,
            fix="write it as the shipped ones",
        )  # fmt: skip
    return values


def _apply(values: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign or not key:
        raise ConfigError(
            "this does not change a setting", expected="key=value, such as train.epochs=3", got=change,
            fix="write the key, = and the value without spaces",
        )  # fmt: skip
    *groups, name = key.split(".")
    place = values
    for group in groups:
        inner = place[group] = {} if place.get(group) is None else place[group]
        if not isinstance(inner, dict):
            raise ConfigError(f"{group} is no group of settings", got=change, fix="correct the key")
        place = inner
    # Of two settings of which only one may be given, the one given last counts.
    for rivals in (("batch_per_device", "global_batch"), SOURCES):
        if name in rivals:
            for other in rivals:
                place.pop(other, None)
    place[name] = load_yaml(text, change, "recipe", _Loader)
