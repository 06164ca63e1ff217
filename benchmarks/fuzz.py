"""Damaged and hostile files through the command line: no traceback, no hang, no nonsense taken in silence.

    python benchmarks/fuzz.py [--labels 1000] [--videos 300] [--checkpoints 200] [--recipes 200] [--seed 0]
                              [--out fuzz] [--only labels:123]

Sound files are made first: labels in every format, videos in several containers and codecs, folders of
images, checkpoints and recipes. Each input is one of them with one to three changes to its structure (a
value of a JSON file, a cell of a table, a data set of an HDF5 file, a field of a description) or to its
bytes. A change that is known to be nonsense must be refused, or warned of. Each input has a process of its
own, forked from this one after all imports, with 20 s and 2 GB.

An input depends on its kind, its number and the seed alone. Results are appended to OUT/log.jsonl, so that
the same command goes on after a stop; ``--only`` runs one input again, keeps its files and shows what it
said. Ends with 1 if an input ended in anything but success or one message that names the file and the fix.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import PIL.Image
import torch
import yaml

from posewarper.cli import app
from posewarper.errors import PosewarperWarning
from posewarper.formats.catalogue import FORMATS
from posewarper.formats.labels import write_labels
from posewarper.model.checkpoint import save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.training import recipes

SECONDS, BYTES = 20.0, 2 * 2**30
FRAMES, HEIGHT, WIDTH = 24, 48, 64
_WARM = """sleap_io.io.utils tables pandas xarray scipy.io rich.table posewarper.training.run
    posewarper.prediction.video posewarper.reporting.network_pictures posewarper.motion.label_shift
    posewarper.model.export"""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 1.5, 1e308, -(2**63), 2**64, 10**400, float("nan"), float("inf"), -0.0, 3_000_000),
    *(
        "",
        " ",
        "0",
        "nan",
        "1e999",
        "\x1b]0;x\x07",
        "\udcff",
        "\u202e",
        "../../etc/passwd",
        "/dev/zero",
        "x" * 5000,
    ),
    *(
        '=HYPERLINK("x")',
        "a:b",
        "CON",
        "%n%s",
        "\n",
        "\0",
        [],
        {},
        [[]],
        [None],
        {"": {}},
        ["nose"] * 3,
        [1, 2, 3],
    ),
]
Change = str
Rng = random.Random


# --- sound files ------------------------------------------------------------------------------------------


def sound_labels() -> Labels:
    """Return labels of two animals on a clip of 24 frames, some of them predictions with scores."""
    tracks = {}
    for i in (0, 1):
        frames = np.array([1, 5, 9, 14, 20])
        start = np.array([[10.0, 8], [14, 12.5], [20, 9]]) + 14 * i
        points = start + frames[:, None, None] * np.array([0.8, 0.4])
        tracks[i] = Track(frames, points, keypoint_scores=np.full((5, 3), [[0.9, 0.8, 0.7]]))
    skeleton = Skeleton(("nose", "left_paw", "right_paw"), ((0, 1), (0, 2)))
    return Labels(
        skeleton, tracks, [1, 5, 9, 14], (HEIGHT, WIDTH), FRAMES, "clip.mp4", track_names={0: "ann", 1: "bo"}
    )


def pictures() -> Iterator[np.ndarray]:
    """Yield the frames of the clip."""
    ground = np.random.default_rng(0).integers(60, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for frame in range(FRAMES):
        image = ground.copy()
        image[8 + frame // 3 : 18 + frame // 3, 10 + frame : 20 + frame] = (250, 60, 60)
        yield image


def make_sound(folder: Path) -> dict[str, list[Path]]:
    """Write the sound files; returns kind -> the files and folders of that kind."""
    found: dict[str, list[Path]] = {"labels": [], "videos": [], "checkpoints": [], "recipes": []}
    for name, (codec, pixels) in {
        **{
            "clip.mp4": ("libx264", "yuv420p"),
            "clip.mkv": ("mjpeg", "yuvj420p"),
            "clip.avi": ("mpeg4", "yuv420p"),
        },
        **{
            "clip.mov": ("png", "rgb24"),
            "clip.webm": ("libvpx", "yuv420p"),
            "clip.ts": ("mpeg2video", "yuv420p"),
        },
        "clip.gif": ("gif", "rgb8"),
    }.items():
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.codec_context.thread_count = (
                WIDTH,
                HEIGHT,
                pixels,
                1,
            )
            for image in pictures():
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
        found["videos"].append(folder / name)
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"):
        place = folder / f"frames_{suffix[1:]}"
        place.mkdir()
        for n, image in enumerate(pictures()):
            if n < 5:
                PIL.Image.fromarray(image).save(place / f"img{n:04d}{suffix}")
        found["videos"].append(place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosewarperWarning)
        for name, form in FORMATS.items():
            for suffix in form.suffixes or ("",):
                path = folder / f"clipDLC_{name}{suffix}"
                write_labels(path, sound_labels(), format=name)
                found["labels"].append(path)
        project = folder / "project"
        (project / "labeled-data" / "clip").mkdir(parents=True)
        write_labels(project / "labeled-data" / "clip" / "CollectedData_Ann.csv", sound_labels())
    config: dict[str, Any] = {
        "Task": "mice",
        "scorer": "Ann",
        "video_sets": {"/d/clip.mp4": {"crop": "0, 64, 0, 48"}},
    }
    config |= {"bodyparts": ["nose", "left_paw", "right_paw"], "skeleton": [["nose", "left_paw"]]}
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    found["labels"].append(project)
    torch.manual_seed(0)
    for backbone, size in (("test_resnet", (64, 64)), ("test_convnext", (64, 96))):
        spec = ModelSpec(
            *(backbone, sound_labels().skeleton, size, 1.5),
            **{
                "head_width": 8,
                "head_blocks": 1,
                "head_dilations": (1, 2),
                "trained": {"pose": 3, "warp": 2},
            },
            provenance={"seed": 4, "config": {"flip": 0.5, "none": None}},
        )
        path = folder / f"{backbone}.pt"
        save_model(path, PoseWarper(spec))
        found["checkpoints"].append(path)
    for name in recipes.shipped_recipes():
        shutil.copy(recipes.find_recipe(name), folder / name)
        found["recipes"].append(folder / name)
    return found


# --- changes ----------------------------------------------------------------------------------------------


def places_in(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each value in lists and objects."""
    for key, value in (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        yield (*place, key)
        yield from places_in(value, (*place, key))


def change_tree(tree: Any, chance: Rng) -> Change:
    """Change, repeat or remove a value in lists and objects, in place."""
    places = list(places_in(tree))
    if not places:
        return "nothing"
    # Long lists hold most of the values: draw a depth first.
    depth = chance.choice(sorted({len(place) for place in places}))
    place = chance.choice([p for p in places if len(p) == depth])
    holder = tree
    for key in place[:-1]:
        holder = holder[key]
    kind, key = chance.choice(("set", "set", "set", "remove", "repeat", "wrap", "swap")), place[-1]
    if kind == "remove":
        del holder[key]
    elif kind == "repeat" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == "wrap":
        deep = holder[key]
        for _ in range(chance.choice((1, 2, 150, 900))):
            deep = [deep]
        holder[key] = deep
    elif kind == "swap" and len(holder) > 1:
        other = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key], holder[other] = holder[other], holder[key]
    else:
        kind, holder[key] = "set", copy.deepcopy(chance.choice(HOSTILE))
    return f"{kind} {'.'.join(map(str, place))[:80]}"


