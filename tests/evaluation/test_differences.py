"""A difference between two methods, and how sure it is: numbers by hand, known limits, and coverage."""

from itertools import pairwise

import numpy as np
import pytest
from benchmarks.coverage import Case, simulate, simulate_answers
from scipy import stats

from spikedistill.evaluation.comparison.differences import critical_value, p_value, paired_difference, spread


def zeros(d):
    return np.zeros_like(d)


def test_the_variance_by_hand():
    d = np.array([[1.0, 2.0], [3.0, 6.0], [2.0, 4.0]])  # 3 seeds, 2 images
    # seeds 1.5, 4.5, 3 and images 2, 4 around 3; the rest is -1.5 + 3 - 1.5 ... = [[.5, -.5], [-.5, .5], [0, 0]]
    # MS_seeds = 2 (1.5^2 + 1.5^2) / 2 = 4.5, MS_images = 3 (1 + 1) / 1 = 6, MS_both = 4 (1/2)^2 / 2 = 1/2; S N = 6
    mean, of_seeds, of_images = spread(d)
    assert (mean, of_seeds, of_images) == pytest.approx((3.0, 4.5 / 6, 5.5 / 6))
    found = paired_difference(d, zeros(d))
    # on these two images: three seeds with a deviation of 1.5, Student's t with 2 degrees of freedom
    half = 4.302653 * 1.5 / np.sqrt(3)
    assert (found["test_set_low"], found["test_set_high"]) == pytest.approx((3 - half, 3 + half))


def test_many_comparisons_at_a_time_are_each_as_alone():
    d = np.random.default_rng(0).standard_normal((2, 5, 4, 30))
    together = spread(d)
    for place in np.ndindex(2, 5):
        assert [float(part[place]) for part in together] == pytest.approx([float(part) for part in spread(d[place])])


def test_no_difference_is_no_difference():
    right = np.random.default_rng(0).integers(2, size=(3, 500)).astype(float)
    nothing = dict.fromkeys(("difference", "low", "high", "test_set_low", "test_set_high"), 0.0)
    assert paired_difference(right, right) == nothing | {"p": 1.0}


def test_a_difference_on_every_sample_has_no_uncertainty():
    found = paired_difference(np.ones((3, 50)), np.zeros((3, 50)))
    assert found == dict.fromkeys(("difference", "low", "high", "test_set_low", "test_set_high"), 1.0) | {"p": 0.0}


@pytest.mark.parametrize("S", [1, 2])
def test_fewer_than_three_seeds_have_a_difference_without_an_interval(S):
    assert paired_difference(np.ones((S, 4)), np.array([[1.0, 0, 0, 0]] * S)) == {"difference": 0.75}


def test_where_only_seeds_differ_it_is_students_t():
    d = np.repeat([[0.0], [1.0], [0.0], [1.0]], 100, axis=1)
    found = paired_difference(d, zeros(d))
    t = stats.ttest_1samp(d.mean(1), 0)
    assert found["p"] == pytest.approx(t.pvalue)
    interval = t.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert (found["test_set_low"], found["test_set_high"]) == pytest.approx((found["low"], found["high"]))


def test_where_only_images_differ_it_is_the_paired_normal_approximation():
    of_images = np.random.default_rng(1).standard_normal(4000)
    d = np.tile(of_images, (4, 1))
    found = paired_difference(d, zeros(d))
    half = 1.959964 * of_images.std(ddof=1) / np.sqrt(4000)
    assert (found["low"], found["high"]) == pytest.approx((d.mean() - half, d.mean() + half))
    assert (found["test_set_low"], found["test_set_high"]) == pytest.approx((d.mean(), d.mean()))


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_the_p_value_is_the_mean_of_satterthwaites_and_of_a_sum_of_t_and_normal(share):
    S, ratio, generator = 4, 2.2, np.random.default_rng(0)
    draws = np.sqrt(share) * generator.standard_t(S - 1, 10**6) + np.sqrt(1 - share) * generator.standard_normal(10**6)
    by_drawing = (np.abs(draws) > ratio).mean()
    satterthwaite = 2 * stats.t.sf(ratio, 3 / share**2)
    assert p_value(ratio, S, share, 1 - share) == pytest.approx((by_drawing + satterthwaite) / 2, rel=0.01)


def test_the_interval_holds_what_is_not_excluded():
    for S in (3, 5, 9):
        for share in (0.0, 0.2, 0.6, 1.0):
            assert p_value(critical_value(S, share), S, share, 1 - share) == pytest.approx(0.05)
    widths = [critical_value(S, 0.5) for S in (3, 4, 5, 10, 100)]
    assert all(wide > narrow for wide, narrow in pairwise(widths))
    assert widths[-1] == pytest.approx(1.96, abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_intervals_contain_the_truth_as_often_as_they_say(share):
    """Within what 2,000 trials tell; the committed table has 20,000."""
    found = simulate(Case(5, share, 0.5 if share else 0.0), 2000, 100, [0.0, 4.0], seed=0)
    error = 3 * np.sqrt(95 * 5 / 2000)
    assert found["coverage"] == pytest.approx(95, abs=error)
    assert found["power"][0] == pytest.approx(100 - found["coverage"])
    assert found["power"][1] > 75
    assert found["fixed"] is None if share == 0 else found["fixed"] == pytest.approx(95, abs=error)


def test_so_do_intervals_of_right_and_wrong_answers():
    assert simulate_answers(5, 1000, 500, 0.5, seed=0)["coverage"] == pytest.approx(95, abs=3 * np.sqrt(95 * 5 / 1000))


def test_runs_of_other_samples_are_refused():
    with pytest.raises(ValueError, match=r"got \[2, 5\] and \[2, 6\]"):
        paired_difference(np.zeros((2, 5)), np.zeros((2, 6)))
