"""Fits one trajectory to all evidence: labels, optical flow, and what networks see on each frame.

For every keypoint of a stretch of frames a robust least-squares problem is solved: labels are hard, a
prediction draws the more the surer it is, consecutive frames are tied by the measured motion, and a weak
term keeps the velocity steady where nothing else is known. Weights are lowered where a term does not fit
(iteratively reweighted least squares, Cauchy), so that a swapped limb or a lost flow does not carry on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from posewarper.motion.interpolation import interpolate
from posewarper.structures import Floats, is_there

# Standard deviations as a share of the subject's size.
_LABEL, _HIDDEN_LABEL = 1e-4, 0.04
_FLOW, _ACCELERATION = 0.005, 0.05
_ROUNDS = 8

# points (t, K, 2) -> displacements to the next frame read at the earlier and at the later frame's points.
Steps = Callable[[Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Sighting:
    """Where something says that the keypoints are.

    Args:
        points: (t, K, 2) xy in image pixels, NaN where it says nothing.
        sigma: (t, K) how far it is to be trusted: one standard deviation, in pixels.
    """

    points: Floats
    sigma: Floats


@dataclass(frozen=True)
class Trajectory:
    """The solution.

    Args:
        points: (t, K, 2) xy in image pixels; NaN for keypoints about which nothing is known.
        sigma: (t, K) standard deviation in pixels under the weights of the last round.
    """

    points: Floats
    sigma: Floats


def label_sighting(keypoints: Floats, visibility: np.ndarray, size: Floats) -> Sighting:
    """Return labels (t, K, 2) as a sighting: exact where visible, loose where hidden (a guess)."""
    share = np.where(visibility >= 2, _LABEL, _HIDDEN_LABEL)
    return Sighting(np.where((visibility > 0)[..., None], keypoints, np.nan), share * size[:, None])


def solve_trajectory(
    start: Floats,
    labels: Sighting,
    sightings: Sequence[Sighting],
    steps: Steps,
    size: Floats,
    *,
    trust_in_flow: Floats | None = None,
    guide: Sighting | None = None,
) -> Trajectory:
    """Solve for the trajectory of every keypoint over a stretch of consecutive frames.

    Args:
        start: (t, K, 2) first guess, at which the motion is read in the first round; NaN where none.
        labels: the labels, which are not subject to robust weights.
        sightings: predictions, each subject to robust weights.
        steps: reads the motion at a guess.
        size: (t,) size of the subject in pixels, by which all tolerances scale.
        trust_in_flow: (K,) what the motion counts for, from 0 to 1; left out, 1.
        guide: what draws the trajectory like a sighting, and is no evidence of its own: the deviation that is
            returned is as if it were not there.

    Returns:
        The trajectory; keypoints for which ``start`` has no value at all are NaN.
    """
    rows = np.arange(len(start))
    points = interpolate(rows, start, rows)
    known = is_there(points).all(0)
    result, sigma = np.full_like(points, np.nan), np.full(points.shape[:2], np.nan)
    if not known.any():
        return Trajectory(result, sigma)
    labels = Sighting(labels.points[:, known], labels.sigma[:, known])
    sightings = [Sighting(s.points[:, known], s.sigma[:, known]) for s in sightings]
    if guide is not None:
        guide = Sighting(guide.points[:, known], guide.sigma[:, known])
    trust = np.ones(int(known.sum())) if trust_in_flow is None else trust_in_flow[known]
    full = points
    system = _System(points[:, known], size)
    for _ in range(_ROUNDS):
        full[:, known] = system.points
        forward, backward = (step[:, known] for step in steps(full))
        system.clear()
        system.add_sighting(labels, robust=False)
        for sighting in sightings:
            system.add_sighting(sighting, robust=True)
        system.add_motion(forward, backward, trust)
        system.add_steadiness()
        evidence = system.bands[0].copy()
        if guide is not None:
            system.add_sighting(guide, robust=True)
        system.solve()
        system.bands[0] = evidence
    result[:, known], sigma[:, known] = system.points, system.spread()
    return Trajectory(result, sigma)


class _System:
    """The normal equations of all keypoints: banded in time, the same matrix for x and y."""

    def __init__(self, points: Floats, size: Floats) -> None:
        self.points = points
        self.size = size
        t, k = points.shape[:2]
        self.bands = np.zeros((3, t, k))
        self.right = np.zeros((t, k, 2))

    def clear(self) -> None:
        self.bands[:] = 0.0
        self.right[:] = 0.0

    def add_sighting(self, sighting: Sighting, *, robust: bool) -> None:
        off = np.linalg.norm(self.points - sighting.points, axis=-1) / sighting.sigma
        weight = 1 / sighting.sigma**2 * (_cauchy(off) if robust else 1.0)
        there = is_there(sighting.points) & np.isfinite(weight)
        weight = np.where(there, weight, 0.0)
        self.bands[0] += weight
        self.right += weight[..., None] * np.where(there[..., None], sighting.points, 0.0)

    def add_motion(self, forward: Floats, backward: Floats, trust: Floats) -> None:
        step = (forward + backward) / 2
        disagreement = np.linalg.norm(forward - backward, axis=-1) / 2
        sigma = (_FLOW * self.size[1:, None] + disagreement) / np.sqrt(trust)
        off = np.linalg.norm(np.diff(self.points, axis=0) - step, axis=-1) / sigma
        weight = np.where(np.isfinite(off), _cauchy(off) / sigma**2, 0.0)
        step = np.where(np.isfinite(step), step, 0.0)
        self.bands[0, :-1] += weight
        self.bands[0, 1:] += weight
        self.bands[1, 1:] -= weight
        self.right[1:] += weight[..., None] * step
        self.right[:-1] -= weight[..., None] * step

    def add_steadiness(self) -> None:
        weight = np.broadcast_to(1 / (_ACCELERATION * self.size[1:-1, None]) ** 2, self.points[2:].shape[:2])
        for n, factor in ((0, 1), (1, 4), (2, 1)):
            self.bands[0, n : len(weight) + n] += factor * weight
        self.bands[1, 1:-1] -= 2 * weight
        self.bands[1, 2:] -= 2 * weight
        self.bands[2, 2:] += weight
        # A trace of pull towards the last guess keeps a keypoint solvable about which a stretch says nothing.
        trace = 1e-6 / self.size[:, None] ** 2
        self.bands[0] += trace
        self.right += trace[..., None] * self.points

    def solve(self) -> None:
        for k in range(self.points.shape[1]):
            self.points[:, k] = solveh_banded(self._upper(k), self.right[:, k])

    def _upper(self, k: int) -> Floats:
        upper = np.zeros((3, len(self.points)))
        upper[2], upper[1, 1:] = self.bands[0, :, k], self.bands[1, 1:, k]
        upper[0, 2:] = self.bands[2, 2:, k]
        return upper[-min(3, len(self.points)) :]

    def spread(self) -> Floats:
        """Return (t, K) the square root of the diagonal of the inverse matrix."""
        identity = np.eye(len(self.points))
        columns = [np.diag(solveh_banded(self._upper(k), identity)) for k in range(self.points.shape[1])]
        return np.sqrt(np.maximum(np.stack(columns, axis=1), 0.0))


def _cauchy(off: Floats) -> Floats:
    return 1 / (1 + (off / 2) ** 2)
