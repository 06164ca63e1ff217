"""Files that nobody made by accident: the command line refuses them at once and names them."""

from __future__ import annotations

import json
import os
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import PIL.Image
import pytest
import torch

from posewarper.cli import app as command_line
from posewarper.errors import PosewarperWarning
from posewarper.formats.labels import read_labels, write_labels
from posewarper.model.checkpoint import load_model, save_model
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.source import open_video
from posewarper.video.writing import write_video

SKELETON = Skeleton(("nose", "tail"))


def labels(n_frames: int | None = 9, names: tuple[str, ...] = ("nose", "tail"), **more) -> Labels:
    track = Track([1, 4], [[[3.0, 4], [5, 7]], [[4, 5], [6, 8]]])
    return Labels(Skeleton(names), {0: track}, image_size=(48, 64), n_frames=n_frames, video="v.mp4", **more)


@pytest.fixture
def run(capsys):
    """Run the command line; returns (exit code, all that it said)."""

    def call(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            command_line.app(list(map(str, words)))
        return int(left.value.code or 0), "".join(capsys.readouterr())

    return call


@pytest.fixture
def refuse(run):
    def call(name: object, *words: object) -> str:
        begun = time.monotonic()
        code, said = run(*words)
        assert code == 2 and said.count("error: ") == 1 and "\n  fix: " in said, said
        assert "Traceback" not in said and "that it does not know" not in said and str(name) in said, said
        assert time.monotonic() - begun < 10
        return said

    return call


# --- what is no plain file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        *("info P.json", "convert P.json OUT", "convert P.csv OUT --from csv", "info P.mp4", "info P.pt"),
        *("convert P.nwb OUT --from nwb", "train P.yaml --out O", "propagate V --labels P.json --out O"),
        *("propagate P.mp4 --labels L --out O", "predict V --model P.pt --out O", "propagate P.csv --out O"),
        *("convert P.slp OUT --from sleap", "convert P.pth O.pt"),
        "evaluate --ground-truth L --predictions P.zip",
        "predict V --model M --boxes P.json --out O",
    ],
)
def test_nobody_waits_for_a_pipe(refuse, tmp_path, words):
    write_labels(tmp_path / "l.json", labels())
    write_video(tmp_path / "v.mp4", [np.zeros((48, 64, 3), np.uint8)] * 9, fps=25)
    for suffix in ("json", "csv", "mp4", "pt", "pth", "nwb", "slp", "yaml", "zip"):
        os.mkfifo(tmp_path / f"P.{suffix}")
    save_model(tmp_path / "m.pt", small_model(trained={"warp": 1}))
    short = {"OUT": "o.json", "L": "l.json", "V": "v.mp4", "O": "o", "M": "m.pt", "O.pt": "o.pt"}
    given = [short.get(word, word) for word in words.split()]
    given = [str(tmp_path / word) if "." in word or word == "o" else word for word in given]
    name = next(word for word in words.split() if word.startswith("P."))
    assert "pipe" in refuse(name, *given)


@pytest.mark.parametrize("name", ["loop", "x" * 300, "file/below"])
@pytest.mark.parametrize("suffix", [".json", ".mp4", ".pt", ".yaml"])
def test_places_where_nothing_can_be(refuse, tmp_path, name, suffix):
    place = tmp_path / f"{name}{suffix}"
    (tmp_path / "file").write_text("x")
    if name == "loop":
        place.symlink_to(place)
    words = ("train", place, "--out", tmp_path / "o") if suffix == ".yaml" else ("info", place)
    refuse(place.name[:50], *words)


