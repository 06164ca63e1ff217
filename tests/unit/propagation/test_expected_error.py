"""Expected errors: they rise with every sign of doubt, and stay within limits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from posewarper.propagation.evidence import Evidence, Peaks
from posewarper.propagation.expected_error import BOUND, expected_error, read_signs
from posewarper.propagation.trajectory import Sighting, Trajectory


def values(*numbers: float) -> np.ndarray:
    return np.array([numbers])


SURE = {"spread": values(0.003), "height": values(0.95)}
SURE_OF_FLOW = {"spread": values(0.003), "from_flow": values(0.003)}


@pytest.mark.parametrize(
    ("sure", "sign"), [(SURE, "spread"), (SURE_OF_FLOW, "spread"), (SURE_OF_FLOW, "from_flow")]
)
def test_distances_raise_it(sure: dict[str, np.ndarray], sign: str) -> None:
    errors = [float(expected_error({**sure, sign: values(d)})[0, 0]) for d in (0.0, 0.01, 0.05, 0.2)]
    assert errors == sorted(errors) and errors[0] < errors[-1]


def test_a_higher_peak_lowers_it() -> None:
    assert expected_error({**SURE, "height": values(0.2)}) > expected_error(SURE)


def test_what_was_not_seen_counts_as_far_away_and_no_trajectory_as_unknown() -> None:
    for sure, sign in ((SURE, "height"), (SURE_OF_FLOW, "from_flow")):
        assert expected_error({**sure, sign: values(np.nan)}) > expected_error(sure)
    assert np.isnan(expected_error({**SURE, "spread": values(np.nan)})).all()


def test_it_stays_within_half_of_the_subject() -> None:
    assert_allclose(expected_error({"spread": values(9.0), "height": values(0.0)}), 0.5)
    assert_allclose(expected_error({"spread": values(9.0), "from_flow": values(9.0)}), 0.5)
    assert 0 < float(expected_error(SURE)[0, 0]) < 0.02 and BOUND > 1


def test_signs_are_read_off_the_evidence_as_shares_of_the_size() -> None:
    solved = Trajectory(np.array([[[50.0, 20.0]]]), values(2.0))
    peaks = Peaks(np.array([[[[50.0, 60.0], [53.0, 24.0]]]]), np.array([[[0.9, 0.4]]]))
    rough, anchors = np.array([[[70.0, 20.0]]]), np.full((1, 1, 2), np.nan)

    def read(seen) -> dict[str, float]:
        more = {
            "steps": lambda points: (points, points),
            "size": np.array([100.0]),
            "origin": np.zeros((1, 2)),
        }
        lines = Sighting(anchors, values(np.nan))
        trust = {"trust_in_seen": np.ones(1), "trust_in_flow": np.ones(1)}
        found = Evidence(anchors, rough, seen, None, (), lines, **more, **trust)
        return {name: float(sign[0, 0]) for name, sign in read_signs(solved, found).items()}

    # The highest peak is forty pixels away, the nearest one is low.
    assert read(peaks) == {"spread": 0.02, "height": 0.4}
    assert read(None) == {"spread": 0.02, "from_flow": 0.2}
