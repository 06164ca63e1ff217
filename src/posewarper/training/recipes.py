"""Recipes from YAML files and ``key=value`` words."""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from posewarper.errors import ConfigError
from posewarper.options import (
    SOURCES,
    STAGES,
    ClipSettings,
    DataSettings,
    ExperimentSettings,
    Recipe,
    Settings,
)

SPLITS = ("train", "val")
_COLUMNS = ("video", "labels", "split", "pseudo_labels")
_NEEDED = _COLUMNS[:2]
_EXPECTED = "columns video, labels and, if you like, split (train or val) and pseudo_labels"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


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
                "this video is both learned from and validated on",
                path=clip.video,
                expected="a split by video, so that the figures tell how well others are done",
                got="the same video in both lists",
                fix="leave it out of one of them",
            )
    return clips, validation


def read_clip_list(path: str | os.PathLike[str]) -> dict[str, list[ClipSettings]]:
    """Read a list of videos and their labels.

    The file is CSV or TSV with names of columns in its first line, or YAML: a list of such rows. Relative
    paths begin at the file's folder. Rows without a split are for training.

    Args:
        path: the file.

    Returns:
        ``train`` and ``val`` -> clips, in the order of the file.

    Raises:
        ConfigError: if there is no such file, or a row lacks or misspells something.
    """
    place = Path(path)
    found: dict[str, list[ClipSettings]] = {split: [] for split in SPLITS}
    try:
        text = place.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "cannot read this list of clips",
            path=place,
            expected="a CSV, TSV or YAML file",
            got=getattr(error, "strerror", None) or error,
            fix="check data.clips_file",
        ) from error
    for where, row in _rows(place, text):
        values = {key: str(value).strip() for key, value in row.items() if value not in (None, "")}
        strangers = sorted(str(key) for key in row if key not in _COLUMNS)
        missing = [name for name in _NEEDED if name not in values]
        split = values.pop("split", "train")
        if strangers or missing or split not in SPLITS:
            wrong = f"no {' and no '.join(missing)}" if missing else f"split {split}"
            got = f"unknown {', '.join(strangers)}" if strangers else wrong
            raise ConfigError(
                f"{where} of this list of clips cannot be used",
                path=place,
                expected=_EXPECTED,
                got=got,
                fix="correct the row",
            )
        paths = {name: str(place.parent / value) for name, value in values.items()}
        found[split].append(ClipSettings(**paths))
    if not found["train"]:
        raise ConfigError(
            "this list names no video to learn from", path=place, expected=_EXPECTED, fix="add rows"
        )
    return found


