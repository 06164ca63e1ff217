"""Which of several places each keypoint was at: one path per keypoint, chosen for a whole stretch at once.

Where limbs cross, a heatmap has a peak on each of them, and the higher one is often on the wrong limb for
many frames in a row: networks that have seen a few labels confuse left and right. Motion tells them apart.
Candidates are all peaks of a keypoint's heatmaps *and of its mirror keypoint's*, labels carried by flow, and
lines between labels. A path through them pays for places that nothing speaks for, for motion that the flow
contradicts, for sudden changes of velocity, for left and right in one place, and for limbs longer than any
labelled one. The cheapest path is found exactly, by dynamic programming over pairs of consecutive frames; a
left and a right keypoint are solved together, and the network's heatmaps of the two speak for them together
as well: one map for each, either way round, so that a limb that only one of the maps shows cannot hold both.
Limbs tie keypoints to each other: a second sweep sees the others' paths.

Without a network two paths often cost nearly the same: flow from the label before says one thing, flow from
the label after another. There the candidates of each frame are averaged, by the odds of the cheapest path
through each of them, rather than one being chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from posewarper.motion.interpolation import fill_in
from posewarper.propagation.evidence import Evidence, Peaks
from posewarper.structures import Floats, Ints, Labels, is_there
from posewarper.video.track_crops import instance_sizes

# Lengths are shares of the subject's size; costs are logarithms of odds.
_CANDIDATES, _APART = 8, 0.015
_SEEN_SIGMA, _SEEN_COST, _SEEN_FLOOR, _SEEN_POWER = 0.02, 1.0, 0.05, 2.0
_WARPED_SIGMA, _WARPED_COST, _WARPED_FLOOR = 0.04, 0.2, 0.2
_CARRIED_COST, _CARRIED_FLOOR, _CARRIED_SURE = 0.6, 0.1, 0.03
_LINE_COST, _LINE_FLOOR, _LINE_SURE = 0.6, 0.1, 0.03
_OPINION = 0.3  # odds below this, as logarithms, are none
_MOTION_SIGMA, _MOTION_COST, _MOTION_FLOOR = 0.03, 0.2, 1e-3
_TURN_SIGMA, _TURN_COST, _TURN_COST_SEEN = 0.03, 0.5, 0.7
_TOGETHER_REACH, _TOGETHER_COST, _TOGETHER_COST_SEEN = 0.03, 1.5, 0.6
_LIMB_SLACK, _LIMB_SIGMA, _LIMB_COST = 0.15, 0.03, 1.0
_SWEEPS = 2
# Consecutive frames tell much the same, so that odds are not as long as the difference of the costs. What
# costs so much more than the cheapest is no longer averaged.
_TEMPERATURE, _NEGLIGIBLE = 1.5, 3.0
_NEVER = 1e5

Limbs = Mapping[tuple[int, int], float]
"""(keypoint, keypoint), both ways round -> their longest labelled distance, as a share of the size."""


def measure_limbs(labels: Labels) -> dict[tuple[int, int], float]:
    """Return the longest labelled distance, in any track, of each pair of keypoints joined by an edge."""
    keypoints = np.concatenate([track.keypoints for track in labels.tracks.values()])
    size = np.concatenate([instance_sizes(fill_in(track)) for track in labels.tracks.values()])
    limbs: dict[tuple[int, int], float] = {}
    for a, b in labels.skeleton.edges:
        lengths = np.linalg.norm(keypoints[:, a] - keypoints[:, b], axis=-1) / size
        if np.isfinite(lengths).any():
            limbs[a, b] = limbs[b, a] = float(np.nanmax(lengths))
    return limbs


def choose_paths(evidence: Evidence, flip_order: Sequence[int], limbs: Limbs, known: Ints) -> Floats:
    """Choose the path of every keypoint; see the description of this file.

    Args:
        evidence: what is known.
        flip_order: k -> the keypoint that k becomes in a mirror image.
        limbs: from :func:`measure_limbs`.
        known: keypoints that are looked for; the others are NaN.

    Returns:
        (t, K, 2) xy in image pixels; NaN where there was no candidate.
    """
    t, k = evidence.anchors.shape[:2]
    paths = np.full((t, k, 2), np.nan)
    if t < 2:
        paths[:, known] = np.where(is_there(evidence.anchors)[..., None], evidence.anchors, evidence.rough)[
            :, known
        ]
        return paths
    wanted = set(known.tolist())
    groups = []
    for a in sorted(wanted):
        b = int(flip_order[a])
        if a <= b or b not in wanted:
            groups.append(_Group(evidence, (a, b) if b != a and b in wanted else (a,), flip_order))
    for _ in range(_SWEEPS - 1):
        for group in groups:
            paths[:, group.keypoints] = group.choose(paths, limbs)
    # Limbs are measured between paths that are chosen; averages have no length.
    averages = paths.copy()
    for group in groups:
        if evidence.seen is None:
            paths[:, group.keypoints], averages[:, group.keypoints] = group.average(paths, limbs)
        else:
            averages[:, group.keypoints] = paths[:, group.keypoints] = group.choose(paths, limbs)
    return averages


class _Group:
    """A keypoint, or a left and a right one, with their common candidates."""

    def __init__(self, evidence: Evidence, keypoints: tuple[int, ...], flip_order: Sequence[int]) -> None:
        self.keypoints, self.size = keypoints, evidence.size
        self.places, columns = _choose_candidates(evidence, keypoints)
        costs = []
        for keypoint in keypoints:
            mirror = int(flip_order[keypoint])
            cost = _place_costs(evidence, self.places, keypoint, None if mirror == keypoint else mirror)
            # A label has a place of its own, and no other.
            labelled = np.flatnonzero(is_there(evidence.anchors[:, keypoint]))
            cost[labelled] = _NEVER
            cost[labelled, columns[keypoint][labelled]] = 0.0
            costs.append(cost)
        self.costs = costs
        trust_in_flow = float(np.mean(evidence.trust_in_flow[list(keypoints)]))
        self.trust_in_flow = trust_in_flow
        self.motion = trust_in_flow * _motion_costs(evidence, self.places)
        self.relative = (self.places - evidence.origin[:, None]) / evidence.size[:, None, None]
        self.seen = _seen_costs(evidence, self.places, keypoints, flip_order)
        alone = evidence.seen is None
        self.together_cost = _TOGETHER_COST if alone else _TOGETHER_COST_SEEN
        # Where flow is lost, motion is quick and jerky; but then steadiness is all there is, so less is lost.
        self.turn_cost = (_TURN_COST if alone else _TURN_COST_SEEN) * np.sqrt(trust_in_flow)

    def choose(self, paths: Floats, limbs: Limbs) -> Floats:
        """Return the cheapest path of each keypoint (t, n, 2), given those of the others that have one."""
        costs, ties = self._all_costs(paths, limbs), (self.motion, self.relative, self.turn_cost)
        chosen = (_cheapest(costs, *ties),) if costs.ndim == 2 else _cheapest_pair(costs, *ties)
        return self._at(chosen)

    def average(self, paths: Floats, limbs: Limbs) -> tuple[Floats, Floats]:
        """Return the cheapest paths as :meth:`choose` does, and the means of all candidates by their odds."""
        costs, ties = self._all_costs(paths, limbs), (self.motion, self.relative, self.turn_cost)
        found = (_costs_through(costs, *ties),) if costs.ndim == 2 else _costs_through_pair(costs, *ties)
        means = []
        for through in found:
            # Flow that counts for less makes differences smaller, not paths more alike.
            more = (through - through.min()) / self.trust_in_flow
            odds = np.exp(-more / _TEMPERATURE) - np.exp(-_NEGLIGIBLE / _TEMPERATURE)
            odds = np.where(is_there(self.places), np.maximum(odds, 0.0), 0.0)
            total = odds.sum(1, keepdims=True)
            mean = (odds[..., None] * np.nan_to_num(self.places)).sum(1) / np.where(total > 0, total, 1.0)
            means.append(np.where(total > 0, mean, np.nan))
        return self._at([through.argmin(1) for through in found]), np.stack(means, axis=1)

    def _at(self, chosen: Sequence[Ints]) -> Floats:
        return np.stack([self.places[np.arange(len(self.size)), path] for path in chosen], axis=1)

    def _all_costs(self, paths: Floats, limbs: Limbs) -> Floats:
        """Return (t, n) what each candidate costs the keypoint; of two (t, n, n), left and right together."""
        costs = [
            cost + self._limb_costs(keypoint, paths, limbs)
            for keypoint, cost in zip(self.keypoints, self.costs, strict=True)
        ]
        if len(costs) == 1:
            return costs[0] + self.seen
        apart = np.linalg.norm(self.places[:, :, None] - self.places[:, None], axis=-1)
        share = apart / self.size[:, None, None]
        together = np.nan_to_num(self.together_cost * np.exp(-(share**2) / (2 * _TOGETHER_REACH**2)))
        return costs[0][:, :, None] + costs[1][:, None, :] + together + self.seen

    def _limb_costs(self, keypoint: int, paths: Floats, limbs: Limbs) -> Floats:
        total = np.zeros(self.places.shape[:2])
        for (a, b), longest in limbs.items():
            if a == keypoint:
                length = np.linalg.norm(self.places - paths[:, b, None], axis=-1) / self.size[:, None]
                over = np.maximum(length - longest * (1 + _LIMB_SLACK), 0.0)
                total += np.nan_to_num(_LIMB_COST * np.log1p((over / _LIMB_SIGMA) ** 2))
        return total


def _choose_candidates(evidence: Evidence, keypoints: Sequence[int]) -> tuple[Floats, dict[int, Ints]]:
    """Return (t, n, 2): the likeliest places that lie apart from each other, the likelier first, then labels.

    With them, for each keypoint, (t,) at which of them its label is, where it has one.
    """
    points, weights = [], []
    warped = () if evidence.warped is None else evidence.warped.single
    for keypoint in keypoints:
        if evidence.seen is not None:
            points.append(evidence.seen.points[:, keypoint])
            weights.append(evidence.seen.heights[:, keypoint])
        for peaks in warped:
            points.append(peaks.points[:, keypoint])
            weights.append(0.5 * peaks.heights[:, keypoint])
        for side in evidence.carried:
            points.append(side.points[:, keypoint, None])
            sure = _CARRIED_SURE * evidence.size / side.sigma[:, keypoint]
            weights.append(np.minimum(1.0, sure)[:, None])
        points.append(evidence.interpolated.points[:, keypoint, None])
        sure = _LINE_SURE * evidence.size / evidence.interpolated.sigma[:, keypoint]
        weights.append(np.minimum(1.0, sure)[:, None])
    t = len(evidence.size)
    places = np.full((t, _CANDIDATES, 2), np.nan)
    if points:
        places = _thin_out(np.concatenate(points, 1), np.concatenate(weights, 1), _APART * evidence.size)
    # Labels follow the candidates of their frame, or replace the last: columns that no frame uses cost time.
    rows = np.arange(t)
    column = np.minimum(is_there(places).sum(1), _CANDIDATES - len(keypoints))
    columns = {keypoint: column + n for n, keypoint in enumerate(keypoints)}
    for keypoint in keypoints:
        labelled = is_there(evidence.anchors[:, keypoint])
        places[rows[labelled], columns[keypoint][labelled]] = evidence.anchors[labelled, keypoint]
    nowhere = ~is_there(places).any(1)
    for n, keypoint in enumerate(keypoints):
        places[nowhere, n] = evidence.rough[nowhere, keypoint]
    used = max(1, 1 + max(np.flatnonzero(is_there(places).any(0)), default=0))
    return places[:, :used], columns


def _thin_out(points: Floats, weights: Floats, radius: Floats) -> Floats:
    """Return (t, n, 2): of points (t, m, 2) the heaviest, none within the radius (t,) of a heavier one."""
    weights = np.where(is_there(points) & np.isfinite(weights), weights, -1.0)
    rows = np.arange(len(points))
    kept = np.full((len(points), _CANDIDATES, 2), np.nan)
    for n in range(_CANDIDATES):
        best = weights.argmax(1)
        there = weights[rows, best] >= 0
        kept[there, n] = points[rows, best][there]
        with np.errstate(invalid="ignore"):
            near = np.linalg.norm(points - kept[:, n, None], axis=-1) < radius[:, None]
        weights = np.where(near, -1.0, weights)
    return kept


def _place_costs(evidence: Evidence, places: Floats, keypoint: int, mirror: int | None) -> Floats:
    """Return (t, n): what speaks against a keypoint being at each of its candidates, but for the network."""
    size = evidence.size[:, None]
    cost = np.zeros(places.shape[:2])
    for peaks in () if evidence.warped is None else evidence.warped.single:
        near = _support_by(peaks, keypoint, places, _WARPED_SIGMA * size, 1.0)
        if mirror is not None:
            other = _support_by(peaks, mirror, places, _WARPED_SIGMA * size, 1.0)
            near = np.maximum(near, evidence.mirrored * other)
        cost -= _WARPED_COST * np.log(_WARPED_FLOOR + near)
    for side in evidence.carried:
        sigma = side.sigma[:, keypoint, None]
        sure = np.minimum(1.0, _CARRIED_SURE * size / sigma)
        near = _support(places, side.points[:, keypoint, None], sure, sigma, 1.0)
        cost -= evidence.trust_in_flow[keypoint] * _CARRIED_COST * np.log(_CARRIED_FLOOR + near)
    line = evidence.interpolated
    sigma = line.sigma[:, keypoint, None]
    sure = np.minimum(1.0, _LINE_SURE * size / sigma)
    cost -= _LINE_COST * np.log(
        _LINE_FLOOR + _support(places, line.points[:, keypoint, None], sure, sigma, 1.0)
    )
    return np.where(is_there(places), cost, _NEVER)


def _seen_costs(
    evidence: Evidence, places: Floats, keypoints: Sequence[int], flip_order: Sequence[int]
) -> Floats | float:
    """Return what the network's peaks say against the candidates: (t, n) for one keypoint, (t, n, n) for two.

    Of a left and a right keypoint one has the peaks of its own map and the other those of the other map, or
    both have each other's, which count a little less where the network can tell left from right.
    """
    if evidence.seen is None:
        return 0.0
    found = []
    for keypoint in keypoints:
        by_own, by_other = (
            _support_by(evidence.seen, k, places, _SEEN_SIGMA * evidence.size[:, None], _SEEN_POWER)
            for k in (keypoint, int(flip_order[keypoint]))
        )
        weight = evidence.trust_in_seen[keypoint] * _SEEN_COST
        near = np.stack([by_own, evidence.mirrored * by_other])
        found.append(-weight * np.log(_SEEN_FLOOR + near))
    if len(found) == 1:
        return found[0].min(0)
    (left, left_crossed), (right, right_crossed) = found
    return np.minimum(
        left[:, :, None] + right[:, None, :], left_crossed[:, :, None] + right_crossed[:, None, :]
    )


def side_odds(evidence: Evidence, path: Floats, flip_order: Sequence[int]) -> Floats:
    """Return (t, K): the odds, as logarithms, that the network sees a keypoint and not its mirror at a path.

    They are 0 where it has no opinion: without a network, for keypoints that have no mirror, and where both
    or neither are seen.
    """
    odds = np.zeros(path.shape[:2])
    for keypoint, mirror in enumerate(flip_order):
        if mirror == keypoint or evidence.seen is None:
            continue
        here, sigma = path[:, keypoint, None], _SEEN_SIGMA * evidence.size[:, None]
        own, other = (
            _support_by(evidence.seen, k, here, sigma, _SEEN_POWER)[:, 0] for k in (keypoint, int(mirror))
        )
        odds[:, keypoint] = np.log((_SEEN_FLOOR + own) / (_SEEN_FLOOR + other))
    return np.where(np.abs(odds) > _OPINION, odds, 0.0)


def _support_by(peaks: Peaks, keypoint: int, places: Floats, sigma: Floats, power: float) -> Floats:
    """Return (t, n): how much a keypoint's peaks speak for places (t, n, 2), from 0 to 1."""
    return _support(places, peaks.points[:, keypoint], peaks.heights[:, keypoint], sigma, power)


