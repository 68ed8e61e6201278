"""The smallest difference that a comparison could have seen, and its power."""

import numpy as np
from scipy import stats

from spikedistill.evaluation.comparison.differences import Array, critical_value, share_of_seeds, spread

POWER = 0.8


def detectable(ours: Array, theirs: Array) -> float:
    """The true difference of two methods that would be found, p < 0.05, in four of five repetitions of the study.

    That is (c + z) standard errors, with the errors that the study itself has: c is half the width of the interval in standard
    errors, and z = 0.84 is exceeded by one of five normal variables.

    Args:
        ours: score of each test sample in each run, `[S, N]`, three seeds or more.
        theirs: the same of the other method.
    """
    error, c = _error(ours, theirs)
    return float((c + stats.norm.ppf(POWER)) * error)


def power(ours: Array, theirs: Array, difference: float) -> float:
    """The share of repetitions of the study in which a true difference of this size would be found, p < 0.05.

    Args:
        ours: score of each test sample in each run, `[S, N]`, three seeds or more.
        theirs: the same of the other method.
        difference: in the unit of the scores.
    """
    error, c = _error(ours, theirs)
    return float(stats.norm.cdf(difference / error - c))


def _error(ours: Array, theirs: Array) -> tuple[float, float]:
    """The standard error of the difference, and half the width of its interval in standard errors."""
    _, of_seeds, of_images = (float(value) for value in spread(ours - theirs))
    c = critical_value(len(ours), share_of_seeds(of_seeds, of_images))
    return float(np.sqrt(of_seeds + of_images)), float(c)
