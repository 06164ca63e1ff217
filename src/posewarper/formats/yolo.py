"""YOLO pose data sets as Ultralytics reads them: a ``data.yaml``, images, and a text file for each image.

A line of ``train/labels/NAME.txt`` is an instance on ``train/images/NAME.jpg`` (or ``labels/train`` and
``images/train``): the number of its class, the
centre and the size of its box, and x, y and visibility of each keypoint, all but the last in shares of the
image's width and height. ``kpt_shape`` says how many keypoints there are, and whether they have a visibility
(without one, 0 0 is a keypoint that is not there); ``flip_idx`` is the mirror image, ``kpt_names`` are names.
An image without a text file has no labels, an empty file says that nobody is there. Instances have no tracks.

Shares are written as decimals that are longer than a float, so that pixels come back exactly. Ultralytics
passes over all labels of an image if a keypoint lies outside of it by more than a hundredth: such keypoints
are left out. ``video`` in ``data.yaml`` is ours, and Ultralytics does not look at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from posewarper.errors import LabelsError, few_of
from posewarper.files import replacing_folder
from posewarper.formats import coco
from posewarper.formats.clips import Clip, VideoFacts, each_instance
from posewarper.formats.frame_names import leads_out, video_stem, videos_of_images
from posewarper.formats.records import PathLike, load_yaml, read_text, warn
from posewarper.skeletons import PRESETS, Skeleton
from posewarper.structures import Floats, Labels
from posewarper.video.images import is_image_file, upright_size

_SPLITS = ("train", "val", "validation", "test", "minival")
_FILE = "data.yaml"
_FIX = "export the data set again as YOLO pose, or correct the file"
_HELD_OUT = 0.2  # of the labelled frames, the last ones, are written for validation
_QUALITY = 95  # of JPEG
# Ultralytics takes shares from -0.01 to 1.01 and rounds them to 32 bits before it looks.
_FARTHEST = 0.0099
_EXACT = Context(prec=20)  # a share of so many digits gives back every float of 64 bits
_LARGEST = 3  # digits before the point of a share; with more it is damage


def is_config(text: str) -> bool:
    """Return whether a text looks like the beginning of a data set's ``data.yaml``."""
    return any(line.startswith("kpt_shape:") for line in text.splitlines())


def config_of(folder: PathLike) -> Path | None:
    """Return the file that describes the data set in a folder, None if there is none."""
    files = sorted(file for kind in ("*.yaml", "*.yml") for file in Path(folder).glob(kind) if file.is_file())
    return next((f for f in files if is_config(f.read_bytes()[: 2**16].decode("utf-8", "replace"))), None)


# --- reading ----------------------------------------------------------------------------------------------


def read_clip(
    path: PathLike, video: VideoFacts | None = None, skeleton: Skeleton | str | None = None
) -> Clip:
    """Return what a YOLO pose data set says about one video, in all its parts (train, val and test).

    The path is the folder or its ``data.yaml``. The opened video picks one of several; ``skeleton`` names
    the keypoints where the data set does not, and chooses where classes have different ones.

    Raises:
        LabelsError: if anything in the data set is not as it should be, or leads out of its folder.

    Warns:
        PosewarperWarning: if the keypoints have no names, or the instances are of several classes.
    """
    place = Path(path)
    file = config_of(place) if place.is_dir() else place
    if file is None:
        raise LabelsError(
            "this folder holds no YOLO pose data set",
            path=path,
            expected=f"{_FILE} with kpt_shape",
            fix="name the folder in which it lies",
        )
    data = load_yaml(read_text(file), file, "labels")
    if not isinstance(data, dict):
        raise _wrong(file, "the file", "keys with values, such as kpt_shape: [17, 3]", type(data).__name__)
    count, sides = _read_shape(data, file)
    images = _list_images(data, file)
    names = _read_classes(data, file)
    keypoints = _read_names(data, names, count, file)
    pairs = _read_flips(data, count, file)
    if not keypoints and not isinstance(skeleton, Skeleton):
        skeleton = _guess_skeleton(count, pairs, next(iter(names.values())), path)
    keys, _ = videos_of_images(path, [image.name for image in images], video)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, key in zip(images, keys, strict=True):
        name, text = image.relative_to(file.parent).as_posix(), _labels_of(image, file.parent)
        height, width = upright_size(image)
        entry = {"id": name, "file_name": name, "vid_id": key, "width": width, "height": height}
        entries.append(entry | {"is_labeled": text.is_file()})
        if text.is_file():
            annotations += _read_text(text, name, names, (count, sides), (height, width))
    used = {annotation["category_id"] for annotation in annotations}
    if len(used) > 1 and len({keypoints.get(kind) for kind in used}) == 1:
        several = few_of([names[kind] for kind in sorted(used)])
        warn(path, f"instances of several classes ({several}) are read alike, since a track has no class")
    document = {"images": entries, "annotations": annotations, "info": {"video": data.get("video")}}
    document["categories"] = [
        {"id": kind, "name": name} | _describe(keypoints[kind] if keypoints else None, pairs)
        for kind, name in names.items()
    ]
    return coco.read_document(document, path, video, skeleton, native=False)