def _support(places: Floats, points: Floats, heights: Floats, sigma: Floats, power: float) -> Floats:
    """Return (t, n): the highest Gaussian of points (t, m, 2) at places (t, n, 2), sigma (t, 1)."""
    squared = ((places[:, :, None] - points[:, None]) ** 2).sum(-1)
    weight = np.clip(heights, 0.0, 1.0)[:, None] ** power
    return np.nan_to_num(weight * np.exp(-squared / (2 * sigma[:, :, None] ** 2))).max(-1)


def _motion_costs(evidence: Evidence, places: Floats) -> Floats:
    """Return (t - 1, n, n): what the flow says against going from one candidate to one of the next frame."""
    forward, backward = evidence.steps(places)
    arrives, came = places[:-1] + forward, places[1:] - backward
    off = np.linalg.norm(places[1:, None] - arrives[:, :, None], axis=-1)
    back_off = np.linalg.norm(came[:, None] - places[:-1, :, None], axis=-1)
    share = (off + back_off) / 2 / evidence.size[:-1, None, None]
    cost = -_MOTION_COST * np.log(_MOTION_FLOOR + np.exp(-(share**2) / (2 * _MOTION_SIGMA**2)))
    return np.nan_to_num(cost)  # a candidate that is not there is charged for that already


