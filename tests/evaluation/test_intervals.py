"""Wilson's interval of an accuracy."""

import math

import pytest
from scipy.stats import binomtest

from spikedistill.evaluation.intervals import Z, wilson


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 30), (351, 355), (50, 100), (9_890, 10_000)])
def test_it_is_the_interval_of_scipy(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_its_ends_lie_so_many_standard_errors_away():
    """The definition: the observed share is z standard errors of the end away from the end."""
    for end in wilson(0.9, 200):
        assert abs(0.9 - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / 200))


def test_half_right_of_a_hundred_by_hand():
    # z^2 = 3.8415: the centre is 0.5, and half the width is sqrt(z^2 / 400 + z^4 / 40000) / (1 + z^2 / 100) = 0.0961
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