def _describe(names: Sequence[str] | None, pairs: Sequence[tuple[int, int]] | None) -> dict[str, Any]:
    """Return what a category of COCO says of its keypoints, nothing if they have no names."""
    if names is None:
        return {}
    flips = {} if pairs is None else {"flip_pairs": [[a + 1, b + 1] for a, b in pairs]}
    return {"keypoints": list(names)} | flips


def _wrong(path: PathLike, what: str, expected: object, got: object) -> LabelsError:
    return LabelsError(f"{what} is wrong", path=path, expected=expected, got=got, fix=_FIX)


def _read_shape(data: Mapping[str, Any], file: Path) -> tuple[int, int]:
    shape = data.get("kpt_shape")
    good = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not good or not 0 < shape[0] <= 10_000 or shape[1] not in (2, 3):  # type: ignore[index]
        raise _wrong(file, "kpt_shape", "[number of keypoints, 2 or 3], such as [17, 3]", shape)
    return shape[0], shape[1]  # type: ignore[index]


def _read_classes(data: Mapping[str, Any], file: Path) -> dict[int, str]:
    names = data.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(key) is int and key >= 0 for key in names):
        raise _wrong(file, "names", "the classes, such as {0: person}", names)
    return {key: str(name) for key, name in names.items()}


def _read_names(
    data: Mapping[str, Any], classes: Mapping[int, str], count: int, file: Path
) -> dict[int, tuple[str, ...]]:
    """Return the names of the keypoints of each class, nothing if the data set names none."""
    given = data.get("kpt_names")
    if given is None:
        return {}
    if isinstance(given, list):
        given = dict.fromkeys(classes, given)
    if not isinstance(given, dict) or not classes.keys() <= given.keys():
        raise _wrong(file, "kpt_names", "a list of names for each class", given)
    found = {}
    for key in classes:
        names = given[key]
        if not isinstance(names, list) or len(names) != count:
            got = f"{len(names)} names" if isinstance(names, list) else names
            raise _wrong(file, f"kpt_names of class {key}", f"{count} names, as kpt_shape says", got)
        found[key] = tuple(map(str, names))
    return found


def _read_flips(data: Mapping[str, Any], count: int, file: Path) -> list[tuple[int, int]] | None:
    """Return the mirror pairs, None if the data set does not tell them."""
    order = data.get("flip_idx")
    if not order:
        return None
    good = isinstance(order, list) and all(type(i) is int for i in order)
    if not good or sorted(order) != list(range(count)) or any(order[order[i]] != i for i in order):
        raise _wrong(
            file, "flip_idx", f"the numbers from 0 to {count - 1}, pairs in each other's place", order
        )
    return [(i, other) for i, other in enumerate(order) if i < other]


def _guess_skeleton(
    count: int, pairs: Sequence[tuple[int, int]] | None, name: str, path: PathLike
) -> Skeleton:
    """Return the known skeleton with so many keypoints and these mirror pairs, or one without names."""
    known = [key for key, preset in PRESETS.items() if len(preset) == count]
    known = [key for key in known if pairs is None or sorted(PRESETS[key].flip_pairs) == sorted(pairs)]
    if len(known) == 1:
        warn(path, f"{count} keypoints are taken for those of {known[0]}; if not, say so with --skeleton")
        return PRESETS[known[0]]
    may_be = f"may be those of {' or '.join(known)}" if known else "have no names in the data set"
    warn(
        path,
        f"{count} keypoints {may_be}; they are named keypoint_0, keypoint_1, ...; if they are those of a "
        "known skeleton, name it (--skeleton), or add kpt_names to the data set",
    )
    return Skeleton(tuple(f"keypoint_{k}" for k in range(count)), (), tuple(pairs or ()), name)


