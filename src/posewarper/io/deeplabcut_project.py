"""DeepLabCut projects: ``config.yaml`` and the folder ``labeled-data`` beside it. Reading.

The configuration gives the keypoints in order and the skeleton's edges; the labels are in the table of the
video that is meant. The configuration lists a rectangle ``crop: x1, x2, y1, y2`` for each video, but only
frames extracted with ``crop=True`` are cut to it, which is noted nowhere (the setting ``cropping`` is about
the analysis of videos). The size of the extracted image tells, and its labels are moved back to the frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.io.clips import Clip, VideoFacts
from posewarper.io.frame_names import base_name, stem_of
from posewarper.io.projects import choose_labelled
from posewarper.io.records import PathLike, read_text
from posewarper.skeletons import Skeleton

CONFIG = "config.yaml"
_KEYS = ("video_sets", "bodyparts", "multianimalbodyparts")
_MEND = "give the config.yaml that DeepLabCut wrote, or one of its CollectedData tables alone"


def is_config(text: str) -> bool:
    """Return whether a text looks like the beginning of a project's configuration."""
    starts = ("Task:", *(f"{key}:" for key in _KEYS))
    return any(line.startswith(starts) for line in text.splitlines())


def is_project(path: PathLike) -> bool:
    """Return whether a path is the folder of a DeepLabCut project."""
    return Path(path).is_dir() and (Path(path) / CONFIG).is_file()


def read_project(
    path: PathLike, video: VideoFacts | None, read_table: Callable[[Path, VideoFacts | None], Clip]
) -> Clip:
    """Return what a project says about one video.

    Args:
        path: the project's folder or its configuration.
        video: the opened video; its name picks one of several.
        read_table: reads a table of labels.

    Raises:
        LabelsError: if anything in the project is not as it should be.

    Warns:
        PosewarperWarning: if nothing tells whether the labelled images were cut out of their frames.
    """
    config_path = Path(path) / CONFIG if Path(path).is_dir() else Path(path)
    config = _read_config(config_path)
    videos = _list_videos(config, config_path)
    tables = _find_tables(config_path, _text(config.get("scorer")))
    names = {folder: {base_name(v) for v in videos if stem_of(v) == folder} for folder in tables}
    names |= {stem_of(v): {base_name(v)} for v in videos if stem_of(v) not in names}
    folder = choose_labelled(config_path, names, tables, video)
    clip = read_table(tables[folder], video)

    _take_skeleton(clip, config, config_path)
    entry = next((name for name in videos if stem_of(name) == folder), None)
    clip.video = base_name(entry) if entry is not None else folder
    if entry is not None and videos[entry] is not None:
        _undo_crop(clip, _read_crop(videos[entry], entry, config_path), tables[folder], config_path, video)
    return clip


# --- the configuration ------------------------------------------------------------------------------------


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        # The loader of plain texts, lists and dicts: names such as "no" or "1e3" stay what they are.
        config = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        got = " ".join(str(error).split())[:200]
        raise LabelsError("the file is no valid YAML", path=path, got=got, mend=_MEND) from error
    if not isinstance(config, dict) or not any(key in config for key in _KEYS):
        raise LabelsError(
            "this is no DeepLabCut project",
            path=path,
            expected=f"one of the settings {', '.join(_KEYS)}",
            got=", ".join(map(str, config))[:80] if isinstance(config, dict) else type(config).__name__,
            mend=_MEND,
        )
    return config


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _wrong(path: Path, key: str, expected: str, got: object) -> LabelsError:
    return LabelsError(f"{key} is wrong", path=path, expected=expected, got=str(got)[:80], mend=_MEND)