@pytest.mark.parametrize("name", ["a:b.mp4", "größe.mp4", "[bold]x.mp4", "a%03d.mp4", "-x.mp4", "\udcff.mp4"])
def test_odd_names_of_videos(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(name, [np.zeros((48, 64, 3), np.uint8)] * 9, fps=25)
    code, said = run("info", "--", name)
    assert code == 0 and "h264" in said


# --- texts -------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        *(
            LAUGHS,
            "train: &x {epochs: *x}",
            "train: {epochs: 2001-99-99}",
            f"train: {{seed: {'9' * 5000}}}",
        ),
        *(
            "[" * 5000,
            "train: {epochs: 9x, ? [1]: 2}",
            "train: {seed: 1:99:99999999}",
            "a: !!timestamp x",
        ),
        "a: &a {x: 1}\nb: &b {<<: [" + "*a, " * 3000 + "*a]}\nc: {<<: [" + "*b, " * 3000 + "*b]}",
    ],
)
def test_yaml_that_is_none(refuse, tmp_path, text):
    for name, words in {
        "r.yaml": ("train", tmp_path / "r.yaml", "--out", tmp_path / "o"),
        "config.yaml": ("info", tmp_path / "config.yaml"),
        "list.yaml": (
            "train",
            "tiny.yaml",
            f"data={{clips_file: {tmp_path}/list.yaml}}",
            "--out",
            tmp_path / "o",
        ),
    }.items():
        (tmp_path / name).write_text(text)
        refuse(name if name != "list.yaml" else "yaml", *words)


@pytest.mark.parametrize("value", ["2001-99-99", "9" * 5000, "&a [*a]", "{" * 3000, ".nan"])
def test_settings_on_the_command_line(refuse, tmp_path, value):
    refuse("epochs", "train", "tiny.yaml", f"train.epochs={value}", "--out", tmp_path / "o")


def test_one_label_far_away_fills_neither_memory_nor_disk(refuse, run, tmp_path):
    far = Labels(SKELETON, {0: Track([1, 3_000_000], np.ones((2, 2, 2)))}, image_size=(48, 64))
    write_labels(tmp_path / "l.json", far)
    assert run("info", tmp_path / "l.json")[0] == 0
    assert run("convert", tmp_path / "l.json", tmp_path / "every.json", "--every", "1")[0] == 0
    refuse("people", "convert", tmp_path / "l.json", tmp_path / "people", "--to", "openpose")
    wide = Labels(Skeleton(tuple(map(str, range(40)))), {0: Track([1, 900_000], np.ones((2, 40, 2)))})
    write_labels(tmp_path / "w.json", wide)
    refuse("o.csv", "convert", tmp_path / "w.json", tmp_path / "o.csv", "--to", "deeplabcut-predictions")


# --- files that take from others ---------------------------------------------------------------------------


def _external(file: h5py.File, name: str) -> None:
    shape, kind = file[name].shape, file[name].dtype
    del file[name]
    kind = kind if kind.kind in "iuf" else np.dtype("S4")
    file.create_dataset(name, shape, kind, external=[("secret.bin", 0, int(np.prod(shape)) * kind.itemsize)])


def _linked(file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = h5py.ExternalLink("other.h5", "/x")


def _soft(file: h5py.File, name: str) -> None:
    """A soft link within the file to a link out of it."""
    del file[name]
    file["out"] = h5py.ExternalLink("other.h5", "/")
    file[name] = h5py.SoftLink("/out/x")


def _virtual(file: h5py.File, name: str) -> None:
    shape, kind = file[name].shape, file[name].dtype
    layout = h5py.VirtualLayout(shape, kind if kind.kind in "iuf" else "S4")
    layout[...] = h5py.VirtualSource("other.h5", "x", shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("change", [_external, _linked, _soft, _virtual])
@pytest.mark.parametrize("form", ["sleap.slp", "nwb.nwb", "deeplabcut.h5"])
def test_hdf5_files_hold_their_data_themselves(refuse, tmp_path, change: Callable, form):
    path = tmp_path / form
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosewarperWarning)
        write_labels(path, labels())
    (tmp_path / "secret.bin").write_bytes(b"SECRET" * 1000)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(
            lambda n: names.append(n) if isinstance(file[n], h5py.Dataset) and file[n].size > 1 else None
        )
        change(file, next(name for name in names if file[name].ndim))
    said = refuse(form, "convert", path, tmp_path / "o.json")
    assert "another file" in said and not (tmp_path / "o.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nv.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile v.mp4\n",
    ],
)
def test_a_list_of_other_files_is_no_video(refuse, tmp_path, text):
    write_video(tmp_path / "v.mp4", [np.zeros((48, 64, 3), np.uint8)] * 9, fps=25)
    (tmp_path / "list.mp4").write_text(text)
    refuse("list.mp4", "info", tmp_path / "list.mp4")


