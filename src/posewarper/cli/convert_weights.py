"""``posewarper convert IN.pth OUT.pt``: released weights to a checkpoint that describes itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from posewarper.cli.common import refuse_existing
from posewarper.errors import ConfigError

CHECKPOINT_SUFFIXES = (".pt", ".pth")


def is_checkpoint(path: Path) -> bool:
    """Tell by its name whether a file holds weights."""
    return path.suffix.lower() in CHECKPOINT_SUFFIXES


def convert_weights(
    source: Path, out: Path, *, skeleton: str | None, crop_size: str | None, overwrite: bool
) -> None:
    """Read weights of the original or of mmpose 0.x strictly, and write them as a checkpoint of ours.

    Raises:
        ModelError: if they cannot be read, or a tensor is missing, left over or misshapen.
        ConfigError: if the output is no checkpoint by its name, or the crop size cannot be read.
    """
    if not is_checkpoint(out):
        raise ConfigError(
            "weights can only be written as a checkpoint",
            expected="a name that ends in .pt",
            got=out.name,
            mend=f"name it {out.with_suffix('.pt').name}",
        )
    refuse_existing(out, overwrite)

    from posewarper.model.checkpoint import load_model, save_model
    from posewarper.skeletons import named_skeleton

    size = None if crop_size is None else read_size(crop_size)
    model = load_model(source, skeleton=named_skeleton(skeleton) if skeleton else None, crop_size=size)
    save_model(out, model)
    spec = model.spec
    head = "with a trained warp head" if spec.trained.get("warp") else "without a trained warp head"
    height, width = spec.crop_size
    print(
        f"wrote {out}: {spec.provenance.get('weights', 'checkpoint of posewarper')}, {spec.backbone}, "
        f"{len(spec.skeleton)} keypoints, crops of {height} x {width}, {head}"
    )
    if not spec.trained.get("warp"):
        print("its new head returns heatmaps as they are: for aggregation and propagation train it first")
    for line in spec.provenance.get("unused", ()):
        print(f"not used: {line}")
    if assumed := spec.provenance.get("assumed"):
        print(f"not told by the file, taken from the original's setup: {', '.join(assumed)}")


def refuse_options(given: Mapping[str, object], what: str) -> None:
    """Refuse options that say nothing about what is converted.

    Raises:
        ConfigError: naming those that were given.
    """
    names = [name for name, value in given.items() if value]
    if names:
        raise ConfigError(
            f"{', '.join(names)} cannot be used on {what}",
            mend="leave it out" if len(names) == 1 else "leave them out",
        )


def read_size(text: str) -> tuple[int, int]:
    """Return (height, width) from a text like ``384x288``.

    Raises:
        ConfigError: if it is none.
    """
    match = re.fullmatch(r"(\d+)\s*[xX]\s*(\d+)", text.strip())
    if match is None:
        raise ConfigError(
            "cannot read this size", expected="HEIGHTxWIDTH, such as 384x288", got=text, mend="write it so"
        )
    return int(match[1]), int(match[2])
