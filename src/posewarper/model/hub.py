"""Models on Hugging Face: where ``hf:OWNER/NAME`` lies on this machine, and how a model gets there.

A model travels as a folder (:mod:`posewarper.model.folder`). Nothing here imports torch, and Hugging Face's
client is imported where it is used, so that commands can look an address over at once.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from posewarper.errors import ConfigError, ModelError, OutputError, PosewarperWarning, first_sentence

PathLike = str | os.PathLike[str]
Result = TypeVar("Result")

PREFIX = "hf:"
DESCRIPTION, WEIGHTS, CARD, CONFIG = "posewarper.json", "model.safetensors", "README.md", "config.json"
"""Files of a model's folder; ``config.json`` is that of transformers, in place of our description."""
_DESCRIBING = (DESCRIPTION, CONFIG)
MODEL_FILES = (DESCRIPTION, CONFIG, WEIGHTS)
"""Those that decide on what a model predicts; others may lie beside them."""
# A small file says at once whether the network answers; weights may be large and the line slow.
# Whether there is a newer one than in the cache is not waited for as long.
_FIRST_SECONDS, _ASK_SECONDS, _WEIGHTS_SECONDS = 60.0, 15.0, 3600.0
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?", re.ASCII)


@dataclass(frozen=True)
class HubAddress:
    """A repository of Hugging Face, ``owner/name``, and a branch, tag or commit of it (None: ``main``)."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_address(path: PathLike) -> bool:
    """Return whether this names a model on Hugging Face, and no file."""
    return os.fspath(path).startswith(PREFIX)


def read_address(path: PathLike) -> HubAddress:
    """Return what an address such as ``hf:owner/name@v1`` names.

    Raises:
        ConfigError: if it is none.
    """
    text = os.fspath(path).replace("\\", "/")  # as paths are written on Windows
    found = _ADDRESS.fullmatch(text.removeprefix(PREFIX))
    if not text.startswith(PREFIX) or found is None or ".." in text or "--" in text.partition("@")[0]:
        raise ConfigError(
            "this is no address of a model on Hugging Face",
            expected=f"{PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION",
            got=text,
            fix=f"write it so, for example {PREFIX}me/mouse-from-above",
        )
    return HubAddress(found["repository"], found["revision"])


def find_model(path: PathLike) -> Path:
    """Return where a model lies on this machine: a file or folder as it is, or what an address names.

    An address is downloaded into Hugging Face's cache (``HF_HOME`` moves it). What the cache holds is used
    where the network does not answer, and always with ``HF_HUB_OFFLINE=1``. Within one process an address
    stays what it was at first.

    Raises:
        ConfigError: if it begins as an address and is none.
        ModelError: if there is no such repository, it holds no model that is known here, or it is neither in
            the cache nor can be downloaded.
    """
    return _fetch(read_address(path)) if is_address(path) else Path(path)


def revision_of(folder: Path) -> str | None:
    """Return the commit of a folder in Hugging Face's cache, None of any other."""
    return folder.name if folder.parent.name == "snapshots" else None


def is_model(path: PathLike) -> bool:
    """Return whether this is an address on Hugging Face, or a folder that holds a model."""
    if is_address(path):
        return True
    place = Path(path)
    return (place / DESCRIPTION).is_file() or ((place / CONFIG).is_file() and (place / WEIGHTS).is_file())


@functools.cache
def _fetch(address: HubAddress) -> Path:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    description = _download_description(address)
    if description is None:
        raise ModelError(
            "this repository holds no model that posewarper can read",
            path=str(address),
            expected=f"what `posewarper push` puts there ({DESCRIPTION} and {WEIGHTS}), or ViTPose as "
            f"transformers keeps it ({CONFIG} and {WEIGHTS})",
            got="neither description",
            fix="check the name and the revision",
        )
    # Of the same commit as the description, even if another is pushed now.
    same = HubAddress(address.repository, revision_of(description.parent) or address.revision)
    try:
        return _download(same, WEIGHTS, _WEIGHTS_SECONDS).parent
    except (LocalEntryNotFoundError, TimeoutError) as error:
        raise _not_at_hand(address, error) from error
    except EntryNotFoundError as error:
        raise ModelError(
            "this repository holds no weights that posewarper can read",
            path=str(address),
            expected=WEIGHTS,
            got="a description without them",
            fix="check the name and the revision; weights in other files (.bin, .pt) are not taken",
        ) from error