def _turn_costs(relative: Floats, cost: float) -> Floats:
    """Return (t - 2, n, n, n): the cost of the change of velocity over every three rows in turn."""
    before, here = relative[:-2, :, None, None], relative[1:-1, None, :, None]
    squared = ((relative[2:, None, None] - 2 * here + before) ** 2).sum(-1)
    return np.nan_to_num(cost * np.log1p(squared / (2 * _TURN_SIGMA**2)))


def _cheapest(costs: Floats, motion: Floats, relative: Floats, turn_cost: float) -> Ints:
    """Return (t,) candidates of the cheapest path: states are pairs of consecutive candidates."""
    total = costs[0][:, None] + motion[0] + costs[1][None]
    before = []
    for row, turn in enumerate(_turn_costs(relative, turn_cost), start=1):
        through = total[:, :, None] + turn
        before.append(through.argmin(0))
        total = through.min(0) + motion[row] + costs[row + 1][None]
    a, b = np.unravel_index(int(total.argmin()), total.shape)
    path = [int(b), int(a)]
    for came in reversed(before):
        path.append(int(came[path[-1], path[-2]]))
    return np.array(path[::-1])


def _cheapest_pair(both: Floats, motion: Floats, relative: Floats, turn_cost: float) -> tuple[Ints, Ints]:
    """Return (t,) candidates of the left and of the right keypoint: the cheapest two paths together.

    States are the candidates of both on two consecutive frames. What ties a path to its past is a sum of one
    term for the left and one for the right, so that the two are minimised one after the other.

    Args:
        both: (t, n, n) costs of the left one at one candidate and the right one at another.
        motion: (t - 1, n, n).
        relative: (t, n, 2).
        turn_cost: of changes of velocity.
    """
    moving = _pair_moves(both, motion)
    total = both[0][:, :, None, None] + moving[0]  # left, right, left after, right after
    before = []
    for row, turn in enumerate(_turn_costs(relative, turn_cost), start=1):
        through = total[..., None] + turn[:, None, :, None, :]  # left, right, left, right, left
        came_left = through.argmin(0).astype(np.int8)
        through = through.min(0)[..., None] + turn[:, None, :, None, :]  # right, left, right, left, right
        came_right = through.argmin(0).astype(np.int8)
        before.append((came_left, came_right))
        total = through.min(0) + moving[row]
    a, b, c, d = np.unravel_index(int(total.argmin()), total.shape)
    left, right = [int(c), int(a)], [int(d), int(b)]
    for came_left, came_right in reversed(before):
        right_before = int(came_right[left[-1], right[-1], left[-2], right[-2]])
        left.append(int(came_left[right_before, left[-1], right[-1], left[-2]]))
        right.append(right_before)
    return np.array(left[::-1]), np.array(right[::-1])