# --- large pictures ----------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    facts = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", facts)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(14_000, 13_000), (100_000, 2000), (30_000, 30_000)])
@pytest.mark.parametrize("alone", [True, False])
def test_pictures_of_too_many_pixels(refuse, tmp_path, recwarn, size, alone):
    folder = tmp_path / "frames"
    folder.mkdir()
    if not alone:
        PIL.Image.new("RGB", (64, 48)).save(folder / "0.png")
    (folder / "1.png").write_bytes(png_header(*size))
    assert "too large" in refuse("1.png", "info", folder)
    assert not recwarn.list


# --- packed files ------------------------------------------------------------------------------------------


def small_model(**more) -> PoseWarper:
    small = {"head_width": 4, "head_blocks": 1, "head_dilations": (1,)} | more
    return PoseWarper(ModelSpec("test_resnet", SKELETON, (64, 64), 1.5, **small))


def _damage(data: bytearray) -> None:
    data[60] ^= 0xFF


def _encrypt(data: bytearray) -> None:
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1
    data[6] |= 1


def _pack_oddly(data: bytearray) -> None:
    at = data.find(b"PK\x01\x02")
    data[at + 10] = data[8] = 99


@pytest.mark.parametrize("change", [_damage, _encrypt, _pack_oddly])
@pytest.mark.parametrize("name", ["p.zip", "p.pt"])
def test_damaged_and_encrypted_archives(refuse, tmp_path, change: Callable, name):
    write_labels(tmp_path / "l.json", labels())
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "v.json", (tmp_path / "l.json").read_text() + " " * 500 + "".join(map(str, range(900)))
        )
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    words = (
        ("info", path)
        if name == "p.pt"
        else ("evaluate", "--ground-truth", tmp_path / "l.json", "--predictions", path)
    )
    refuse(name, *words)


def test_an_archive_that_would_fill_the_disk(refuse, tmp_path):
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("v.json", "w") as entry:
        for _ in range(300):
            entry.write(b" " * 2**20)
    write_labels(tmp_path / "l.json", labels())
    assert "unpack" in refuse(
        "p.zip", "evaluate", "--ground-truth", tmp_path / "l.json", "--predictions", path
    )
    path.rename(tmp_path / "p.pt")
    refuse("p.pt", "info", tmp_path / "p.pt")


LIST = ["x"]
for _ in range(40):
    LIST = [LIST, LIST]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("std", [0.2, 0.2]),
            ("std", [0, 0, 0]),
            ("std", [0.2, float("nan"), 1]),
            ("mean", "abc"),
            ("mean", [1]),
        ),
        *(("trained", 3), ("trained", {"pose": "x"}), ("sigma", -1.0), ("sigma", None), ("crop_size", [64])),
        *(
            ("crop_size", [6400000, 64]),
            ("head_width", 10**9),
            ("head_blocks", 10**9),
            ("head_dilations", [0]),
        ),
        *(("head_dilations", [1] * 10**5), ("provenance", LIST), ("provenance", "x"), ("targets", "other")),
        *(("backbone", None), ("skeleton", {"names": LIST}), ("batch_norm", LIST)),
    ],
)
def test_descriptions_that_no_model_has(refuse, tmp_path, key, value):
    path = tmp_path / "m.pt"
    save_model(path, small_model())
    content = torch.load(path, weights_only=True)
    content["spec"][key] = value
    torch.save(content, path)
    refuse("m.pt", "info", path)