def _list_videos(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return video path -> its crop as it stands there, or None."""
    videos: dict[str, Any] = {}
    # The original videos are set aside where the project was cut into tiles.
    for key in ("video_sets_original", "video_sets"):
        entries = config.get(key) or {}
        if not isinstance(entries, dict):
            raise _wrong(path, key, "a path and its settings for each video", entries)
        for name, settings in entries.items():
            crop = settings.get("crop") if isinstance(settings, dict) else None
            videos[str(name)] = videos.get(str(name)) or crop
    return videos


def _list_names(config: Mapping[str, Any], path: Path) -> list[str]:
    names: list[str] = []
    for key in ("multianimalbodyparts", "uniquebodyparts", "bodyparts"):
        values = config.get(key) or []
        if key == "bodyparts" and values == "MULTI!":  # which stands there in projects of several animals
            continue
        if not isinstance(values, list) or not all(isinstance(name, str) and name for name in values):
            raise _wrong(path, key, "a list of names", values)
        names += values
    return list(dict.fromkeys(names))


def _take_skeleton(clip: Clip, config: Mapping[str, Any], path: Path) -> None:
    """Give the clip the project's order of keypoints and its edges."""
    stated = _list_names(config, path)
    found = clip.skeleton.names
    names = [*stated, *(name for name in found if name not in stated)]
    index = {name: k for k, name in enumerate(names)}
    edges, strangers = [], set()
    pairs = config.get("skeleton") or []
    if not isinstance(pairs, list):
        raise _wrong(path, "skeleton", "a list of pairs of keypoints", pairs)
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise _wrong(path, "skeleton", "a list of pairs of keypoints", pair)
        if set(pair) <= set(names):
            edges.append((index[pair[0]], index[pair[1]]))
        strangers |= set(pair) - set(names)
    if strangers:
        listed = ", ".join(sorted(strangers)[:10])
        _warn(path, f"skeleton: edges of keypoints that the project does not have are left out: {listed}")
    clip.skeleton = Skeleton(tuple(names), tuple(edges), name=clip.skeleton.name)
    place = [index[name] for name in found]
    for instance in clip.instances:
        keypoints, visibility = instance.keypoints, instance.visibility
        instance.keypoints = np.full((len(names), 2), np.nan)
        instance.visibility = np.zeros(len(names), np.uint8)
        instance.keypoints[place], instance.visibility[place] = keypoints, visibility
        if instance.scores is not None:
            scores, instance.scores = instance.scores, np.full(len(names), np.nan)
            instance.scores[place] = scores


def _find_tables(config: Path, scorer: str) -> dict[str, Path]:
    """Return folder of a video -> its table: the project's scorer's, and as CSV, where there are several."""
    tables: dict[str, Path] = {}
    for folder in sorted(path for path in (config.parent / "labeled-data").glob("*") if path.is_dir()):
        found = sorted(path for path in folder.glob("CollectedData_*") if path.suffix in (".csv", ".h5"))
        own = [path for path in found if path.stem == f"CollectedData_{scorer}"] or found
        if len({path.stem for path in own}) > 1:
            raise LabelsError(
                "the labels of a video are there from several scorers",
                path=folder,
                expected=f"a table CollectedData_{scorer}" if scorer else "the setting scorer in config.yaml",
                got=", ".join(path.name for path in own)[:200],
                mend="name the scorer in config.yaml, or give one of the tables alone",
            )
        if own:
            tables[folder.name] = own[0]
    return tables


# --- the crop ---------------------------------------------------------------------------------------------


def _read_crop(crop: Any, video: str, path: Path) -> tuple[int, int, int, int]:
    """Return x1, x2, y1, y2 in pixels of the whole frame."""
    parts = crop.split(",") if isinstance(crop, str) else crop
    try:
        x1, x2, y1, y2 = (int(float(part)) for part in parts)
    except (TypeError, ValueError, OverflowError):
        x1 = x2 = y1 = y2 = 0
    if not (0 <= x1 < x2 and 0 <= y1 < y2):
        raise _wrong(path, f"crop of {base_name(video)}", "x1, x2, y1, y2 in pixels", crop)
    return x1, x2, y1, y2


def _undo_crop(
    clip: Clip, crop: tuple[int, int, int, int], table: Path, config: Path, video: VideoFacts | None
) -> None:
    """Move the labels of images that were cut out of their frames back to the frames, in place."""
    x1, x2, y1, y2 = crop
    whole = None if video is None else tuple(video.image_size)
    if whole is not None and (y2 > whole[0] or x2 > whole[1]):
        raise LabelsError(
            "the video is smaller than the part of it that the project cuts out",
            path=config,
            expected=f"a video of at least {x2} x {y2} pixels (width x height)",
            got=f"{whole[1]} x {whole[0]} pixels",
            mend="use the video that the labels were made on",
        )
    sizes = {frame: _size_of(table.parent / base_name(name)) for frame, name in clip.frame_names.items()}
    cut = {size: _is_cut(size, crop, whole, table) for size in set(sizes.values()) if size is not None}
    guess = all(cut.values())
    if (x1, y1) != (0, 0) and None in sizes.values():
        name, did = base_name(str(clip.video)), "moved to it" if guess else "left where they are"
        _warn(
            config,
            f"a crop of {x2 - x1} x {y2 - y1} pixels at ({x1}, {y1}) is set for {name}, and labelled images, "
            f"whose size would tell whether it was applied, are not there; their labels are {did}",
        )
    for instance in clip.instances:
        size = sizes.get(instance.frame)
        if guess if size is None else cut[size]:
            instance.keypoints = instance.keypoints + np.array([x1, y1], np.float64)
    # A crop that begins at the first pixel is as a rule the whole frame, DeepLabCut's default.
    full = [size for size, is_cut in cut.items() if not is_cut or (whole is None and (x1, y1) == (0, 0))]
    clip.image_size = full[0] if len(full) == 1 else None


def _size_of(image: Path) -> tuple[int, int] | None:
    """Return (height, width) of an image, or None if there is no such image."""
    try:
        with Image.open(image) as opened:
            return opened.height, opened.width
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _is_cut(size: Sequence[int], crop: Sequence[int], whole: Sequence[int] | None, table: Path) -> bool:
    """Return whether an image (height, width) is the crop rather than the whole frame."""
    x1, x2, y1, y2 = crop
    if whole is not None and tuple(size) == tuple(whole):
        return False
    if tuple(size) == (y2 - y1, x2 - x1):
        return True
    if whole is None and size[0] >= y2 and size[1] >= x2:
        return False
    frame = f" or {whole[1]} x {whole[0]}, the video's" if whole is not None else ""
    raise LabelsError(
        "the labelled images have neither the size of the frames nor that of the crop",
        path=table,
        expected=f"{x2 - x1} x {y2 - y1}, the crop's in config.yaml{frame} (width x height)",
        got=f"{size[1]} x {size[0]} pixels",
        mend="use the video that the labels were made on, and set the crop with which frames were extracted",
    )


def _warn(path: Path, text: str) -> None:
    warnings.warn(f"{path}: {text}", PosewarperWarning, stacklevel=2)
