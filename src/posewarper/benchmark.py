"""Methods side by side: keep every k-th label of a clip, propagate, and score on the labels left out.

Finished parts are cached, so that an interrupted comparison resumes where it was. A part is used again only
if everything that it depends on is the same: video, labels, settings, machine and this package's source.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from posewarper import fitting
from posewarper.errors import ConfigError, Interrupted, LabelsError, ModelError, VideoError
from posewarper.evaluation.clips import keep_every, score_clip, withhold
from posewarper.files import sha256_of, tag_cache, write_json
from posewarper.model import checkpoint
from posewarper.model.network import PoseWarper
from posewarper.model.pretrained import BackboneWeights, read_backbone_weights
from posewarper.model.runtime import resolve_device
from posewarper.options import NetworkConfig, effort_config
from posewarper.propagation.clip import Clip, prepare_clip
from posewarper.runs import claim
from posewarper.structures import Labels, Progress, silent
from posewarper.version import __version__
from posewarper.video.source import Video, open_video


@dataclass(frozen=True)
class _Comparison:
    """What all parts of one comparison share; ``identity`` is what its cached parts depend on."""

    video: str | os.PathLike[str]
    dense: Labels
    seed: int
    effort: str
    device: str
    network: NetworkConfig
    start: BackboneWeights | None
    cache: Path | None
    identity: Mapping[str, Any]
    progress: Progress

    @contextmanager
    def place(self, kept: Labels) -> Iterator[Path | None]:
        """Claim the folder in the cache of what depends on some kept labels; gives None without a cache."""
        if self.cache is None:
            yield None
            return
        # The labels left out have no say in the model.
        request = {**self.identity, "kept": kept.fingerprint()}
        folder = self.cache / _digest(request)[:24]
        with claim(folder, request, ("model.*", "every*.json"), overwrite=None, again=True) as claimed:
            claimed.begin()
            yield folder

    def within(self, prefix: str) -> Progress:
        """Return a progress that names its stages after what they are part of."""
        return lambda what, done, total: self.progress(f"{prefix}: {what}", done, total)


def compare(
    video: str | os.PathLike[str],
    dense: Labels,
    *,
    every: Sequence[int],
    methods: Sequence[str],
    withheld: float = 0.0,
    seed: int = 0,
    effort: str = "normal",
    network: NetworkConfig | None = None,
    device: str = "auto",
    cache: Path | None = None,
    known: Mapping[int, tuple[Clip, float]] | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Propagate from every k-th label by several methods and score each on the labels left out.

    Args:
        video: a video file or a folder of frames.
        dense: labels of all or most frames; see :func:`~posewarper.evaluation.clips.score_clip`.
        every: gaps k; the labels of frames k//2, k//2 + k, ... are kept.
        methods: names in ``posewarper.fitting.METHODS``.
        withheld: share of the keypoints of each kept label that is left out of it, drawn by ``seed``; they
            are scored as well.
        seed, effort, network, device: as :func:`posewarper.fitting.propagate` takes them.
        cache: folder in which finished parts are kept and looked for; None keeps nothing.
        known: gap -> the clip with the optical flow from the labels kept, and the seconds that it took, where
            it was computed before; of an opened video.
        progress: told about each method, and about the stages within it.

    Returns:
        One JSON-safe dict for each gap and method, in this order, with ``clip``, ``every``, ``n_labels``
        (labelled frames kept), ``withheld``, ``method``, ``seed``, the figures of ``ClipScore.to_row()``,
        ``seconds`` (wall time of the method, with the optical flow that it shares with others) and
        ``fit_seconds`` (wall time of fitting the model that it shares with others, 0 if it needs none).

    Raises:
        ConfigError: if a gap, a share, a method, the effort, the device or the network is impossible.
        ModelError: if the weights that the network is to start from cannot be used.
        LabelsError: if no label is kept, or none is left to score on.
        VideoError: if there is no such video.
        OutputError: if the cache cannot be written.
        Interrupted: on Ctrl-C, if there is a cache.
    """
    dense = dense.only_labelled()
    gaps, methods = check_gaps(every, dense), check_methods(methods, effort)
    resolved, network = resolve_device(device).type, network or NetworkConfig()
    start = read_backbone_weights(network, trains=any(fitting.needs_model(m, effort) for m in methods))
    identity: dict[str, Any] = {}
    if cache is not None:
        identity = {
            "video": _video_digest(Path(video)),
            "seed": seed,
            "effort": effort,
            "version": __version__,
            "source": source_digest(),
            "machine": describe_machine(resolved),
            "network": {**network.model_dump(mode="json"), "backbone_weights": start and start.sha256},
        }
        # A folder that cannot be written shows before the work, not after.
        tag_cache(cache, "Finished parts of comparisons by posewarper.")
    comparison = _Comparison(video, dense, seed, effort, resolved, network, start, cache, identity, progress)
    rows: list[dict[str, Any]] = []
    total = len(gaps) * len(methods)
    try:
        for gap in gaps:
            kept = withhold(keep_every(dense, gap), withheld, seed)
            with open_video(video) as opened, comparison.place(kept) as place:
                fitting.check_labels(opened, dense)
                shared = _Gap(comparison, gap, withheld, kept, opened, place)
                if known is not None and gap in known:
                    shared.take(*known[gap])
                for method in methods:
                    progress("methods", len(rows), total)
                    part = place and place / f"every{gap}-{method}-{dense.fingerprint()[:24]}.json"
                    row = _read_part(part)
                    if row is None:
                        row = shared.score(method)
                        if part is not None:
                            write_json(part, row)
                    rows.append(row)
            progress("methods", len(rows), total)
    except KeyboardInterrupt as error:
        if cache is None:
            raise
        raise Interrupted(f"finished parts are kept in {cache}; the same command resumes there") from error
    return rows


