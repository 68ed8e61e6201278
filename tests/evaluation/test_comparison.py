"""What can be told apart, and what cannot."""

import numpy as np
import pytest

from spikedistill.evaluation.comparison import holm, paired_difference


def test_holm_by_hand():
    # sorted .01 .02 .04 times 3, 2, 1: .03, .04, .04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_no_difference_is_no_difference():
    right = np.random.default_rng(0).integers(2, size=(3, 500)).astype(float)
    found = paired_difference(right, right)
    assert found == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_a_difference_on_every_sample_has_no_uncertainty():
    found = paired_difference(np.ones((2, 50)), np.zeros((2, 50)))
    assert found == pytest.approx({"difference": 1.0, "low": 1.0, "high": 1.0, "p": 0.0})


def test_the_interval_of_one_seed_is_that_of_the_paired_normal_approximation():
    generator = np.random.default_rng(1)
    ours, theirs = (generator.random((1, 4000)) < 0.9).astype(float), (generator.random((1, 4000)) < 0.88).astype(float)
    found = paired_difference(ours, theirs, resamples=4000)
    d = (ours - theirs)[0]
    half = 1.96 * d.std() / np.sqrt(len(d))
    assert found["difference"] == pytest.approx(d.mean())
    assert found["low"] == pytest.approx(d.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(d.mean() + half, abs=0.1 * half)


def test_seeds_that_disagree_widen_the_interval():
    agreeing = np.full((4, 100), 0.5)
    disagreeing = np.repeat([[0.0], [1.0], [0.0], [1.0]], 100, axis=1)
    zeros = np.zeros((4, 100))
    narrow, wide = paired_difference(agreeing, zeros), paired_difference(disagreeing, zeros)
    assert narrow["high"] - narrow["low"] < 1e-9
    assert wide["high"] - wide["low"] > 0.5


def test_runs_of_other_samples_are_refused():
    with pytest.raises(ValueError, match=r"got \[2, 5\] and \[2, 6\]"):
        paired_difference(np.zeros((2, 5)), np.zeros((2, 6)))