def _pair_moves(both: Floats, motion: Floats) -> Floats:
    """Return (t - 1, n, n, n, n), left and right on a row and on the next one: the costs of going on."""
    return motion[:, :, None, :, None] + motion[:, None, :, None, :] + both[1:, None, None]


def _costs_through(costs: Floats, motion: Floats, relative: Floats, turn_cost: float) -> Floats:
    """Return (t, n): what the cheapest path through each candidate costs; arguments as :func:`_cheapest`."""
    turns = _turn_costs(relative, turn_cost)
    before = [costs[0][:, None] + motion[0] + costs[1][None]]
    for row, turn in enumerate(turns, start=1):
        before.append((before[-1][:, :, None] + turn).min(0) + motion[row] + costs[row + 1][None])
    after = np.zeros_like(before[-1])
    through = np.empty_like(costs)
    for row in range(len(costs) - 1, 0, -1):
        through[row] = (before[row - 1] + after).min(0)
        if row > 1:
            after = (turns[row - 2] + (after + motion[row - 1] + costs[row][None])[None]).min(-1)
    through[0] = (before[0] + after).min(1)
    return through


def _costs_through_pair(
    both: Floats, motion: Floats, relative: Floats, turn_cost: float
) -> tuple[Floats, Floats]:
    """Return twice (t, n): what the cheapest two paths cost of which the left, or right, one goes there.

    Arguments as :func:`_cheapest_pair`.
    """
    moving = _pair_moves(both, motion)
    turns = _turn_costs(relative, turn_cost)
    before = [both[0][:, :, None, None] + moving[0]]  # left, right, and on the next frame left, right
    for row, turn in enumerate(turns, start=1):
        way = (before[-1][..., None] + turn[:, None, :, None, :]).min(0)
        before.append((way[..., None] + turn[:, None, :, None, :]).min(0) + moving[row])
    after = np.zeros_like(before[-1])
    left, right = np.empty(both.shape[:2]), np.empty(both.shape[:2])
    for row in range(len(both) - 1, 0, -1):
        whole = before[row - 1] + after
        here = whole.min((0, 1))
        left[row], right[row] = here.min(1), here.min(0)
        if row > 1:
            turn = turns[row - 2][:, None, :, None, :]
            way = (turn + (after + moving[row - 1])[None]).min(-1)  # over where the right one goes
            after = (turn + way[None]).min(-1)
    whole = before[0] + after
    left[0], right[0] = whole.min((1, 2, 3)), whole.min((0, 2, 3))
    return left, right