def test_a_small_model_is_still_read(tmp_path):
    save_model(tmp_path / "m.pt", small_model(trained={"pose": 1}, provenance={"a": [1, None, {"b": 0.5}]}))
    assert load_model(tmp_path / "m.pt").spec.trained == {"pose": 1}


# --- what others run or count ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["=1+1", "+x", "-paw", "@sum", "\tx", "'=1", "''-a", "-1.5", "it's", "'quoted'"]
)
@pytest.mark.parametrize("form", ["csv", "deeplabcut"])
def test_names_are_no_formulas_and_come_back(tmp_path, name, form):
    path = tmp_path / "t.csv"
    given = labels(names=("nose", name), track_names={0: name})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        write_labels(path, given, format=form)
    is_formula = name.lstrip("'")[:1] in "=+-@\t" and name != "-1.5"
    assert any("would run as formulas" in str(w.message) for w in said) == is_formula
    cells = [cell for line in path.read_text().splitlines() for cell in line.split(",")]
    assert not any(cell[:1] in "=+@\t" and cell for cell in cells if cell) or not is_formula
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosewarperWarning)
        back = read_labels(path)
    assert back.skeleton.names == ("nose", name.strip() if form else name)
    if form == "deeplabcut":
        assert back.track_names == {0: name.strip()}


def cpu_of(work: Callable[[], object]) -> float:
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosewarperWarning)
        work()
    return time.process_time() - begun


@pytest.mark.parametrize("what", ["keypoints", "tracks", "edges", "images"])
def test_four_times_as_many_take_not_sixteen_times_as_long(run, tmp_path, what):
    def make(n: int) -> Path:
        k, t = (n, 1) if what in ("keypoints", "edges") else (2, n)
        names = tuple(f"k{i}" for i in range(k))
        edges = tuple((i, i + 1) for i in range(k - 1)) if what == "edges" else ()
        frames = [[i] for i in range(t)] if what == "tracks" else [list(range(t))]
        tracks = {i: Track(own, np.full((len(own), k, 2), 3.0)) for i, own in enumerate(frames)}
        path = tmp_path / f"{n}.json"
        write_labels(path, Labels(Skeleton(names, edges), tracks, image_size=(48, 64)))
        return path

    few, many = (
        cpu_of(lambda n=n: run("convert", make(n), tmp_path / f"{n}.csv", "--to", "csv")) for n in (500, 2000)
    )
    assert many < 9 * max(few, 0.1)


def test_a_video_of_metadata_that_are_no_utf8(run, tmp_path):
    import av

    path = tmp_path / "m.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "ZZTITLEZZ"
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(3):
            out.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24"))
            )
        out.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"ZZTITLEZZ", b"T\xe9t\xff\xfe\xe9xxx"))
    assert run("info", path)[0] == 0 and len(open_video(path)) == 3


@pytest.mark.parametrize(
    "folder", ["images/val/../../../outside", "/outside", "..", "C:/outside", "val/..\\..\\x"]
)
def test_prepare_stays_within_the_download(refuse, tmp_path, folder):
    from posewarper.demo.posetrack_tree import write_posetrack_tree

    write_posetrack_tree(tmp_path / "tree", "posetrack18", n_videos=(1, 1), n_frames=6, size=(48, 64))
    (tmp_path / "outside").mkdir()
    file = next(p for p in sorted((tmp_path / "tree").rglob("*.json")) if p.parent.name == "val")
    document = json.loads(file.read_text())
    for image in document["images"]:
        image["file_name"] = f"{folder}/{image['file_name'].rpartition('/')[2]}"
    file.write_text(json.dumps(document))
    said = refuse(file.name, "prepare", "posetrack18", tmp_path / "tree", "--out", tmp_path / "p", "--quiet")
    assert "outside" in said