def change_bytes(data: bytes, chance: Rng) -> tuple[bytes, Change]:
    """Flip, cut, fill, repeat or insert some bytes."""
    kind = chance.choice(("flip", "flip", "cut", "zeros", "ones", "repeat", "insert", "number", "empty"))
    at, length = chance.randrange(len(data) + 1), chance.choice((1, 4, 30, 500))
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(chance.choice((1, 5, 40))):
            changed[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        return bytes(changed), kind
    if kind == "number":
        number = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65536))
        return data[:at] + number.to_bytes(4, chance.choice(("big", "little"))) + data[
            at + 4 :
        ], f"{kind} at {at}"
    new = {"zeros": b"\0" * length, "ones": b"\xff" * length, "repeat": data[at : at + length] * 3}
    if kind in new:
        return data[:at] + new[kind] + data[at + length :], f"{kind} at {at}"
    return {"cut": data[:at], "empty": b""}.get(
        kind, data[:at] + chance.randbytes(length) + data[at:]
    ), f"{kind} at {at}"


def change_file(path: Path, chance: Rng) -> Change:
    """Change the bytes of a file."""
    data, change = change_bytes(path.read_bytes() or b"\0", chance)
    path.write_bytes(data)
    return change


def change_json(path: Path, chance: Rng) -> Change:
    """Change a value of a JSON file."""
    document = json.loads(path.read_text())
    change = change_tree(document, chance)
    text = json.dumps(document) if chance.random() < 0.9 else json.dumps(document)[:-1] + ', "id": 1e999}'
    path.write_text(text)
    return change


