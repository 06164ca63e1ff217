"""``posewarper export``: write a checkpoint as ONNX, for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posewarper.cli import common
from posewarper.errors import ConfigError


def run(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CKPT", help="A checkpoint: model.pt, or the original's or mmpose's .pth."),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT.onnx", help="Where to write; the warper goes beside it.")
    ],
    overwrite: common.Overwrite = False,
    quiet: common.Quiet = False,
    device: common.UnusedDevice = common.DeviceName.AUTO,
    seed: common.UnusedSeed = 0,
) -> None:
    """Write a model as ONNX: the pose network, and the warper beside it.

    OUT.onnx maps normalised crops to heatmaps, OUT.warper.onnx moves heatmaps from one frame to another; both
    take batches of any size. `posewarper predict --model OUT.onnx` finds the second by itself. The command
    compares what it has written with PyTorch; if that differs, it keeps nothing.
    """
    from posewarper.model.export import ONNX_SUFFIX, POSE, export_onnx, warper_path

    if out.suffix.lower() != ONNX_SUFFIX:
        raise ConfigError(
            "a model can only be exported to ONNX",
            expected=f"a name that ends in {ONNX_SUFFIX}",
            got=out.name,
            fix=f"name it {out.with_suffix(ONNX_SUFFIX).name}" if out.name.strip(".") else "name a file",
        )
    for place in (out, warper_path(out)):
        common.refuse_existing(place, overwrite)

    from posewarper.model.checkpoint import load_model

    model = load_model(checkpoint)
    with common.progress_bar(quiet) as progress:
        written = export_onnx(model, out, progress=progress)
    height, width = model.spec.crop_size
    maps = " x ".join(map(str, (len(model.spec.skeleton), *model.spec.heatmap_size)))
    for file in written:
        takes = f"crops of {height} x {width}" if file.part == POSE else "heatmaps of two frames"
        size = file.path.stat().st_size / 1e6
        common.print_line(
            f"wrote {file.path} ({size:.1f} MB): the {file.part}, {takes} to heatmaps of {maps}"
        )
        if file.difference is None:
            common.print_line("  not compared with PyTorch: for that, pip install onnxruntime")
        else:
            common.print_line(f"  differs from PyTorch by at most {file.difference:.1e}")
    if len(written) == 1:
        common.print_line(
            "without a warper: this model's head was never trained, so each frame is predicted alone"
        )
