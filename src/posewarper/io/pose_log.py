"""Poses as they come: lines of JSON that are appended, and a place from which an interrupted run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from posewarper.errors import OutputError
from posewarper.files import replacing
from posewarper.io.folder_lock import sole_writer

_STATE = "state.json"


class PoseLog:
    """A folder of JSON-lines files, to which one record a frame is appended.

    Every record is handed to the system at once, so that others may read along. :meth:`keep` notes how far
    the records are complete, together with the state of whoever makes them; what a killed run wrote after
    that is cut off when the folder is opened again, so that nothing is lost and nothing comes twice.

    Args:
        folder: made if it is not there.
        lines_per_file: a new file is begun at the first :meth:`keep` after so many.

    Raises:
        OutputError: if the folder holds something that is no such log, or another process writes to it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, lines_per_file: int = 10_000) -> None:
        self._folder, self._lines_per_file = Path(folder), lines_per_file
        with ExitStack() as held:
            held.enter_context(sole_writer(folder))
            noted = self._read_state()
            self.state: Mapping[str, Any] | None = noted["state"]
            self._number, self._lines = noted["file"], noted["lines"]
            for path in self._files():
                if int(path.stem) > self._number:
                    path.unlink()
            self._handle = self._place(self._number).open("ab")
            self._handle.truncate(noted["bytes"])
            self._held = held.pop_all()

    def _read_state(self) -> dict[str, Any]:
        path = self._folder / _STATE
        if not path.is_file():
            return {"state": None, "file": 0, "lines": 0, "bytes": 0}
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            size = self._place(noted["file"]).stat().st_size if noted["bytes"] else 0
            whole = size >= noted["bytes"]
        except (ValueError, KeyError, OSError) as error:
            raise self.damaged(error) from error
        if not whole:
            raise self.damaged(f"{self._place(noted['file']).name} is shorter than noted")
        return noted

    def damaged(self, what: object) -> OutputError:
        """Return the error that says that these records are not to be gone on with."""
        return OutputError(
            "the records of the run that is to go on are damaged",
            path=self._folder,
            got=what,
            mend="begin anew with --overwrite",
        )

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:06d}.jsonl"

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.jsonl"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._handle.close()
        self._held.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record of plain values."""
        self._handle.write(json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        self._handle.flush()
        self._lines += 1

    def keep(self, state: Mapping[str, Any]) -> None:
        """Note that all records so far are to be kept, and the state of plain values that belongs to them."""
        os.fsync(self._handle.fileno())
        if self._lines >= self._lines_per_file:
            self._handle.close()
            self._number, self._lines = self._number + 1, 0
            self._handle = self._place(self._number).open("ab")
        size = self._handle.tell()
        noted = {"file": self._number, "lines": self._lines, "bytes": size, "state": dict(state)}
        with replacing(self._folder / _STATE) as temporary:
            temporary.write_text(json.dumps(noted, allow_nan=False), encoding="utf-8")
        self.state = state

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield all records in their order.

        Raises:
            OutputError: if a line is none.
        """
        self._handle.flush()
        for path in self._files():
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise self.damaged(f"line {number} of {path.name}: {error}") from error
