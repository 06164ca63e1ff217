"""What a preparation has done so far, so that a run which was stopped goes on, and the index at its end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from posewarper.errors import LabelsError, OutputError
from posewarper.files import replacing
from posewarper.posetrack.dataset import FORMAT, FORMAT_VERSION, INDEX_NAME, labels_path, read_index
from posewarper.posetrack.layouts import PREPARED, Layout
from posewarper.posetrack.summary import Summary
from posewarper.version import __version__

PROGRESS_NAME = PREPARED[1]
_Record = dict[str, Any]


@dataclass
class Records:
    """The videos done, by split and stem, and the file to which each is appended when it is done.

    Args:
        done: what the index says of each video.
        complete: whether they are of a run that came to its end.
    """

    done: dict[tuple[str, str], _Record] = field(default_factory=dict)
    complete: bool = False
    _file: TextIO | None = field(default=None, repr=False)

    def add(self, record: _Record) -> None:
        """Note that a video is done; its labels have been written."""
        self.done[record["split"], record["file_stem"]] = record
        if self._file is not None:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
            self._file.flush()


@contextmanager
def start(out: Path, layout: Layout, overwrite: bool) -> Iterator[Records]:
    """Give what earlier runs into the same folder have done.

    Raises:
        OutputError: if the folder holds other files, or a dataset from another download.
    """
    index, journal = out / INDEX_NAME, out / PROGRESS_NAME
    is_ours = index.is_file() or journal.is_file()
    if out.exists() and not is_ours and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            "this folder holds other files" if out.is_dir() else "this is no folder",
            path=out,
            mend="name a new folder",
        )
    if is_ours and overwrite:
        _clear(out)
    records = Records()
    header = {"format": FORMAT, "format_version": FORMAT_VERSION}
    header |= {"kind": layout.kind, "source": str(layout.download)}
    if index.is_file():
        found = _readable_index(out)
        _check_same(header, found, out)
        records.complete = True
        records.done = {(r["split"], r["file_stem"]): r for r in found["videos"]}
    lines = _read_lines(journal)
    if lines:
        _check_same(header, lines[0], out)
        records.done |= {(r["split"], r["file_stem"]): r for r in lines[1:]}
        records.complete = False
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        records._file = journal.open("a" if lines else "w", encoding="utf-8")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise OutputError(
            "cannot write into this folder", path=out, got=error, mend="name another"
        ) from error
    try:
        with records._file:
            # To go on, a line of its own: the last one may have been cut off.
            records._file.write(json.dumps(header) + "\n" if not lines else "\n")
            yield records
    finally:
        if is_new and os.listdir(out) == [PROGRESS_NAME] and not records.done:  # failed before it began
            journal.unlink()
            out.rmdir()


def _readable_index(out: Path) -> dict[str, Any]:
    """Return the index of an earlier run.

    Raises:
        OutputError: if it is damaged or of another version.
    """
    try:
        return read_index(out)
    except LabelsError as error:
        mend = "prepare it anew with --overwrite"
        raise OutputError(error.what, path=out, expected=error.expected, got=error.got, mend=mend) from error


def _read_lines(journal: Path) -> list[dict[str, Any]]:
    """Return what a stopped run has noted; a line that was cut off does not count."""
    if not journal.is_file():
        return []
    lines = []
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines if lines and lines[0].get("format") == FORMAT else []


def _check_same(wanted: dict[str, Any], found: dict[str, Any], out: Path) -> None:
    """Raise OutputError if a folder holds a dataset of another kind, from another place or version."""
    for key, value in wanted.items():
        if found.get(key) != value:
            raise OutputError(
                "this folder holds a dataset that was prepared from something else",
                path=out,
                expected=f"{key} {value}",
                got=f"{key} {found.get(key)}",
                mend="name another folder, or prepare it anew with --overwrite",
            )


def finish(out: Path, layout: Layout, images: Path, records: Sequence[_Record], summary: Summary) -> None:
    """Write the index, link the frames, and take away what belongs to a run that is under way."""
    _link(out / "images", images)
    index = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "posewarper": __version__,
        "kind": layout.kind,
        "layout": layout.name,
        "source": str(layout.download),
        "images": str(images),
        "box_files": {split: str(path) for split, path in layout.box_files.items()},
        "selections": {stem: str(path) for stem, path in layout.selections.items()},
        "summary": {key: value for key, value in asdict(summary).items() if key != "n_kept"},
        "videos": list(records),
    }
    with replacing(out / INDEX_NAME) as temporary:
        temporary.write_text(_dumps(index), encoding="utf-8")
    kept = {labels_path(out, record["split"], record["file_stem"]) for record in records}
    for file in (out / "annotations").glob("*/*.json"):
        if file not in kept:
            file.unlink()
    (out / PROGRESS_NAME).unlink()


def _dumps(index: dict[str, Any]) -> str:
    """Return JSON with a line for each video."""
    videos = ",\n".join("  " + json.dumps(video, separators=(",", ":")) for video in index["videos"])
    head = json.dumps(index | {"videos": []}, indent=1)
    return head.replace('"videos": []', f'"videos": [\n{videos}\n ]') + "\n"


def _link(link: Path, images: Path) -> None:
    """Make a link to the frames; where the system cannot, the path in the index has to do."""
    if link.is_symlink():
        if os.readlink(link) == str(images):
            return
        link.unlink()
    try:
        link.symlink_to(images, target_is_directory=True)
    except (OSError, NotImplementedError):
        return


def _clear(out: Path) -> None:
    """Take away what preparation writes, and nothing else."""
    for name in (INDEX_NAME, PROGRESS_NAME, "missing.txt"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "annotations", ignore_errors=True)
    if (out / "images").is_symlink():
        (out / "images").unlink()
