"""A difference with the smallest that its study could have seen, and its power."""

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from spikedistill.evaluation.comparison.differences import Array, critical_value, share_of_seeds, spread

POWER = 0.8
_LEAST_SHARE = 0.05  # of the variance that comes from seeds: below it t is normal


class Difference(NamedTuple):
    """The mean difference of two methods, and what is known of its error.

    Attributes:
        mean: the difference.
        of_seeds: the part of its variance that comes from seeds.
        of_images: the part that comes from test images.
        degrees: degrees of freedom of `of_seeds`.
    """

    mean: float
    of_seeds: float
    of_images: float
    degrees: int

    @property
    def error(self) -> float:
        """Its standard error."""
        return float(np.sqrt(self.of_seeds + self.of_images))

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of its 95 percent interval."""
        reach = self.error * self._critical
        return self.mean - reach, self.mean + reach

    @property
    def _share(self) -> float:
        return float(share_of_seeds(self.of_seeds, self.of_images))

    @property
    def _critical(self) -> float:
        """Half the width of the interval in standard errors."""
        return critical_value(self.degrees + 1, self._share)

    def power(self, difference: float) -> float:
        """The share of repetitions of the study in which a true difference of this size would be found, p < 0.05.

        A repetition estimates its error anew, so its difference in standard errors is noncentral t, with Satterthwaite's degrees of
        freedom. The errors are those that the study itself has, which are uncertain: with three degrees of freedom they are
        between a third and 1.6 of the true ones in nine of ten studies.
        """
        if not self.error:
            return float(difference > 0)
        degrees = self.degrees / max(self._share, _LEAST_SHARE) ** 2
        return float(stats.nct.sf(self._critical, degrees, difference / self.error))

    def detectable(self) -> float:
        """The true difference that would be found, p < 0.05, in four of five repetitions of the study."""
        return (
            0.0
            if not self.error
            else self.error * float(brentq(lambda away: self.power(away * self.error) - POWER, 0.0, 100.0))
        )


def paired(ours: Array, theirs: Array) -> Difference:
    """Of runs with equal seeds, which have their start and the order of images in common; see `paired_difference`.

    Args:
        ours: score of each test sample in each run, `[S, N]`, three seeds or more.
        theirs: the same of the other method, with the same seeds in the same order.
    """
    mean, of_seeds, of_images = (float(value) for value in spread(ours - theirs))
    return Difference(mean, of_seeds, of_images, len(ours) - 1)


def unpaired(ours: Array, theirs: Array) -> Difference:
    """Of runs that have nothing in common but the test images: the variances of both over seeds are added.

    Args:
        ours: score of each test sample in each run, `[S, N]`, three seeds or more.
        theirs: the same of as many other runs.
    """
    mean, _, of_images = (float(value) for value in spread(ours - theirs))
    of_seeds = sum(float(spread(each).of_seeds) for each in (ours, theirs))
    return Difference(mean, of_seeds, of_images, 2 * (len(ours) - 1))


def detectable(ours: Array, theirs: Array) -> float:
    """The true difference of two methods that would be found in four of five repetitions, of runs with equal seeds `[S, N]`."""
    return paired(ours, theirs).detectable()
