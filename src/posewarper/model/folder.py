"""A model as a folder that travels: weights, a description and a card, none of which is code.

``model.safetensors`` holds the tensors and nothing else, ``posewarper.json`` what the model is
(:class:`~posewarper.model.network.ModelSpec`), its licence and the hash of the weights, and ``README.md`` is
the card that Hugging Face shows. :func:`posewarper.model.checkpoint.load_model` reads such a folder as it
reads a ``model.pt``; the weights are the same to the last bit.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from posewarper.errors import ModelError, OutputError, few_of
from posewarper.files import replacing_folder, sha256_of, write_json, write_text
from posewarper.model.hub import CARD, DESCRIPTION, WEIGHTS
from posewarper.model.network import PoseWarper, count_parameters
from posewarper.model.pretrained import read_file
from posewarper.version import __version__

PathLike = str | os.PathLike[str]

FORMAT = "posewarper model folder"
FORMAT_VERSION = 1
FILES = (CARD, DESCRIPTION, WEIGHTS)
_KEYS = {
    "format": str,
    "format_version": int,
    "posewarper": str | None,
    "packed_with": dict,
    "licence": str | None,
    "figures": dict,
    "weights": dict,
    "spec": dict,
}
_FIX = "fetch the folder again, or write it anew with `posewarper push MODEL --to-folder DIR`"
_LARGEST_DESCRIPTION = 2**22  # bytes
_PLACE = re.compile(r"~?/|~|[A-Za-z]:[\\/]|\\\\")


def write_folder(
    path: PathLike,
    model: PoseWarper,
    *,
    version: str | None = __version__,
    licence: str | None = None,
    figures: Mapping[str, Any] | None = None,
    address: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model as a folder, whole or not at all.

    Of paths to files elsewhere, which the model's provenance may name, only the last part is kept: nobody
    else has them, and they may say more than is meant to be told.

    Args:
        path: of the folder, whose name is the model's where there is no address.
        model: of which the parameters and the specification are written.
        version: the posewarper that made it.
        licence: of the model, as Hugging Face calls it (``apache-2.0``); None if it is not known.
        figures: what was measured with it: name -> number, or a text that says what the number means.
        address: where it will lie, for the card: ``hf:owner/name``.
        overwrite: replace a folder that is there and holds such a model.

    Raises:
        OutputError: if the place is taken or cannot be written.
    """
    target = Path(path)
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise OutputError(
            "this folder holds files already",
            path=target,
            got=few_of(sorted(place.name for place in target.iterdir())),
            fix="name another folder, or allow it to be replaced with --overwrite",
        )
    with replacing_folder(target, lambda place: place.name in FILES and place.is_file()) as folder:
        # Without what tensors may share, which the format has no place for.
        state = {n: v.detach().cpu().contiguous().clone() for n, v in model.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "posewarper": version,
            "packed_with": {"posewarper": __version__, "torch": torch.__version__},
            "licence": licence,
            "figures": _publishable(dict(figures or {})),
            "weights": {
                "file": WEIGHTS,
                "bytes": (folder / WEIGHTS).stat().st_size,
                "sha256": sha256_of(folder / WEIGHTS),
                "parameters_sha256": model.fingerprint(),
            },
            "spec": _publishable(model.spec.to_dict()),
        }
        write_json(folder / DESCRIPTION, description)
        write_text(
            folder / CARD, _card(description, count_parameters(model), address, target.absolute().name)
        )


def read_folder(path: Path) -> Mapping[str, Any]:
    """Return what such a folder holds, as a checkpoint of ours does: ``spec``, ``state`` and ``version``.

    Nothing in it is run: the description is JSON with known names, the weights are tensors.

    Raises:
        ModelError: if a file is missing or damaged, or the weights are not those of the description.
    """
    description = _read_description(path / DESCRIPTION)
    weights = path / WEIGHTS
    state = read_file(weights, "the weights of this model", _FIX)
    told, size, sha256 = description["weights"], weights.stat().st_size, sha256_of(weights)
    if (told.get("bytes"), told.get("sha256")) != (size, sha256):
        raise ModelError(
            "these are not the weights that the description beside them is about",
            path=weights,
            expected=f"{told.get('bytes')} bytes with the SHA-256 {str(told.get('sha256'))[:16]}...",
            got=f"{size} bytes with the SHA-256 {sha256[:16]}...",
            fix=_FIX,
        )
    return {"version": description["posewarper"], "spec": description["spec"], "state": state}


