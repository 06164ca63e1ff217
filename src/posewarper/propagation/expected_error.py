"""How far off a keypoint of a trajectory is expected to be, from how well its evidence agrees.

The coefficients were found by least squares of the logarithm of true errors on clips with dense labels
(`benchmarks/expected_error.py` tells how well they hold on clips that had no part in them).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from posewarper.propagation.evidence import Evidence
from posewarper.propagation.trajectory import Trajectory
from posewarper.structures import Floats

# In nine of ten cases the error is at most this many times the expected error.
BOUND = 1.8

# Lengths are shares of the subject's size.
_FLOOR, _LOST, _MOST = 0.004, 0.3, 0.5
_WITH_NETWORK = {"bias": 4.194, "spread": 1.827, "height": -0.423}
_WITHOUT = {"bias": 6.102, "spread": 2.022, "from_flow": 0.221}

Signs = Mapping[str, Floats]
"""What tells how sure a trajectory is; each (t, K), lengths as shares of the subject's size.

``spread`` is the standard deviation of the trajectory. With a network ``height`` is that of its nearest peak;
without one ``from_flow`` is the distance from the labels that flow carries from both sides.
"""


def read_signs(solved: Trajectory, evidence: Evidence) -> Signs:
    """Return how well a trajectory agrees with its evidence."""
    size = evidence.size[:, None]
    spread = solved.sigma / size
    if evidence.seen is not None:
        return {"spread": spread, "height": evidence.seen.nearest(solved.points).scores}
    return {"spread": spread, "from_flow": np.linalg.norm(evidence.rough - solved.points, axis=-1) / size}


def expected_error(signs: Signs) -> Floats:
    """Return (t, K): the expected error as a share of the subject's size; NaN where nothing is known."""
    model = _WITH_NETWORK if "height" in signs else _WITHOUT
    total = model["bias"] + sum(model[name] * term for name, term in terms_of(signs).items())
    return np.where(np.isfinite(signs["spread"]), np.minimum(np.exp(total), _MOST), np.nan)


def terms_of(signs: Signs) -> dict[str, Floats]:
    """Return the terms, each (t, K), of which the logarithm of the error is a weighted sum."""
    return {
        name: np.log(0.03 + np.clip(np.nan_to_num(sign), 0.0, 1.0))
        if name == "height"
        else np.log(_FLOOR + np.minimum(np.nan_to_num(sign, nan=_LOST), _LOST))
        for name, sign in signs.items()
    }