def usable_methods(effort: str) -> list[str]:
    """Return the methods that an effort allows: all, or those without a network.

    Raises:
        ConfigError: if there is no such effort.
    """
    trains = effort_config(effort).pose_iterations > 0
    return [name for name in fitting.METHODS if trains or not fitting.needs_model(name, effort)]


def check_methods(methods: Sequence[str], effort: str) -> list[str]:
    """Return the methods, each once.

    Raises:
        ConfigError: if there is no such effort, a name is unknown, a method needs a network that the effort
            does not train, or there is no method.
    """
    usable = usable_methods(effort)
    unknown = [name for name in methods if name not in fitting.METHODS]
    if unknown or not methods:
        raise ConfigError(
            "unknown method" if unknown else "no method to compare",
            expected=", ".join(usable),
            got=", ".join(unknown) or None,
            fix="name one or more of the methods expected",
        )
    untrained = [name for name in methods if name not in usable]
    if untrained:
        raise ConfigError(
            f"a method needs a network, and the effort {effort!r} trains none",
            expected=", ".join(usable),
            got=", ".join(untrained),
            fix="raise the effort, or leave this method out",
        )
    return list(dict.fromkeys(methods))


def check_gaps(every: Sequence[int], dense: Labels) -> list[int]:
    """Return the gaps, each once.

    Raises:
        ConfigError: if a gap is below 1 or not below the clip's length, or there is none.
        LabelsError: if a gap keeps no label or leaves none to score on.
    """
    labelled = dense.labelled_frames
    n_frames = dense.n_frames or (int(labelled[-1]) + 1 if labelled.size else 0)
    impossible = [gap for gap in every if not 1 <= gap < n_frames]
    if impossible or not every:
        raise ConfigError(
            "labels cannot be kept on every k-th frame of this clip",
            expected=f"gaps k from 1 to {n_frames - 1}, as the clip has {n_frames} frames",
            got=", ".join(map(str, impossible)) or "no gap",
            fix="choose gaps that are smaller than the clip",
        )
    for gap in every:
        kept = keep_every(dense, gap)
        if not kept.tracks or len(kept.labelled_frames) == len(labelled):
            raise LabelsError(
                f"keeping every {gap}-th label leaves nothing to "
                + ("score on" if kept.tracks else "propagate from"),
                expected=f"labels on frames {gap // 2}, {gap // 2 + gap}, ... and on others",
                got=f"{len(labelled)} labelled frames, {len(kept.labelled_frames)} of them kept",
                fix="choose another gap, or give labels of more frames",
            )
    return list(dict.fromkeys(every))


