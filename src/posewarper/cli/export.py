"""``posewarper export``: a checkpoint for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posewarper.cli.common import (
    DeviceName,
    Overwrite,
    Quiet,
    UnusedDevice,
    UnusedSeed,
    progress_bar,
    refuse_existing,
)

ONNX, PROGRAM = ".onnx", ".pt2"


def run(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CKPT", help="A checkpoint: model.pt, or the original's or mmpose's .pth."),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="OUT.onnx, or OUT.pt2 for PyTorch (torch.export).")
    ],
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    device: UnusedDevice = DeviceName.AUTO,
    seed: UnusedSeed = 0,
) -> None:
    """Write a model as ONNX or by torch.export: the pose network, and the warper beside it.

    OUT.onnx maps normalised crops to heatmaps, OUT.warper.onnx moves heatmaps from one frame to another; both
    take batches of any size. `posewarper predict --model OUT.onnx` finds the second by itself. What was
    written is compared with PyTorch; if it differs, nothing is written.
    """
    kind = out.suffix.lower()
    if kind not in (ONNX, PROGRAM):
        from posewarper.errors import ConfigError

        raise ConfigError(
            "models are exported to ONNX or by torch.export, which the name tells",
            expected="a name that ends in .onnx or .pt2",
            got=out.name,
            fix=f"name it {out.with_suffix(ONNX).name}" if out.name.strip(".") else "name a file",
        )
    from posewarper.model.export import POSE, warper_path

    for place in (out, warper_path(out)):
        refuse_existing(place, overwrite)

    from posewarper.model.checkpoint import load_model
    from posewarper.model.export import export_onnx, export_program

    model = load_model(checkpoint)
    export = export_onnx if kind == ONNX else export_program
    with progress_bar(quiet) as progress:
        written = export(model, out, progress=progress)
    height, width = model.spec.crop_size
    maps = " x ".join(map(str, (len(model.spec.skeleton), *model.heatmap_size)))
    for file in written:
        takes = f"crops of {height} x {width}" if file.part == POSE else "heatmaps of two frames"
        print(f"wrote {file.path} ({file.size / 1e6:.1f} MB): the {file.part}, {takes} to heatmaps of {maps}")
        if file.difference is None:
            print('  not compared with PyTorch: for that, pip install "posewarper[export]"')
        else:
            print(f"  differs from PyTorch by at most {file.difference:.1e}")
    if len(written) == 1:
        print("without a warper: this model's head was never trained, so each frame is predicted alone")