def change_table(path: Path, chance: Rng) -> Change:
    """Change a cell, a row or the separator of a table."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    kind, row = (
        chance.choice(("cell", "cell", "cell", "remove", "repeat", "separator", "shorten")),
        chance.randrange(len(rows)),
    )
    if kind == "cell":
        value = chance.choice(HOSTILE)
        rows[row][chance.randrange(len(rows[row]))] = (
            str(value)
            if not isinstance(value, int)
            else str(float(value))
            if abs(value) < 1e300
            else "9" * 400
        )
    elif kind == "remove":
        del rows[row]
    elif kind == "repeat":
        rows.insert(row, rows[row])
    elif kind == "shorten":
        rows[row] = rows[row][: chance.randrange(len(rows[row]) + 1)]
    text = "\n".join((chance.choice(";\t |") if kind == "separator" else ",").join(cells) for cells in rows)
    path.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
    return f"{kind} in row {row}"


def change_hdf5(path: Path, chance: Rng) -> Change:
    """Change a data set, an attribute or a link of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = chance.choice(names)
        node = file[name]
        kind = chance.choice(
            ("values", "values", "remove", "type", "shape", "attribute", "external", "soft", "loop")
        )
        parent, leaf = file[name.rpartition("/")[0] or "/"], name.rpartition("/")[2]
        if kind == "attribute" and len(node.attrs):
            key = chance.choice(list(node.attrs))
            del node.attrs[key]
            if chance.random() < 0.7:
                node.attrs[key] = chance.choice((-1, np.nan, "x", [1, 2], 2**62, b"\xff", ""))
        elif kind == "values" and isinstance(node, h5py.Dataset) and node.size:
            values = node[()]
            if node.shape and node.dtype.kind in "iuf":
                number = chance.choice(
                    (-1, 0, 3_000_000, 2**31 - 1, *((np.nan, np.inf) if node.dtype.kind == "f" else ()))
                )
                values.reshape(-1)[chance.randrange(node.size)] = np.array(number).astype(node.dtype)
                node[...] = values
            elif node.dtype.names:
                field = chance.choice(node.dtype.names)
                values[field].reshape(-1)[chance.randrange(node.size)] = np.array(
                    chance.choice((-1, 0, 99, 2**31 - 1))
                ).astype(values[field].dtype)
                node[...] = values
        elif kind in ("remove", "type", "shape", "external", "soft", "loop"):
            del parent[leaf]
            new: dict[str, Any] = {
                "type": np.array(["x", "y"], "S1"), "shape": np.zeros((2, 0, 3)), "loop": parent,
                "external": h5py.ExternalLink("clip.h5", "/x"), "soft": h5py.SoftLink("/nowhere"),
            }  # fmt: skip
            if kind != "remove":
                parent[leaf] = new[kind]
    return f"{kind} {name}"


def change_yaml(path: Path, chance: Rng) -> Change:
    """Change a value of a YAML file, or write one that is hostile as a text."""
    texts = (
        "2001-99-99",
        "9" * 5000,
        "&a [*a]",
        "*nobody",
        "!!python/object:os.system x",
        "1:90:99",
        ".nan",
        "1e999",
    )
    content = yaml.safe_load(path.read_text())
    change = change_tree(content, chance)
    try:
        text = yaml.safe_dump(content)
    except (yaml.YAMLError, RecursionError):
        return change
    if chance.random() < 0.3:
        lines = text.splitlines()
        at = chance.randrange(len(lines))
        value = chance.choice(texts)
        lines[at] = f"{lines[at].partition(':')[0]}: {value}"
        text, change = "\n".join(lines), f"{change}; line {at}: {value[:20]}"
    path.write_text(text, encoding="utf-8", errors="replace")
    return change


def change_checkpoint(path: Path, chance: Rng) -> Change:
    """Change the description, the tensors or the packing of a checkpoint."""
    content = torch.load(path, weights_only=True)
    kind = chance.choice(("spec", "spec", "spec", "top", "state", "state"))
    if kind == "state":
        name = chance.choice(list(content["state"]))
        value, kind = (
            content["state"][name],
            chance.choice(("nan", "remove", "shape", "type", "text", "expand")),
        )
        new = {
            "nan": value.float() * torch.nan, "shape": torch.zeros(3, 1, 4), "text": "x",
            "type": value.to(torch.complex64), "expand": torch.zeros(1).expand(10**6, 10**6),
        }  # fmt: skip
        content["state"].pop(name)
        if kind != "remove":
            content["state"][name] = new[kind]
        change = f"{kind} {name}"
    else:
        tree = content["spec"] if kind == "spec" else content
        state = content.pop("state")
        change = change_tree(tree, chance)
        content.setdefault("state", state)
    torch.save(content, path)
    return change