def _list_images(data: Mapping[str, Any], file: Path) -> list[Path]:
    """Return the images of all parts, each once: folders, lists in text files, or several of both."""
    root = file.parent
    stated = data.get("path")
    if isinstance(stated, str) and not leads_out(stated) and (root / stated).is_dir():
        root = root / stated
    found: dict[Path, None] = {}
    parts = [part for split in _SPLITS for part in _as_list(data.get(split))]
    for part in parts:
        place = _find_part(part, root, file)
        if place.is_dir():
            images: Iterable[Path] = sorted(p for p in place.rglob("*") if p.is_file() and is_image_file(p))
        else:
            lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
            images = [_find_part(line, place.parent, place) for line in lines]
        found |= dict.fromkeys(images)
    if not found:
        got = few_of(list(map(str, parts))) or "no train and no val"
        raise LabelsError(
            "the data set names no images", path=file, expected="train: images/train", got=got, fix=_FIX
        )
    return list(found)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _find_part(part: object, root: Path, file: Path) -> Path:
    """Return what a data set names, which lies in its folder."""
    name = str(part).replace("\\", "/")
    inside = name.removeprefix("./")
    # Roboflow writes ../train/images for what lies beside the file.
    while inside.startswith("../"):
        inside = inside[3:]
    if not leads_out(inside) and (root / inside).exists():
        return root / inside
    raise LabelsError(
        "an image or a folder that the data set names is not there",
        path=file,
        expected=f"something in {root}",
        got=name[:200],
        fix="put the images beside the file and name them from there (train: images/train), without path",
    )


