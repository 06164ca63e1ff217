"""One family of errors, each of which says how to fix what is wrong.

Everything that a user can cause (a file, a label, an option) ends in a :class:`PosewarperError`; the
command line prints its text and leaves with exit code 2. What is odd but has a sensible result is a
:class:`PosewarperWarning`.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence

_LONGEST = 1000  # letters of what was found that a message shows


class PosewarperError(Exception):
    """Bad input, with the place, the expectation and the fix in one readable message.

    Args:
        what: what is wrong, one sentence without a full stop.
        fix: what the user can do about it.
        path: the file or folder concerned.
        expected: what would have been right.
        got: what was found instead.
    """

    def __init__(
        self,
        what: str,
        *,
        fix: str,
        path: str | os.PathLike[str] | None = None,
        expected: object = None,
        got: object = None,
    ) -> None:
        self.what, self.fix, self.path = what, fix, path
        self.expected, self.got = expected, got
        lines = [f"{os.fspath(path)}: {what}" if path is not None else what]
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if got is not None:
            text = str(got)
            lines.append(f"  got:      {text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}")
        lines.append(f"  fix:      {fix}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Let errors travel to other processes, with the texts of what they name."""
        named = (self.path, self.expected, self.got)
        return _remade, (type(self), self.what, self.fix, *(None if v is None else str(v) for v in named))


def _remade(
    kind: type[PosewarperError], what: str, fix: str, path: str | None, expected: str | None, got: str | None
) -> PosewarperError:
    return kind(what, fix=fix, path=path, expected=expected, got=got)


class VideoError(PosewarperError):
    """A video or a folder of frames that cannot be used."""


class LabelsError(PosewarperError):
    """A label file, or labels that do not fit the video or the skeleton."""


class ModelError(PosewarperError):
    """A checkpoint that cannot be used, or does not fit the data."""


class OutputError(PosewarperError):
    """An output place that is taken or cannot be written."""


class ProcessError(PosewarperError):
    """Another process of the same run has ended, or its machine cannot be reached."""


class ConfigError(PosewarperError):
    """A setting that does not exist or has an impossible value."""


def few_of(names: Sequence[object], most: int = 5) -> str:
    """Return the first of some names for a message: ``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def did_you_mean(got: object, known: Iterable[str], otherwise: str = "use one of the names expected") -> str:
    """Return a fix that suggests the known name most like ``got``; ``otherwise`` where none is like it."""
    near = difflib.get_close_matches(str(got), list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def unknown_name(
    what: str,
    got: object,
    known: Iterable[str],
    *,
    path: str | os.PathLike[str] | None = None,
    error: type[PosewarperError] = ConfigError,
    fix: str | None = None,
) -> PosewarperError:
    """Return the error for a name that is none of those known, such as ``unknown method``.

    The fix suggests by default the known name most like the one given.
    """
    known = list(known)
    fix = fix or did_you_mean(got, known)
    return error(what, path=path, expected=", ".join(known), got=got, fix=fix)


def no_such_file(
    path: str | os.PathLike[str],
    expected: str,
    *,
    error: type[PosewarperError] = ConfigError,
    fix: str = "check the path",
) -> PosewarperError:
    """Return the error for a file or folder that does not exist; ``expected`` says what it should be."""
    what, got = "there is no such file or folder", what_stands_at(path)
    if got is not None:
        what = "this is neither a file nor a folder"
    return error(what, path=path, expected=expected, got=got, fix=fix)


def what_stands_at(path: str | os.PathLike[str]) -> str | None:
    """Return what stands at a path that is neither a file nor a folder, such as a pipe; None for others.

    Whoever opened a pipe would wait for somebody to write to it, perhaps for ever.
    """
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link to nothing"}
    kinds |= {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    try:
        mode = (os.stat if os.path.exists(path) else os.lstat)(path).st_mode
    except (OSError, ValueError):
        return None
    return kinds.get(stat.S_IFMT(mode))


def wrong_type(what: str, got: object, expected: str) -> ConfigError:
    """Return the error for a value of the wrong type that Python code has given, such as ``the labels``."""
    fix = "give one of these; docs/python.md has examples"
    return ConfigError(f"{what}: this is no usable value", expected=expected, got=type(got).__name__, fix=fix)


def need_path(value: object, what: str) -> str:
    """Return a path as text.

    Raises:
        ConfigError: if Python code has given something else.
    """
    if not isinstance(value, str | os.PathLike):
        raise wrong_type(what, value, "a path")
    return os.fspath(value)


def first_sentence(error: BaseException) -> str:
    """Return the first sentence of another library's error, for ``got``; its class where it says nothing.

    What follows is often a dump, or torch's advice to read a file unsafely.
    """
    text = str(error).strip().split("\n")[0].split(". ")[0]
    return text[:200] or type(error).__name__


class PosewarperWarning(UserWarning):
    """Something odd in the input for which there is a sensible result."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in long work; ``kept`` says in a sentence what was saved and how to go on."""

    def __init__(self, kept: str) -> None:
        self.kept = kept
        super().__init__(kept)
