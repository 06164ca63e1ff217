"""Expected errors: they rise with every sign of doubt, and stay within limits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from posewarper.propagation.evidence import Evidence, Peaks, Seen, Warped
from posewarper.propagation.expected_error import BOUND, expected_error, read_signs
from posewarper.propagation.trajectory import Sighting, Trajectory


def values(*numbers: float) -> np.ndarray:
    return np.array([numbers])


def signs(distance: float, height: float) -> dict[str, np.ndarray]:
    return {name: values(distance) for name in ("spread", "from_peak", "from_warped")} | {
        "height": values(height)
    }


SURE = signs(0.003, 0.95)


@pytest.mark.parametrize("sign", ["spread", "from_peak", "from_warped"])
def test_distances_raise_it(sign: str) -> None:
    errors = [float(expected_error({**SURE, sign: values(d)})[0, 0]) for d in (0.0, 0.01, 0.05, 0.2)]
    assert errors == sorted(errors) and errors[0] < errors[-1]


def test_a_higher_peak_lowers_it() -> None:
    assert expected_error({**SURE, "height": values(0.2)}) > expected_error(SURE)


def test_without_a_network_flow_counts() -> None:
    near, far = (expected_error({"spread": values(0.01), "from_flow": values(d)}) for d in (0.0, 0.1))
    assert 0 < near < far


def test_what_was_not_seen_counts_as_far_away_and_no_trajectory_as_unknown() -> None:
    unseen = {**SURE, "from_peak": values(np.nan), "height": values(np.nan)}
    assert expected_error(unseen) > expected_error(SURE)
    assert np.isnan(expected_error({**SURE, "spread": values(np.nan)})).all()


def test_it_stays_within_half_of_the_subject() -> None:
    assert_allclose(expected_error(signs(9.0, 0.0)), 0.5)
    assert_allclose(expected_error({"spread": values(9.0), "from_flow": values(9.0)}), 0.5)
    assert 0 < float(expected_error(SURE)[0, 0]) < 0.02 and BOUND > 1


def test_signs_are_distances_from_the_evidence_as_shares_of_the_size() -> None:
    solved = Trajectory(np.array([[[50.0, 20.0]]]), values(2.0))
    peaks = Peaks(np.array([[[[50.0, 60.0], [53.0, 24.0]]]]), np.array([[[0.9, 0.4]]]))
    warped = Warped(Seen(np.array([[[50.0, 30.0]]]), values(0.5)), ())
    rough, anchors = np.array([[[70.0, 20.0]]]), np.full((1, 1, 2), np.nan)

    def read(seen, warped) -> dict[str, float]:
        more = {
            "steps": lambda points: (points, points),
            "size": np.array([100.0]),
            "origin": np.zeros((1, 2)),
        }
        lines = Sighting(anchors, values(np.nan))
        trust = {"trust_in_seen": np.ones(1), "trust_in_flow": np.ones(1)}
        found = Evidence(anchors, rough, seen, warped, (), lines, **more, **trust)
        return {name: float(sign[0, 0]) for name, sign in read_signs(solved, found).items()}

    # The highest peak is forty pixels away, the nearest one is low.
    assert read(peaks, warped) == {"spread": 0.02, "from_peak": 0.4, "height": 0.4, "from_warped": 0.1}
    assert read(peaks, None) == {"spread": 0.02, "from_peak": 0.4, "height": 0.4, "from_warped": 0.4}
    assert read(None, None) == {"spread": 0.02, "from_flow": 0.2}
