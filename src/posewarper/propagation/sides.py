"""Whether a network tells left from right in a clip, found by how well it agrees with motion.

Networks that have seen a few labels often confuse the two sides, for many frames in a row: on people seen
from the side they are right in two of three frames, on people who face the camera and on flies in nearly all.
On its labelled frames a network is always right, so these tell nothing. What does is motion: paths that are
chosen without asking the network which side it sees follow each limb from label to label.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from posewarper.model.heatmap_runner import HeatmapEngine
from posewarper.propagation.best_path import choose_paths, measure_limbs, side_odds
from posewarper.propagation.clip import Clip, settled_frames
from posewarper.propagation.stretch import Stretch
from posewarper.propagation.trust import Trust, measure_trust

# Frames that are looked at, in stretches between labels that lie evenly in the clip, none longer than this.
_FRAMES, _LONGEST = 160, 64
# Where the network agrees with motion on this share of what it has an opinion on, it begins to be heard, and
# from the second on as much as it may: what a peak of the mirror keypoint counts then.
_UNHEARD, _HEARD, _LEAST = 0.85, 0.93, 0.9


def learn_trust(clip: Clip, network: HeatmapEngine | None) -> Trust:
    """Measure how far all sources of evidence are to be trusted in a clip."""
    trust = measure_trust(clip, network)
    if network is None or not network.spec.trained.get("pose"):
        return trust
    return trust._replace(mirrored=measure_mirrored(clip, network, trust))


def measure_mirrored(clip: Clip, network: HeatmapEngine, trust: Trust) -> float:
    """Return what a peak of the mirror keypoint counts: 1 where the network does not tell left from right.

    Args:
        clip: with labels.
        network: looks at up to 160 frames of it.
        trust: in everything else.
    """
    skeleton = clip.labels.skeleton
    flip_order = skeleton.flip_order
    limbs, agreed, asked = measure_limbs(clip.labels), 0, 0
    for track_id, first, last in _choose_stretches(clip):
        frames = np.arange(first, last + 1)
        nothing = np.full((len(skeleton), 2), np.nan)
        stretch = Stretch(clip, track_id, frames, nothing, network)
        evidence = stretch.gather(trust._replace(mirrored=1.0))
        path = choose_paths(evidence, flip_order, limbs, np.flatnonzero(stretch.known))
        odds = side_odds(evidence, path, flip_order)[1:-1]
        agreed, asked = agreed + int((odds > 0).sum()), asked + int((odds != 0).sum())
    if not asked:
        return 1.0
    heard = np.clip((agreed / asked - _UNHEARD) / (_HEARD - _UNHEARD), 0.0, 1.0)
    return float(1 - (1 - _LEAST) * heard)


def _choose_stretches(clip: Clip) -> list[tuple[int, int, int]]:
    """Return track, first and last frame of some stretches between two labels; the labels are their ends."""
    if list(clip.labels.skeleton.flip_order) == list(range(len(clip.labels.skeleton))):
        return []
    found = []
    for i, track in clip.labels.tracks.items():
        labelled = np.intersect1d(settled_frames(track), clip.frames[i])
        for a, b in pairwise(labelled.tolist()):
            if 2 < b - a <= _LONGEST and np.isin(np.arange(a, b + 1), clip.frames[i]).all():
                found.append((i, a, b))
    chosen: list[tuple[int, int, int]] = []
    total = 0
    # In an order in which any number of them lies evenly: by bits, the lowest first.
    for place in sorted(range(len(found)), key=lambda n: f"{n:032b}"[::-1]):
        _, a, b = found[place]
        if total + b - a + 1 > _FRAMES:
            continue
        chosen.append(found[place])
        total += b - a + 1
    return chosen