# --- nonsense that must not be taken in silence -----------------------------------------------------------


def nonsense(path: Path, chance: Rng) -> Change | None:
    """Put something into a file of labels that is known to be wrong; None where the format has none here."""
    if path.suffix == ".json":
        document = json.loads(path.read_text())
        images, annotations = document["images"], document["annotations"]
        image = chance.choice([i for i in images if i["is_labeled"]])
        one = chance.choice([a for a in annotations if a["image_id"] == image["id"]])
        choices: dict[str, Callable[[], Any]] = {
            "an image twice": lambda: images.append(dict(image)),
            "an annotation twice": lambda: annotations.append(dict(one)),
            "a visibility of 7": lambda: one["keypoints"].__setitem__(2, 7),
            "an image that is not there": lambda: one.update(image_id=987654),
            "a keypoint far outside": lambda: one["keypoints"].__setitem__(0, 90_000),
            "a negative frame": lambda: image.update(frame_id=-3),
            "a frame beyond the video": lambda: image.update(frame_id=FRAMES + 3, file_name="clip/27.jpg"),
            "width and height swapped": lambda: [i.update(width=HEIGHT, height=WIDTH) for i in images],
            "a width that is no number": lambda: image.update(width=float("nan")),
            "a width that differs": lambda: image.update(width=WIDTH + 1),
        }  # fmt: skip
        plain = "frame_id" not in images[0]
        name = chance.choice([n for n in choices if not (plain and n == "a negative frame")])
        choices[name]()
        path.write_text(json.dumps(document))
        return name
    if path.suffix == ".tsv" or path.name.endswith("_csv.csv"):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        column = {name: n for n, name in enumerate(rows[0])}
        row = chance.choice(rows[1:])
        name = chance.choice(
            ("frame -1", "frame 1.5", "a frame beyond the video", "a row twice", "x inf", "x twice as text")
        )
        if name == "a row twice":
            rows.append(list(row))
        else:
            values = {"frame -1": ("frame", "-1"), "frame 1.5": ("frame", "1.5"), "x inf": ("x", "inf")}
            values |= {"a frame beyond the video": ("frame", str(FRAMES)), "x twice as text": ("x", "1 1")}
            key, value = values[name]
            row[column[key]] = value
        path.write_text("\n".join(map(",".join, rows)) + "\n")
        return name
    return None


# --- one input --------------------------------------------------------------------------------------------


def make_input(
    kind: str, number: int, seed: int, sound: dict[str, list[Path]], folder: Path
) -> dict[str, Any]:
    """Write one input into a folder; returns what it is, its changes, and the command to run."""
    chance = random.Random(f"{kind}/{number}/{seed}")
    original = sound[kind][number % len(sound[kind])]
    path = folder / original.name
    (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
    video = folder / "clip.mp4"
    if not video.exists():
        shutil.copy(sound["videos"][0], video)
    changes: list[str] = []
    wrong = None
    if kind == "labels" and chance.random() < 0.35:
        wrong = nonsense(path, chance)
        changes += [wrong] if wrong else []
    for _ in range(0 if wrong else chance.randint(1, 3)):
        file = chance.choice(sorted(p for p in path.rglob("*") if p.is_file())) if path.is_dir() else path
        known = {
            ".json": change_json, ".csv": change_table, ".tsv": change_table, ".yaml": change_yaml,
            ".pt": change_checkpoint, **dict.fromkeys((".h5", ".slp", ".nwb", ".nc"), change_hdf5),
        }  # fmt: skip
        by_structure = known.get(file.suffix)
        is_bytes = by_structure is None or chance.random() < 0.3
        try:
            change = (
                change_file(file, chance) if is_bytes or by_structure is None else by_structure(file, chance)
            )
        except Exception as error:  # a change upon a change that has broken the file
            change = f"none ({type(error).__name__})"
        changes.append(f"{file.name}: {change}")
    target = folder / "out.json"
    missing = (
        f"data.clips=[{{video: {folder}/no.mp4, labels: {folder}/no.json}}]"  # so that nothing is trained
    )
    commands = {
        "labels": [
            ["convert", path, target, "--video", video] if wrong else ["convert", path, target],
            ["info", video, "--labels", path],
            *([] if wrong else [["info", path], ["convert", path, folder / "out.csv", "--to", "csv"]]),
        ],
        "videos": [["info", path, "--json", folder / "i.json"]],
        "checkpoints": [
            *(["info", path], ["info", path, "--offsets"]),
            ["predict", video, "--model", path, "--whole-frame", "--out", folder / "o", "--quiet"],
        ],
        "recipes": [["train", path, missing, "--out", folder / "o"]],
    }
    command = list(map(str, chance.choice(commands[kind])))
    return {"path": str(path), "changes": changes, "nonsense": wrong, "command": command}


def run_in_fork(command: list[str], folder: Path) -> dict[str, Any]:
    """Run the command line in a process forked from this one; returns how it ended and what it said."""
    begun = time.monotonic()
    out = folder / "said.txt"
    child = os.fork()
    if child == 0:
        code = 99
        try:
            handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1), os.dup2(handle, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + BYTES
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            app.app(command, prog_name="posewarper")
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0 if left.code is None else 99
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    status, timed_out = 0, False
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if not timed_out and time.monotonic() - begun > SECONDS:
            timed_out = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.003)
    code = os.waitstatus_to_exitcode(status)
    said = out.read_text(encoding="utf-8", errors="replace") if out.exists() else ""
    return {
        "code": code,
        "seconds": round(time.monotonic() - begun, 2),
        "hang": timed_out,
        "said": said,
        "mb": usage.ru_maxrss // 1024,
    }


