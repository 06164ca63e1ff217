"""How far off a keypoint of a trajectory is expected to be, from how well its evidence agrees.

The coefficients were found by least squares of the logarithm of true errors on clips with dense labels
(`benchmarks/expected_error.py` tells how well they hold on clips that had no part in them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posewarper.structures import Floats

# In nine of ten cases the error is at most this many times the expected error.
BOUND = 1.8

# Lengths are shares of the subject's size.
_FLOOR, _LOST, _MOST = 0.004, 0.3, 0.5
_WITH_NETWORK = {"bias": 3.692, "spread": 1.523, "from_peak": 0.084, "height": -0.247, "from_warped": 0.118}
_WITHOUT = {"bias": 6.102, "spread": 2.022, "from_flow": 0.221}


@dataclass(frozen=True)
class Signs:
    """What tells how sure a trajectory is; each (t, K), lengths as shares of the subject's size.

    Args:
        spread: standard deviation of the trajectory.
        from_flow: distance from the labels that flow carries from both sides.
        from_peak: distance from the highest peak that the network sees; None without a network.
        height: of the network's peak that is nearest; None without a network.
        from_warped: distance from the warped labels; None without a warper.
    """

    spread: Floats
    from_flow: Floats
    from_peak: Floats | None = None
    height: Floats | None = None
    from_warped: Floats | None = None


def expected_error(signs: Signs) -> Floats:
    """Return (t, K): the expected error as a share of the subject's size; NaN where nothing is known."""
    terms = terms_of(signs)
    model = _WITH_NETWORK if "height" in terms else _WITHOUT
    total = model["bias"] + sum(model[name] * term for name, term in terms.items())
    return np.where(np.isfinite(signs.spread), np.minimum(np.exp(total), _MOST), np.nan)


def terms_of(signs: Signs) -> dict[str, Floats]:
    """Return the terms, each (t, K), of which the logarithm of the error is a weighted sum."""
    spread = _log(signs.spread)
    if signs.from_peak is None or signs.height is None:
        return {"spread": spread, "from_flow": _log(signs.from_flow)}
    return {
        "spread": spread,
        "from_peak": _log(signs.from_peak),
        "height": np.log(0.03 + np.clip(np.nan_to_num(signs.height), 0.0, 1.0)),
        "from_warped": _log(signs.from_peak if signs.from_warped is None else signs.from_warped),
    }


def _log(length: Floats) -> Floats:
    return np.log(_FLOOR + np.minimum(np.nan_to_num(length, nan=_LOST), _LOST))
