"""Optical flow: between two frames (DIS, or RAFT with trained weights), and labels carried along a clip."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torchvision.models.optical_flow import RAFT, Raft_Large_Weights, raft_large, raft_small

from posewarper.crops import Image
from posewarper.files import replacing
from posewarper.model.pretrained import load_torchvision
from posewarper.structures import Floats, Ints, Progress, Track, is_there, silent
from posewarper.video.source import Video

Flow = NDArray[np.floating]

# Subjects are brought to about this many pixels before the flow is computed: finer costs time and gains
# nothing, coarser loses the limbs.
_SUBJECT_PIXELS, _SHORTEST_LONG_SIDE, _LONGEST_SIDE = 256, 720, 1280
# Backward flows wait for the next label; one further away than this many bytes of flow is out of reach.
_WAITING_BYTES = 192 * 2**20


@cache
def _dis() -> cv2.DISOpticalFlow:
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def dense_flow(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Flow:
    """Return (H, W, 2) xy displacements in pixels from source to target, both (H, W) grey, >= 16 a side."""
    return _dis().calc(source, target, None)  # type: ignore[call-overload]


def sample_flow(flow: NDArray[np.floating], points: Floats) -> Floats:
    """Return displacements (..., 2), read bilinearly from a flow (H, W, 2) at points (..., 2) xy.

    Outside of the picture the nearest border counts; NaN gives NaN.
    """
    height, width = flow.shape[:2]
    there = is_there(points)
    inside = np.clip(np.where(there[..., None], points, 0.0), 0, (width - 1, height - 1))
    low = np.minimum(inside.astype(int), (max(width - 2, 0), max(height - 2, 0)))
    fx, fy = np.moveaxis(inside - low, -1, 0)[..., None]
    x, y = low[..., 0], low[..., 1]
    right, below = np.minimum(x + 1, width - 1), np.minimum(y + 1, height - 1)
    value = (1 - fy) * ((1 - fx) * flow[y, x] + fx * flow[y, right]) + fy * (
        (1 - fx) * flow[below, x] + fx * flow[below, right]
    )
    return np.where(there[..., None], value, np.nan)


def to_grey(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Return the frame (H, W, 3) in grey, shrunk by ``scale``, and at least 16 pixels a side."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = max(16, round(grey.shape[1] * scale)), max(16, round(grey.shape[0] * scale))
    if size != grey.shape[::-1]:
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(grey, dtype=np.uint8)


def working_scale(image_size: tuple[int, int], subject: float) -> float:
    """Return by how much to shrink frames of ``image_size`` (h, w) with subjects of ``subject`` pixels."""
    longest = max(image_size)
    wanted = max(_SUBJECT_PIXELS / max(subject, 1.0), _SHORTEST_LONG_SIDE / longest)
    return min(1.0, wanted, _LONGEST_SIDE / longest)


@dataclass(frozen=True)
class FlowChain:
    """Keypoints carried by flow from the labels, on the frames where a track is there.

    Args:
        frames: (t,) frame indices.
        forward: (t, K, 2) carried from the last label before; NaN before the first label.
        backward: (t, K, 2) carried from the next label; NaN after the last label, or where it is too far.
        forward_error: (t, K) forward-backward inconsistency in pixels, summed along the way.
        backward_error: (t, K) the same for ``backward``.
        left_out: the same on the labelled frames alone, as if each had no label of its own.
    """

    frames: Ints
    forward: Floats
    backward: Floats
    forward_error: Floats
    backward_error: Floats
    left_out: FlowChain | None = None

    @property
    def sides(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Points and errors carried forward, and those carried backward."""
        return (self.forward, self.forward_error), (self.backward, self.backward_error)

    def at(self, frames: Ints) -> FlowChain:
        """Return the part that lies on some of its frames."""
        rows = np.searchsorted(self.frames, frames)
        errors = self.forward_error[rows], self.backward_error[rows]
        return FlowChain(self.frames[rows], self.forward[rows], self.backward[rows], *errors)


def write_chains(path: str | os.PathLike[str], chains: Mapping[int, FlowChain]) -> None:
    """Write what :func:`carry_labels` returns, whole or not at all."""
    arrays = {}
    for i, chain in chains.items():
        for n, part in enumerate((chain, chain.left_out)):
            arrays |= {f"{i} {n} {f.name}": getattr(part, f.name) for f in fields(FlowChain)[:5]}
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def read_chains(path: str | os.PathLike[str]) -> dict[int, FlowChain]:
    """Read what :func:`write_chains` has written."""
    parts: dict[tuple[int, int], dict[str, Any]] = {}
    with np.load(path) as arrays:
        for key in arrays:
            i, n, name = key.split()
            parts.setdefault((int(i), int(n)), {})[name] = arrays[key]
    return {i: FlowChain(**own, left_out=FlowChain(**parts[i, 1])) for (i, n), own in parts.items() if not n}