def find_weights(address: PathLike) -> Path:
    """Return the file of weights of a repository of any kind, from the cache or downloaded into it.

    Raises:
        ConfigError: if it is no address.
        ModelError: if it cannot be had, or the repository has no such file.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    known = read_address(address)
    try:
        # What is in the cache is used as it is: others' weights do not change, and asking takes its time.
        return _download(known, WEIGHTS, _WEIGHTS_SECONDS, local_files_only=True)
    except LocalEntryNotFoundError:
        pass
    try:
        return _download(known, WEIGHTS, _WEIGHTS_SECONDS)
    except (LocalEntryNotFoundError, TimeoutError) as error:
        raise _not_at_hand(known, error) from error
    except EntryNotFoundError as error:
        what, fix = "this repository holds no such weights", "check the name and the revision"
        raise ModelError(what, path=str(known), expected=WEIGHTS, fix=fix) from error


def _download_description(address: HubAddress) -> Path | None:
    """Return the file that says what a repository holds, None if it holds no such file."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, revision = address.repository, address.revision
    known = any(
        isinstance(try_to_load_from_cache(repository, name, revision=revision), str) for name in _DESCRIBING
    )
    seconds = _ASK_SECONDS if known else _FIRST_SECONDS
    unreachable = None
    for local in (False, True):
        for name in _DESCRIBING:
            try:
                found = _download(address, name, seconds, local_files_only=local)
            except (LocalEntryNotFoundError, TimeoutError) as error:
                unreachable = unreachable or error
                if not local:  # the network is missing: whatever is in the cache will do
                    break
            except EntryNotFoundError:
                pass
            else:
                if local and not constants.HF_HUB_OFFLINE:
                    what = f"Hugging Face does not answer; {address} is taken from the cache of this machine"
                    warnings.warn(what, PosewarperWarning, stacklevel=2)
                return found
        if unreachable is None:
            return None
    assert unreachable is not None
    raise _not_at_hand(address, unreachable) from unreachable


def _download(address: HubAddress, name: str, seconds: float, *, local_files_only: bool = False) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    options = {"revision": address.revision, "local_files_only": local_files_only}
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # else it tells of each of several attempts; we say what came of them
    try:
        return Path(within(seconds, lambda: hf_hub_download(address.repository, name, **options)))
    except (EntryNotFoundError, TimeoutError):
        raise
    except GatedRepoError as error:
        what, fix = (
            "this model is for those whom its owner admits",
            "ask for access on its page, set HF_TOKEN",
        )
        raise ModelError(what, path=str(address), got=first_sentence(error), fix=fix) from error
    except RevisionNotFoundError as error:
        what, fix = "this model has no such revision", "check the branch, tag or commit behind the @"
        raise ModelError(what, path=str(address), got=address.revision, fix=fix) from error
    except RepositoryNotFoundError as error:
        what = "there is no such model on Hugging Face, or it is private"
        fix = "check the name; for a private model set HF_TOKEN to a token that may read it"
        raise ModelError(what, path=str(address), got=first_sentence(error), fix=fix) from error
    except Exception as error:  # a proxy, a full disk, a broken transfer
        raise _not_at_hand(address, error) from error
    finally:
        logger.setLevel(level)


def _not_at_hand(address: HubAddress, error: Exception) -> ModelError:
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    return ModelError(
        "this model is not in the cache of this machine, and "
        + ("HF_HUB_OFFLINE forbids to download it" if offline else "cannot be downloaded"),
        path=str(address),
        expected=f"it in {constants.HF_HUB_CACHE} (HF_HOME moves this folder)",
        got=first_sentence(error),
        fix="run this once "
        + ("without HF_HUB_OFFLINE" if offline else "where there is a network")
        + ", and copy the cache if that is another machine; or give a folder that holds the model's files",
    )


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """Return what the work returns, TimeoutError if it takes longer; it is then left to itself."""
    found: queue.SimpleQueue[tuple[bool, Result | Exception]] = queue.SimpleQueue()

    def run() -> None:
        try:
            found.put((True, work()))
        except Exception as error:
            found.put((False, error))

    # A daemon, for which the interpreter does not wait in the end.
    threading.Thread(target=run, daemon=True).start()
    try:
        done, result = found.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"the download has not ended in {seconds:.0f} s") from None
    if not done:
        raise result  # type: ignore[misc]
    return result  # type: ignore[return-value]


def upload(
    address: HubAddress, files: Sequence[Path], *, private: bool, overwrite: bool, message: str
) -> str:
    """Put files into a repository of Hugging Face, in one commit; returns where they are to be seen.

    The repository is made if there is none, by the token in ``HF_TOKEN`` or that of ``hf auth login``.

    Args:
        address: the repository, and perhaps an existing branch of it.
        files: are called there as they are here.
        private: whether a new repository is for its owner alone; one that is there stays as it is.
        overwrite: add a commit to a repository that holds files already.
        message: of the commit.

    Raises:
        OutputError: if it holds files already, or cannot be written.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    api = HfApi()
    try:
        api.create_repo(address.repository, private=private, exist_ok=True)
        there = set(api.list_repo_files(address.repository, revision=address.revision)) - {".gitattributes"}
        if not there or overwrite:
            api.create_commit(
                address.repository,
                [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in files],
                commit_message=message,
                revision=address.revision,
            )
            return f"{constants.ENDPOINT}/{address.repository}"
    except Exception as error:  # no token, no right to write, no network, ...
        raise OutputError(
            "cannot put this model on Hugging Face",
            path=str(address),
            got=first_sentence(error),
            fix="set HF_TOKEN to a token that may write there (https://huggingface.co/settings/tokens), and "
            "check name and network; --to-folder writes the same files here",
        ) from error
    raise OutputError(
        "this repository holds files already",
        path=str(address),
        got=", ".join(sorted(there)[:5]),
        fix="name another, or add a new version with --overwrite (Hugging Face keeps the old one)",
    )