def _read_description(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_DESCRIPTION:
            raise ValueError(f"{path.stat().st_size} bytes")
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "cannot read the description of this model",
            path=path,
            expected="the JSON that `posewarper push` writes",
            got=str(error)[:200],
            fix=_FIX,
        ) from error
    if values.get("format") == FORMAT and isinstance(values.get("format_version"), int):
        newer = values["format_version"] > FORMAT_VERSION
        if newer:
            raise ModelError(
                "a newer posewarper has written this model",
                path=path,
                expected=f"format version {FORMAT_VERSION} or less",
                got=values["format_version"],
                fix="update posewarper",
            )
    wrong = [n for n in {*_KEYS, *values} if n not in _KEYS or not isinstance(values.get(n), _KEYS[n])]
    if wrong or values["format"] != FORMAT:
        raise ModelError(
            "this is not the description of a model of posewarper",
            path=path,
            expected=f"format {FORMAT!r} and {few_of(list(_KEYS)[1:], 10)}",
            got=f"missing, unknown or of another kind: {few_of(sorted(wrong))}"
            if wrong
            else values["format"],
            fix=_FIX,
        )
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the number {name}")


def _publishable(value: Any) -> Any:
    """Return plain values for JSON: paths without their folders, and None for what is no number."""
    if isinstance(value, Mapping):
        return {str(name): _publishable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_publishable(item) for item in value]
    if isinstance(value, str) and _PLACE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the card ---------------------------------------------------------------------------------------------

_CITATIONS = """\
```bibtex
@inproceedings{bertasius2019posewarper,
  title = {Learning Temporal Pose Estimation from Sparsely-Labeled Videos},
  author = {Bertasius, Gedas and Feichtenhofer, Christoph and Tran, Du and Shi, Jianbo and
            Torresani, Lorenzo},
  booktitle = {Advances in Neural Information Processing Systems 32},
  year = {2019}
}
@software{posewarper,
  title = {posewarper},
  author = {{The posewarper developers}},
  version = {VERSION}
}
```
"""
_USE = f"""\
```bash
pip install posewarper
posewarper predict clip.mp4 --model MODEL --whole-frame --out poses
posewarper info MODEL
```

`--whole-frame` looks for one instance; with several, say where to look with `--detector default`,
`--boxes FILE` or `--labels FILE`. In Python:
`posewarper.predict("clip.mp4", "MODEL", whole_frame=True).poses`. Loading it runs no code: `{WEIGHTS}` holds
tensors alone, and `{DESCRIPTION}` says what they are.
"""
_TARGETS = {
    "paper": "Gaussians on whole heatmap pixels, as the paper's",
    "exact": "Gaussians on exact positions",
    "udp": "Gaussians on exact positions, corner pixels of heatmap and crop on each other (UDP)",
}