def _empty_chain(frames: Ints, keypoints: int, left_out: FlowChain | None = None) -> FlowChain:
    forward, backward = np.full((2, len(frames), keypoints, 2), np.nan)
    return FlowChain(frames, forward, backward, forward[..., 0].copy(), backward[..., 0].copy(), left_out)


class _Carrier:
    """One track's keypoints on their way through the clip; its chain is filled in place."""

    def __init__(self, track: Track, frames: Ints) -> None:
        self.row = {int(f): n for n, f in enumerate(frames)}
        labelled = np.intersect1d(track.frames, frames)
        self.label_row = {int(f): n for n, f in enumerate(labelled)}
        k = track.keypoints.shape[1]
        self.left_out = _empty_chain(labelled, k)
        self.chain = _empty_chain(frames, k, self.left_out)
        rows, own = np.searchsorted(frames, labelled), np.searchsorted(track.frames, labelled)
        for points, errors in self.chain.sides:
            points[rows] = track.keypoints[own]
            errors[rows] = 0.0
        labelled_on = np.where(track.visibility > 0, track.frames[:, None], -1)
        self.last_label = labelled_on.max(0, initial=-1)

    def waits(self, frame: int) -> bool:
        """Tell whether a label after ``frame`` has yet to be carried back to ``frame`` and beyond."""
        if frame not in self.row:
            return False
        missing = ~is_there(self.chain.backward[self.row[frame]])
        return bool((missing & (self.last_label > frame)).any())

    def carry(self, a: int, b: int, there: Flow, back: Flow, scale: Floats) -> None:
        """Carry the points of frame ``a`` to its neighbour ``b``; labels in ``b`` stay as they are."""
        if a not in self.row or b not in self.row:
            return
        side = 0 if a < b else 1
        (points, errors), row = self.chain.sides[side], self.row[b]
        start = points[self.row[a]]
        small = (start + 0.5) * scale - 0.5
        step = sample_flow(there, small)
        gap = np.linalg.norm((step + sample_flow(back, small + step)) / scale, axis=-1)
        arrived, error = start + step / scale, errors[self.row[a]] + gap
        missing = ~is_there(points[row])
        points[row, missing], errors[row, missing] = arrived[missing], error[missing]
        if b in self.label_row:
            for whole, part in zip(self.left_out.sides[side], (arrived, error), strict=True):
                whole[self.label_row[b]] = part