def _labels_of(image: Path, root: Path) -> Path:
    """Return the text file of an image: the last folder "images" of its path is "labels" there."""
    parts = list(image.relative_to(root).parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _read_text(
    text: Path, image: str, names: Mapping[int, str], shape: tuple[int, int], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Return the instances of an image (H, W), in pixels, as annotations of COCO.

    ``shape`` is the number of keypoints, and of numbers for each.
    """
    if text.stat().st_size < 3 and not text.read_bytes().strip():
        return []  # nobody is there
    (count, sides), scale = shape, (Decimal(size[1]), Decimal(size[0]))
    columns, found = 5 + count * sides, []
    for number, line in enumerate(read_text(text).splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        where = f"line {number}"
        if len(cells) != columns:
            expected = f"{columns} numbers: class, box, {sides} for each of {count} keypoints"
            raise _wrong(text, where, expected, f"{len(cells)} numbers")
        values = _as_shares(cells, text, where)
        if values[0] not in names:
            raise _wrong(text, f"{where}: the class", f"one of {few_of(list(names))}", cells[0])
        x, y, width, height = (v * scale[i % 2] for i, v in enumerate(values[1:5]))
        points = [values[i : i + sides] for i in range(5, columns, sides)]
        found.append(
            {
                "id": f"{image.removeprefix('images/')} {where}",
                "image_id": image,
                "category_id": int(values[0]),
                "bbox": [float(x - width / 2), float(y - height / 2), float(width), float(height)],
                "keypoints": [n for point in points for n in _read_point(point, scale, text, where)],
            }
        )
    return found


def _as_shares(cells: Sequence[str], text: Path, where: str) -> list[Decimal]:
    try:
        values = [Decimal(cell) for cell in cells]
        if any(not v.is_finite() or (v and v.adjusted() > _LARGEST) for v in values):
            raise ValueError
    except (InvalidOperation, ValueError) as error:
        expected, got = "numbers, the coordinates as shares of the image, from 0 to 1", " ".join(cells)[:60]
        raise _wrong(text, where, expected, got) from error
    return values


def _read_point(
    point: Sequence[Decimal], scale: tuple[Decimal, Decimal], text: Path, where: str
) -> tuple[float, float, int]:
    """Return x and y in pixels and the visibility of a keypoint."""
    if len(point) == 2:
        seen = 0 if point[0] < 0 or point[1] < 0 or not any(point) else 2
    elif point[2] in (0, 1, 2):
        seen = int(point[2])
    else:
        raise _wrong(text, f"{where}: a visibility", "0, 1 or 2", point[2])
    return float(point[0] * scale[0]), float(point[1] * scale[1]), seen


# --- writing ----------------------------------------------------------------------------------------------


def write_labels(path: PathLike, labels: Labels, video: VideoFacts | None = None) -> list[str]:
    """Write labels as a YOLO pose data set: a folder with ``data.yaml``, the images and their labels.

    Frames that are labelled or show somebody are written, the last fifth of them for validation. All poses
    become labels, also predicted ones. Where an instance has no box, that around its keypoints is written.

    Returns:
        What YOLO has a place for, but cannot hold in this case: keypoints outside of the image.

    Raises:
        LabelsError: if no video is given, or it is another one than that of the labels.
        OutputError: if the folder cannot be written, or holds other files.
    """
    if video is None:
        raise LabelsError(
            "a YOLO data set holds the images of the labelled frames",
            path=path,
            expected="the video from which they are taken",
            fix="name it: posewarper convert IN OUT --to yolo --video VIDEO",
        )
    frames = np.union1d(labels.labelled_frames, labels.instance_frames).tolist()
    if frames and frames[-1] >= video.n_frames:
        expected = f"frames from 0 to {video.n_frames - 1}"
        raise LabelsError(
            "the video has no such frame",
            path=video.path,
            expected=expected,
            got=frames[-1],
            fix="give the video that the labels belong to",
        )
    height, width = video.image_size
    lines: dict[int, list[str]] = {frame: [] for frame in frames}
    outside = 0
    for frame, _, track, row in each_instance(labels):
        keypoints, visibility = track.keypoints[row], track.visibility[row]
        shares = keypoints / (width, height)
        with np.errstate(invalid="ignore"):
            far = ~((shares > -_FARTHEST) & (shares < 1 + _FARTHEST)).all(-1) & (visibility > 0)
        outside += int(far.sum())
        seen = np.where(far, 0, visibility)
        if seen.any():
            box = track.boxes[row]
            if not np.isfinite(box).all():
                box = np.asarray(coco.surround(keypoints[seen > 0], (height, width)))
            lines[frame].append(_line(box, keypoints, seen, width, height))
    stem = video_stem(labels.video or Path(video.path).name)
    digits = max(6, len(str(video.n_frames - 1)))
    held_out = (
        set(frames[len(frames) - int(np.ceil(_HELD_OUT * len(frames))) :]) if len(frames) > 1 else set()
    )
    with replacing_folder(path, _is_ours) as folder:
        for part in ("train", "val") if held_out else ("train",):
            for kind in ("images", "labels"):
                (folder / part / kind).mkdir(parents=True)
        for frame, image in video.frames(frames):
            part = folder / ("val" if frame in held_out else "train")
            name = f"{stem}_frame_{frame:0{digits}d}"
            data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
            (part / "images" / f"{name}.jpg").write_bytes(data.tobytes())
            text = "".join(f"{line}\n" for line in lines[frame])
            (part / "labels" / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")
        skeleton = labels.skeleton
        description = {
            "train": "train/images",  # sleap-io does not find images/train
            "val": "val/images" if held_out else "train/images",
            "kpt_shape": [len(skeleton), 3],
            "flip_idx": list(skeleton.flip_order),
            "names": {0: skeleton.name},
            "kpt_names": {0: list(skeleton.names)},
            **({"video": labels.video} if labels.video else {}),
        }
        text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
        (folder / _FILE).write_text(text, encoding="utf-8", newline="\n")
    lost = [f"keypoints outside of the image ({outside})"] if outside else []
    every = {int(v) for track in labels.tracks.values() for v in np.unique(track.visibility)}
    if 1 in every and 2 not in every:
        lost.append("which keypoints are hidden, where none is visible")
    return lost


def _line(box: Floats, keypoints: Floats, seen: np.ndarray, width: int, height: int) -> str:
    left, top, across, down = (Decimal(value) for value in box.tolist())
    values = [_share(left + across / 2, width), _share(top + down / 2, height)]
    values += [_share(across, width), _share(down, height)]
    for (x, y), state in zip(keypoints.tolist(), seen.tolist(), strict=True):
        both = [_share(Decimal(x), width), _share(Decimal(y), height)] if state else ["0", "0"]
        values += [*both, str(state)]
    return " ".join(["0", *values])


def _share(value: Decimal, side: int) -> str:
    return str(_EXACT.divide(value, Decimal(side)).normalize(_EXACT))


def _is_ours(place: Path) -> bool:
    """Return whether a file or folder in the place of a data set is one that is written anew."""
    if place.is_file():
        return place.name == _FILE
    inside = [part for part in place.rglob("*") if not part.is_dir()]
    # Ultralytics puts a .cache beside the labels.
    return place.name in ("train", "val") and all(
        part.suffix == {"images": ".jpg", "labels": ".txt"}.get(part.parent.name, ".cache") for part in inside
    )


def is_data_set(path: PathLike) -> bool:
    """Return whether a path is the folder of a YOLO pose data set."""
    return Path(path).is_dir() and config_of(path) is not None
