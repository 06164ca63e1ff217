"""Expected errors: they rise with every sign of doubt, and stay within limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from posewarper.propagation.expected_error import BOUND, Signs, expected_error


def values(*numbers: float) -> np.ndarray:
    return np.array([numbers])


SURE = Signs(*(values(0.003),) * 3, values(0.95), values(0.003))


@pytest.mark.parametrize("sign", ["spread", "from_peak", "from_warped"])
def test_distances_raise_it(sign: str) -> None:
    errors = [float(expected_error(replace(SURE, **{sign: values(d)}))[0, 0]) for d in (0.0, 0.01, 0.05, 0.2)]
    assert errors == sorted(errors) and errors[0] < errors[-1]


def test_a_higher_peak_lowers_it() -> None:
    assert expected_error(replace(SURE, height=values(0.2))) > expected_error(SURE)


def test_without_a_network_flow_counts() -> None:
    near, far = (expected_error(Signs(values(0.01), values(d))) for d in (0.0, 0.1))
    assert 0 < near < far


def test_what_was_not_seen_counts_as_far_away_and_no_trajectory_as_unknown() -> None:
    unseen = replace(SURE, from_peak=values(np.nan), height=values(np.nan))
    assert expected_error(unseen) > expected_error(SURE)
    assert_allclose(expected_error(replace(SURE, from_warped=None)), expected_error(SURE))
    assert np.isnan(expected_error(replace(SURE, spread=values(np.nan)))).all()


def test_it_stays_within_half_of_the_subject() -> None:
    lost = Signs(*(values(9.0),) * 3, values(0.0), values(9.0))
    assert_allclose(expected_error(lost), 0.5)
    assert_allclose(expected_error(Signs(values(9.0), values(9.0))), 0.5)
    assert 0 < float(expected_error(SURE)[0, 0]) < 0.02 and BOUND > 1