def _card(description: Mapping[str, Any], parameters: int, address: str | None, name: str) -> str:
    """Return the model card: what Hugging Face shows of the model, and what a stranger needs to use it."""
    spec, licence = description["spec"], description["licence"]
    title = _text(address.rpartition("/")[2].partition("@")[0] if address else name)
    where = address or name
    skeleton, trained = spec["skeleton"], spec["trained"]
    names = [_text(each) for each in skeleton["names"]]
    edges = [f"{names[a]} - {names[b]}" for a, b in skeleton["edges"]]
    head = "and a trained warp head, which sums neighbouring frames" if trained.get("warp") else ""
    targets, figures = _TARGETS.get(spec["targets"], spec["targets"]), description["figures"]
    width, blocks, dilations = spec["head_width"], spec["head_blocks"], _numbers(spec["head_dilations"])
    crop, colours = spec["crop_size"], (_numbers(spec["mean"]), _numbers(spec["std"]))
    rows = {
        "keypoints": f"{len(names)}: {', '.join(names)}",
        "edges": ", ".join(edges) or "none",
        "backbone": f"`{_text(spec['backbone'])}`, neck `{_text(spec['neck'])}`",
        "parameters": f"{parameters:,}",
        "crop": f"{crop[0]} x {crop[1]} pixels (height x width), around the box widened by a quarter",
        "colours": f"mean {colours[0]}, deviation {colours[1]} of red, green and blue from 0 to 1",
        "targets": f"{targets}, sigma {spec['sigma']:g} heatmap pixels",
        "warp head": f"{width} channels, {blocks} blocks, dilations {dilations}"
        + ("" if trained.get("warp") else "; not trained"),
        "batch norms": _text(spec["batch_norm"]),
        "made with": f"posewarper {_text(description['posewarper'] or 'unknown')}",
        "parameters' SHA-256": f"`{description['weights']['parameters_sha256']}`",
    }
    sections = {
        "What it is": ["| | |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows.items())],
        "What it was trained on": [f"- {line}" for line in _training(spec)],
        "Figures": [
            f"- {_text(what)}: {f'{value:.4g}' if isinstance(value, float) else _text(value)}"
            for what, value in figures.items()
        ]
        or ["None are recorded. Measure on labels of your own before you rely on it."],
        "Licence": [_text(licence or "Not stated. Ask whoever published this model before you use it.")],
        "Use it": _USE.replace("MODEL", where).splitlines(),
        "Cite": _CITATIONS.replace("VERSION", __version__).splitlines(),
    }
    what = (
        f"A pose network {head}".rstrip()
        + f" of posewarper: it finds {len(names)} keypoints of each instance"
    )
    lines = [_front_matter(licence), f"# {title}", "", f"{what} on every frame of a video."]
    for heading, content in sections.items():
        lines += ["", f"## {heading}", "", *content]
    return "\n".join(lines) + "\n"


def _front_matter(licence: str | None) -> str:
    lines = [] if licence is None else [f"license: {json.dumps(licence)}"]
    lines += ["library_name: posewarper", "pipeline_tag: keypoint-detection"]
    lines += ["tags:", "- posewarper", "- pose-estimation", "- keypoint-detection", "- video"]
    return "\n".join(["---", *lines, "---"])


def _training(spec: Mapping[str, Any]) -> list[str]:
    """Return in sentences what the specification tells of the training."""
    known, lines = spec["provenance"], []
    stages = ", ".join(f"{_text(stage)}: {n} iterations" for stage, n in spec["trained"].items())
    if "weights" in known:  # of others, whose iterations are not known
        lines.append(f"Weights: {_text(known['weights'])}, from `{_text(known.get('file', 'a file'))}`.")
        if known.get("assumed"):
            assumed = ", ".join(map(_text, known["assumed"]))
            lines.append(f"The file does not say, so taken from its usual setup: {assumed}.")
    elif stages:
        lines.append(f"Training: {stages}.")
    if known.get("video"):
        n = known.get("labelled_frames")
        lines.append(f"Labels: {n} labelled frames of `{_text(known['video'])}`.")
    if isinstance(known.get("recipe"), Mapping):
        data = known["recipe"].get("data") or {}
        told = {n: v for n, v in data.items() if v not in (None, [], {}, "")}
        lines.append(f"Data of the recipe: `{_text(json.dumps(told))}`.")
    if isinstance(known.get("backbone_weights"), Mapping):
        lines.append(f"The backbone started from {_text(known['backbone_weights'].get('source'))}.")
    if known.get("learned_further_from"):
        lines.append(f"It learned further from the model {_text(known['learned_further_from'])[:16]}.")
    if known.get("stopped"):
        lines.append(f"Its training was stopped at {_text(known['stopped'])}.")
    return lines or ["Nothing is recorded."]


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _text(value: object) -> str:
    """Return a text that cannot break a line, a table or a block of code."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "/").replace("`", "'").replace("<", "(").strip()