def judge(item: dict[str, Any]) -> str:
    """Return what is wrong with how an input was taken, or ``refused``, ``warned``, ``accepted``."""
    said, code = item["said"], item["code"]
    if item["hang"]:
        return "HANG"
    if code < 0:
        return f"CRASH (signal {-code})"
    if "Traceback" in said or code == 99:
        return "TRACEBACK"
    if "\x1b" in said:
        return "ESCAPES"
    if "more memory than there is" in said or "Cannot allocate memory" in said:
        return "MEMORY"
    if "for a reason that it does not know" in said:
        return "UNFORESEEN"
    if code == 2:
        # A recipe whose settings are sound goes on to its clips, which are not there.
        known = (Path(item["path"]).name, "no.mp4", "no.json", "data.clips=", "data.pseudo.model=")
        names = any(name in said for name in known)
        return "refused" if names and "error: " in said and "fix:" in said else "POOR MESSAGE"
    if code:
        return f"EXIT CODE {code}"
    if item["nonsense"] and "warning: " not in said:
        return "NONSENSE"
    return "warned" if "warning: " in said else "accepted"


def summarise(results: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Print the verdicts of each kind, and end the process."""
    for kind in dict.fromkeys(kind for kind, _ in results):
        own = [item for (found, _), item in results.items() if found == kind]
        verdicts = dict(Counter(item["verdict"] for item in own).most_common())
        seconds, mb = (max(item[key] for item in own) for key in ("seconds", "mb"))
        print(f"{kind}: {len(own)} inputs, {verdicts}; at most {seconds} s and {mb} MB")
    raise SystemExit(any(is_fault(item["verdict"]) for item in results.values()))


def is_fault(verdict: str) -> bool:
    """Return whether a verdict is in capitals."""
    return verdict.split(" (")[0].isupper()


def main() -> None:
    """Make the files, run them, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts = {"labels": 1000, "videos": 300, "checkpoints": 200, "recipes": 200}
    for kind, count in counts.items():
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    parser.add_argument("--only", metavar="KIND:NUMBER", help="run one input again and keep its files")
    options = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in _ONE_THREAD):  # threads do not survive a fork
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(_ONE_THREAD, "1"))
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "log.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    results = {
        (r["kind"], r["number"]): r | {"verdict": judge(r)} for r in known if r["seed"] == options.seed
    }
    wanted = [(kind, n) for kind in counts for n in range(getattr(options, kind)) if (kind, n) not in results]
    if options.only:
        kind, _, number = options.only.partition(":")
        wanted = [(kind, int(number))]
    for module in _WARM.split():  # all that a run would import
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as scratch, log.open("a") as handle:
        sound = make_sound(Path(scratch))
        gc.freeze()
        for kind, number in wanted:
            folder = options.out / f"{kind}_{number}" if options.only else Path(scratch) / "input"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            item = make_input(kind, number, options.seed, sound, folder)
            item |= {"kind": kind, "number": number, "seed": options.seed}
            item |= run_in_fork(item["command"], folder)
            item["verdict"] = judge(item)
            if options.only:
                said = item.pop("said")
                print(json.dumps(item, indent=1), said, sep="\n")
                continue
            results[kind, number] = item
            handle.write(json.dumps({**item, "said": item["said"][-1500:]}) + "\n")
            handle.flush()
            if is_fault(item["verdict"]):
                print(f"{kind}:{number} {item['verdict']} {item['changes']}", flush=True)
    summarise(results)


if __name__ == "__main__":
    main()
