"""Differences between methods, the smallest that a study could have seen and its power: by simulation, and by hand."""

import numpy as np
import pytest
from benchmarks.detectable import detectable, paired, unpaired

from spikedistill.evaluation.comparison.differences import paired_difference

S, N = 5, 100


def test_the_interval_of_paired_runs_is_that_of_the_comparison():
    random = np.random.default_rng(0)
    ours, theirs = random.random((2, 4, 200))
    found, expected = paired(ours, theirs), paired_difference(ours, theirs)
    assert found.mean == pytest.approx(expected["difference"])
    assert found.interval == pytest.approx((expected["low"], expected["high"]))


def test_the_smallest_difference_is_found_in_four_of_five_studies():
    random = np.random.default_rng(0)

    def differences(mu):
        seeds, images = random.normal(0, 0.02, (S, 1)), random.normal(0, 0.3, (1, N))
        return mu + seeds + images + random.normal(0, 0.2, (S, N))

    none = np.zeros((S, N))
    mu = float(np.mean([detectable(differences(0.0), none) for _ in range(60)]))
    found = [paired_difference(differences(mu), none)["p"] < 0.05 for _ in range(300)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)
    one = differences(0.0)
    assert paired(one, none).power(detectable(one, none)) == pytest.approx(0.8)
    assert paired(one, none).power(0.0) < 0.03, "in this direction"
    assert detectable(none, none) == 0


def test_with_few_seeds_the_error_of_a_repetition_is_uncertain_too():
    """All variance from three seeds: 80 percent need 5.65 standard errors by noncentral t, where a normal variable needs 5.14."""
    seeds = np.array([-0.01, 0.0, 0.01])[:, None] * np.ones((1, 4))
    found = paired(seeds, np.zeros((3, 4)))
    assert found.of_images == pytest.approx(0)
    assert found.detectable() / found.error == pytest.approx(5.65, abs=0.01)


def test_runs_that_have_no_seeds_in_common_are_not_paired():
    """Two programs, 4 runs each: their interval holds the truth as often as it says, and is narrower than a paired one."""
    random, within, narrower = np.random.default_rng(1), [], []
    for _ in range(400):
        images = random.normal(0, 0.3, (1, N))
        ours, theirs = (0.5 + images + random.normal(0, 0.03, (4, 1)) + random.normal(0, 0.2, (4, N)) for _ in range(2))
        ours = ours + random.normal(0, 0.1, (1, N))  # images that are easier for one
        low, high = unpaired(ours, theirs).interval
        within.append(low <= 0 <= high)
        narrower.append(high - low < np.subtract(*reversed(paired(ours, theirs).interval)))
    assert np.mean(within) == pytest.approx(0.95, abs=0.035)
    assert np.mean(narrower) > 0.6