def describe_machine(device: str) -> dict[str, Any]:
    """Return what timings depend on: system, processor, device and versions.

    Raises:
        ConfigError: if there is no such device.
    """
    resolved = resolve_device(device)
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "device": resolved.type,
        "gpu": torch.cuda.get_device_name(resolved) if resolved.type == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def source_digest() -> str:
    """Return a hash of this package's source files, so that parts made by other code are not used again."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


@dataclass
class _Gap:
    """One gap, and what its methods share: the kept labels, the clip with its optical flow, the model."""

    comparison: _Comparison
    gap: int
    withheld: float
    kept: Labels
    video: Video
    place: Path | None  # for its parts
    _clips: dict[bool, tuple[Clip, float]] = field(default_factory=dict)
    _models: dict[bool, tuple[PoseWarper, float]] = field(default_factory=dict)

    def clip(self, *, flow: bool) -> tuple[Clip, float]:
        """Return the clip with or without optical flow, and the seconds that it took the first time."""
        if flow not in self._clips:
            started = time.perf_counter()
            progress = self.comparison.within(f"every {self.gap}")
            narrow = not fitting.needs_model("default", self.comparison.effort)
            clip = prepare_clip(self.video, self.kept, flow=flow, narrow=narrow, progress=progress)
            self._clips[flow] = clip, time.perf_counter() - started
        return self._clips[flow]

    def take(self, clip: Clip, seconds: float) -> None:
        """Take over a clip with its optical flow, which took some seconds."""
        self._clips[True] = clip, seconds

    def model(self, method: str) -> tuple[PoseWarper, float]:
        """Return the model that a method uses, and the seconds until it was fitted.

        They are fitted on the kept labels, once for all methods, or come from the cache.
        """
        config = effort_config(self.comparison.effort)
        whole = fitting.needs_all_stages(method, config)
        if whole not in self._models:
            self._models[whole] = self._read_model(whole) or self._fit(whole)
        return self._models[whole]

    def _read_model(self, whole: bool) -> tuple[PoseWarper, float] | None:
        path, record = self._files(whole)
        known = _read_part(record)
        if known is None or path is None:
            return None
        try:
            loaded = checkpoint.load_model(path).to(resolve_device(self.comparison.device))
        except ModelError:
            return None  # it is fitted again
        return loaded, known["fit_seconds"]

    def _files(self, whole: bool) -> tuple[Path | None, Path | None]:
        name = "model" if whole else "model_on_labels"
        return self.place and self.place / f"{name}.pt", self.place and self.place / f"{name}.json"

    def _fit(self, whole: bool) -> tuple[PoseWarper, float]:
        clip, _ = self.clip(flow=True)
        comparison, started = self.comparison, time.perf_counter()
        model = fitting.fit_clip(
            clip,
            effort_config(comparison.effort),
            comparison.network,
            start=comparison.start,
            seed=comparison.seed,
            device=comparison.device,
            further=whole,
            progress=comparison.within(f"every {self.gap}, fitting"),
        )
        seconds = time.perf_counter() - started
        path, record = self._files(whole)
        if path is not None and record is not None:
            checkpoint.save_model(path, model)
            write_json(record, {"fit_seconds": seconds})
        return model, seconds

    def score(self, method: str) -> dict[str, Any]:
        """Propagate by a method and return its row."""
        comparison = self.comparison
        model, fit_seconds = None, 0.0
        if fitting.needs_model(method, comparison.effort):
            model, fit_seconds = self.model(method)
        clip, clip_seconds = self.clip(flow=method not in fitting.INTERPOLATIONS)
        started = time.perf_counter()
        progress = comparison.within(f"every {self.gap}")
        poses = fitting.propagate_clip(clip, method, model, progress=progress)
        seconds = clip_seconds + time.perf_counter() - started
        path = Path(comparison.video)
        return {
            "clip": path.name if path.is_dir() else path.stem,
            "every": self.gap,
            "n_labels": len(self.kept.labelled_frames),
            "withheld": self.withheld,
            "method": method,
            "seed": comparison.seed,
            **score_clip(poses, comparison.dense, self.kept).to_row(),
            "seconds": seconds,
            "fit_seconds": fit_seconds,
        }


def _read_part(path: Path | None) -> dict[str, Any] | None:
    """Return what a part holds; None if there is none or it is damaged."""
    if path is None or not path.is_file():
        return None
    try:
        part = json.loads(path.read_bytes())
    except ValueError:
        return None
    return part if isinstance(part, dict) else None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _video_digest(path: Path) -> str:
    if path.is_dir():
        files = sorted((p, p.stat()) for p in path.iterdir() if p.is_file())
        return _digest([(p.name, facts.st_size, facts.st_mtime_ns) for p, facts in files])
    if not path.is_file():
        raise VideoError(
            "there is no such video", path=path, fix="name a video file or a folder of frames that exists"
        )
    return sha256_of(path)


def _processor() -> str:
    """Return the processor's name; Python alone knows only its architecture on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