def _rows(place: Path, text: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield what to call a row, and its values by column."""
    delimiter = _DELIMITERS.get(place.suffix.lower())
    if delimiter is not None:
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter, skipinitialspace=True, restkey="more")
        for row in reader:
            yield f"line {reader.line_num}", row
        return
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            "this is neither a CSV file nor valid YAML",
            path=place,
            got=" ".join(str(error).split())[:200],
            fix="name a table .csv or .tsv, or correct the YAML",
        ) from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ConfigError(
            "this is no list of clips",
            path=place,
            expected=f"rows with {_EXPECTED}",
            got=type(content).__name__,
            fix="write a CSV file, or a YAML list such as '- {video: a.mp4, labels: a.json}'",
        )
    for n, row in enumerate(content, start=1):
        yield f"row {n}", row


FOLDER = Path(__file__).parents[1] / "recipes"
_Kind = TypeVar("_Kind", bound=Settings)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without two of its traps: ``1e-4`` is a number, and ``no``, ``on``, ``y`` are text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in ("tag:yaml.org,2002:bool",)]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tfTF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(p.name for p in FOLDER.glob("*.yaml") if not p.stem.endswith("_experiments"))


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Return the file of a recipe: the path if there is such a file, else the shipped recipe of that name.

    Raises:
        ConfigError: if there is neither.
    """
    path = Path(name)
    shipped = FOLDER / path.name if path.suffix else FOLDER / f"{path.name}.yaml"
    if path.is_file():
        return path
    if path.parent == Path() and shipped.is_file():
        return shipped
    near = difflib.get_close_matches(shipped.name, shipped_recipes(), n=1)
    raise ConfigError(
        "there is no such recipe",
        path=name,
        expected="a YAML file, or one of " + ", ".join(shipped_recipes()),
        fix=f"did you mean {near[0]}?" if near else "check the path",
    )


def read_recipe(name: str | os.PathLike[str], changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe and change some of its settings.

    Args:
        name: path of a YAML file, or name of a shipped recipe.
        changes: words such as ``train.epochs=3``; values are YAML.

    Raises:
        ConfigError: if there is no such recipe, it is no YAML, a setting is unknown (with the nearest known
            name) or its value is out of its limits.

    Example:
        >>> read_recipe("tiny.yaml", ["train.learning_rate=1e-4"]).train.learning_rate
        0.0001
    """
    path = find_recipe(name)
    values = _read_settings(path)
    for change in changes:
        _apply(values, change)
    return build_recipe(values, path)


def read_experiment(name: str | os.PathLike[str], changes: Iterable[str] = ()) -> ExperimentSettings:
    """Read the settings of the experiments.

    Args:
        name: path of a YAML file, or name of a shipped one.
        changes: ``key=value`` words for the recipes of all stages, after the file's own.

    Raises:
        ConfigError: as :func:`read_recipe`.
    """
    path = find_recipe(name)
    settings = _build(ExperimentSettings, _read_settings(path), path)
    strangers = sorted(set(settings.stages) - set(STAGES))
    if strangers:
        raise ConfigError(
            "the experiments have no such stage", path=path, expected=", ".join(STAGES),
            got=", ".join(strangers), fix="use one of the names expected",
        )  # fmt: skip
    # The file's words for all stages first, then those of the stage, then those of the command line.
    words = {stage: (*settings.changes, *settings.stages.get(stage, ()), *changes) for stage in STAGES}
    return settings.model_copy(update={"changes": (), "stages": words})


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "cannot read this recipe", path=path, expected="a YAML file", got=error, fix="check the path"
        ) from error
    values = _parse(text, path)
    if not isinstance(values, dict):
        raise ConfigError(
            "this is not a recipe", path=path, expected="settings by name", got=type(values).__name__,
            fix="write it as the shipped ones",
        )  # fmt: skip
    return values


def build_recipe(values: Mapping[str, Any], path: str | os.PathLike[str] | None = None) -> Recipe:
    """Build a recipe from plain values; ``path`` is named in errors.

    Raises:
        ConfigError: as :func:`read_recipe`.
    """
    return _build(Recipe, values, path)


def _build(kind: type[_Kind], values: Mapping[str, Any], path: str | os.PathLike[str] | None) -> _Kind:
    _check_names(values, kind, "", path)
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"setting {place} has an impossible value",
            path=path,
            expected=first["msg"].removeprefix("Value error, "),
            got=", ".join(given) or "nothing" if isinstance(given := first["input"], dict) else given,
            fix="give a value within the limits",
        ) from error


def _parse(text: str, path: object) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(
            "this is not valid YAML", path=str(path), got=" ".join(str(error).split())[:200],
            fix="correct the line",
        ) from error  # fmt: skip


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
        inner = place.setdefault(group, {})
        if inner is None:
            inner = place[group] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{group} is no group of settings", got=change, fix="correct the key")
        place = inner
    # Of two settings of which only one may be given, the one given last counts.
    for rivals in (("batch_per_device", "global_batch"), SOURCES):
        if name in rivals:
            for other in rivals:
                place.pop(other, None)
    place[name] = _parse(text, change)


def _check_names(values: Any, group: type[Settings], place: str, path: object) -> None:
    if isinstance(values, list | tuple):
        for value in values:
            _check_names(value, group, place, path)
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        if name not in group.model_fields:
            near = difflib.get_close_matches(str(name), group.model_fields, n=1)
            raise ConfigError(
                f"unknown setting {place}{name}",
                path=None if path is None else str(path),
                expected=", ".join(group.model_fields),
                got=name,
                fix=f"did you mean {place}{near[0]}?" if near else "use one of the names expected",
            )
        inner = group.model_fields[name].annotation
        for kind in (inner, *getattr(inner, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, Settings):
                _check_names(value, kind, f"{place}{name}.", path)
