"""The smallest difference that a comparison could have seen."""

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
    _, of_seeds, of_images = (float(value) for value in spread(ours - theirs))
    c = critical_value(len(ours), share_of_seeds(of_seeds, of_images))
    return float((c + stats.norm.ppf(POWER)) * np.sqrt(of_seeds + of_images))