def carry_labels(
    video: Video,
    tracks: Mapping[int, Track],
    frames: Mapping[int, Ints],
    *,
    subject: float,
    progress: Progress = silent,
) -> dict[int, FlowChain]:
    """Carry every track's labels through the clip by dense flow between consecutive frames, both ways.

    This passes over the video once and holds two frames and the flows since the last label.

    Args:
        video: the clip.
        tracks: track id -> its labels.
        frames: track id -> rising frames on which the track is there, and for which it gets its chain.
        subject: longer side of a typical instance in pixels, which sets the resolution of the flow.
    """
    carriers = {i: _Carrier(tracks[i], frames[i]) for i in tracks}
    labelled = {int(f) for track in tracks.values() for f in track.frames}
    wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *frames.values()]))
    factor = working_scale(video.image_size, subject)
    done = 0
    for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1):
        waiting: list[tuple[int, Flow, Flow]] = []  # the later of two frames, the flow to it and back
        before: NDArray[np.uint8] | None = None
        for index, image in video.frames(run.tolist()):
            grey = to_grey(image, factor)
            # Sizes are whole numbers, so the true scale differs a little from the wanted one, by axis.
            scale = np.array([grey.shape[1] / image.shape[1], grey.shape[0] / image.shape[0]])
            if before is not None:
                there, back = dense_flow(before, grey), dense_flow(grey, before)
                for carrier in carriers.values():
                    carrier.carry(index - 1, index, there, back, scale)
                waiting.append((index, there.astype(np.float16), back.astype(np.float16)))
                del waiting[: -max(1, _WAITING_BYTES // (2 * waiting[-1][1].nbytes))]
                if index == run[-1] or index in labelled:
                    for later, there, back in reversed(waiting):
                        for carrier in carriers.values():
                            carrier.carry(later, later - 1, back, there, scale)
                    # Keypoints without a label here may still get one later, for which these flows wait.
                    if not any(carrier.waits(index) for carrier in carriers.values()):
                        waiting.clear()
            before = grey
            done += 1
            progress("optical flow", done, len(wanted))
    return {i: carrier.chain for i, carrier in carriers.items()}


def blend_nearest(chain: FlowChain, track: Track) -> Floats:
    """Return (t, K, 2): each keypoint carried by flow from its nearest label (the earlier one on a tie)."""
    before, after = label_distances(chain, track)
    return _choose(chain, before <= after)


def blend_both(chain: FlowChain, track: Track) -> Floats:
    """Return (t, K, 2): both sides' carried keypoints, weighted by the distance to the other side's label."""
    before, after = label_distances(chain, track)
    both = is_there(chain.forward) & is_there(chain.backward)
    with np.errstate(invalid="ignore"):
        share = (after / (before + after))[..., None]
    blended = share * chain.forward + (1 - share) * chain.backward
    labelled = (before == 0) & (after == 0)
    return np.where((both & ~labelled)[..., None], blended, _choose(chain, np.ones_like(both)))


def _choose(chain: FlowChain, forward_first: NDArray[np.bool_]) -> Floats:
    first = np.where(forward_first[..., None], chain.forward, chain.backward)
    second = np.where(forward_first[..., None], chain.backward, chain.forward)
    return np.where(np.isfinite(first), first, second)


def label_distances(chain: FlowChain, track: Track) -> tuple[Floats, Floats]:
    """Return (t, K) frames since the last label and until the next one, infinite where there is none."""
    before, after = np.full((2, *chain.forward_error.shape), np.inf)
    for k in range(track.keypoints.shape[1]):
        knots = track.frames[track.visibility[:, k] > 0]
        place = np.searchsorted(knots, chain.frames, side="right")
        has = place > 0
        before[has, k] = chain.frames[has] - knots[place[has] - 1]
        place = np.searchsorted(knots, chain.frames, side="left")
        has = place < len(knots)
        after[has, k] = knots[place[has]] - chain.frames[has]
    return before, after


BLENDS: Mapping[str, Callable[[FlowChain, Track], Floats]] = {"flow": blend_nearest, "flow2": blend_both}
"""The methods that follow flow alone, by name."""


# The network works at an eighth of the picture, and halves that three times.
_MULTIPLE, _SMALLEST = 8, 128


def load_raft(weights: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> RAFT:
    """Return RAFT with trained weights, in evaluation mode.

    Args:
        weights: a ``.pth`` file of torchvision's ``raft_large`` or ``raft_small``, told apart by content.
            Left out: torchvision's ``C_T_SKHT_V2`` of ``raft_large``, see
            :func:`~posewarper.model.pretrained.load_torchvision`.
        device: where it is to run.

    Raises:
        ModelError: if the file is missing or holds other weights, or the download fails.
    """

    def build(state: Mapping[str, object]) -> RAFT:
        # Only the large network learns how to enlarge its flow.
        large = any(str(name).startswith("mask_predictor.") for name in state)
        return (raft_large if large else raft_small)(weights=None)

    own, otherwise = Raft_Large_Weights.C_T_SKHT_V2, "give its path; or use the method dis, without weights"
    model = load_torchvision(build, own, weights, what="torchvision's RAFT", otherwise=otherwise)
    return model.to(device).eval()


def raft_flow(model: RAFT, source: Image, target: Image) -> NDArray[np.float32]:
    """Return (H, W, 2) xy displacements in pixels from source to target, both (H, W, 3) uint8 RGB."""
    height, width = source.shape[:2]
    place = next(model.parameters()).device
    with torch.inference_mode():
        flow = model(_as_input(source).to(place), _as_input(target).to(place))[-1]
    return flow[0, :, :height, :width].permute(1, 2, 0).float().cpu().numpy()


def _as_input(image: Image) -> Tensor:
    """Return (1, 3, H', W') from -1 to 1, the last row and column repeated up to a size that RAFT takes."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    missing = [max(-(-n // _MULTIPLE) * _MULTIPLE, _SMALLEST) - n for n in image.shape[:2]]
    return pad(tensor, (0, missing[1], 0, missing[0]), mode="replicate")
