"""``posewarper push``: put a model on Hugging Face, or into a folder, with a description and a card."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewarper.cli import common
from posewarper.errors import ConfigError, ModelError
from posewarper.model.hub import CARD, read_address

if TYPE_CHECKING:
    from posewarper.model.network import PoseWarper


def run(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="model.pt, a folder with a model, or released weights.")
    ],
    address: Annotated[
        str | None, typer.Argument(metavar="[hf:OWNER/NAME]", help="Where it goes on Hugging Face.")
    ] = None,
    to_folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the files that would be uploaded into DIR; upload nothing."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be uploaded, and the card; upload nothing.")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            "--license",
            metavar="ID",
            help="The model's licence as Hugging Face calls it, such as apache-2.0 or cc-by-nc-4.0.",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository that others cannot see.")
    ] = False,
    overwrite: common.Overwrite = False,
    quiet: common.Quiet = False,
    device: common.UnusedDevice = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
) -> None:
    """Put a model where others can use it: on Hugging Face, or in a folder.

    Uploaded are model.safetensors (the weights alone), posewarper.json (what the model is) and README.md (a
    card for people): no code, and no pickled Python objects. The same weights come back, to the last bit:

    posewarper predict clip.mp4 --model hf:OWNER/NAME --whole-frame

    HF_TOKEN holds the token that may write there. --overwrite adds a new version to a repository that holds
    a model already; Hugging Face keeps the old one (hf:OWNER/NAME@COMMIT).
    """
    where = None if address is None else read_address(address)
    if where is None and to_folder is None and not dry_run:
        raise ConfigError(
            "nothing says where the model is to go",
            expected="an address such as hf:OWNER/NAME, --to-folder DIR or --dry-run",
            fix="name one",
        )
    if to_folder is not None and dry_run:
        fix = "leave one of them out: neither uploads anything"
        raise ConfigError("--to-folder writes files and --dry-run writes none", fix=fix)
    common.check_there(model, "a checkpoint of posewarper", ModelError)

    from huggingface_hub.utils import disable_progress_bars

    from posewarper.model.checkpoint import read_checkpoint
    from posewarper.model.folder import FILES, write_folder
    from posewarper.model.hub import upload

    loaded, version = read_checkpoint(model)
    told: dict[str, Any] = {
        "version": version,
        "licence": licence,
        "figures": _figures(model, loaded),
        "address": None if where is None else str(where),
    }
    if to_folder is not None:
        write_folder(to_folder, loaded, **told, overwrite=overwrite)
        _show_files([to_folder / name for name in FILES])
        common.print_line(f"wrote {to_folder}; it can be given as --model {to_folder}")
        return
    with tempfile.TemporaryDirectory(prefix="posewarper-") as temporary:
        folder = Path(temporary) / (model.stem if where is None else where.repository.rpartition("/")[2])
        write_folder(folder, loaded, **told)
        files = [folder / name for name in FILES]
        _show_files(files)
        if dry_run:
            common.print_line(f"\n{(folder / CARD).read_text(encoding='utf-8')}")
            common.print_line("nothing was uploaded")
            return
        assert where is not None
        if quiet:
            disable_progress_bars()
        made = f"Add {folder.name}, {loaded.spec.backbone} with {len(loaded.spec.skeleton)} keypoints"
        seen = upload(where, files, private=private, overwrite=overwrite, message=made)
    common.print_line(f"uploaded to {seen}")
    if licence is None:
        common.print_line("its card names no licence, so nobody knows whether they may use it: --licence ID")
    common.print_line(f"posewarper predict clip.mp4 --model {where} --whole-frame")


def _show_files(files: list[Path]) -> None:
    for file in files:
        common.print_line(f"{file.name}: {file.stat().st_size / 1e6:.3g} MB")


def _figures(path: Path, model: PoseWarper) -> dict[str, Any]:
    """Return what `posewarper train` has measured of this very model, from the run.json beside it."""
    import json
    from contextlib import suppress

    from posewarper.runs import FACTS

    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads((path.parent / FACTS).read_text(encoding="utf-8"))
        if facts["parameters_sha256"] != model.fingerprint() or facts["validation"]["last"] is None:
            return {}
        data = facts["recipe"]["data"]
        if data.get("dataset") or data.get("made_up"):
            what = "mean AP of PoseTrack's evaluation" + (" on made-up videos" if data.get("made_up") else "")
        else:
            what = "keypoints within a tenth of the box's longer side, in percent"
        return {f"validation at the end of the training, {what}": float(facts["validation"]["last"])}
    return {}
