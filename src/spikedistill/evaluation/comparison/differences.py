"""A difference between two methods, with intervals for other seeds and other images.

Legend: S seeds, N test samples.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import UserError

Array = npt.NDArray[np.float64]
FEWEST_SEEDS = 3  # for an interval
LEVEL = 0.05
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


class Spread(NamedTuple):
    """The variance of a mean difference, split by its sources; arrays of one shape, or numbers.

    Attributes:
        mean: the mean over seeds and images.
        of_seeds: the part from seeds, (sigma_a^2 + sigma_e^2 / N) / S.
        of_images: the part from images, sigma_b^2 / N.
    """

    mean: Array
    of_seeds: Array
    of_images: Array


def paired_difference(ours: Array, theirs: Array) -> dict[str, float]:
    """Mean of `ours - theirs`, and from three seeds on its intervals for other runs.

    The model of the difference of seed s on image i is d_si = mu + a_s + b_i + e_si, with independent random effects of seeds, of
    images and of both together, as in studies in which several readers judge the same cases. The variance of the mean
    is estimated from mean squares,

        (MS_seeds + max(MS_images - MS_both, 0)) / (S N),

    and the p-value is the mean of two, because one is a little too small and the other a little too large. The first is
    Satterthwaite's, with (S - 1) / share^2 degrees of freedom, where share is the part of the variance that comes from seeds.
    The second is that of a sum of Student's t for seeds and a normal variable for images (Behrens and Fisher). The interval
    holds all values of mu that this p-value does not exclude at 0.05. `python -m benchmarks coverage` shows how often it
    contains mu.

    Args:
        ours: score of each test sample in each run, `[S, N]`, such as 1 if it is right and 0 if it is wrong.
        theirs: the same for the baseline, with the same seeds in the same order.

    Returns:
        `{difference}`, and from 3 seeds on `{low, high, p, test_set_low, test_set_high}`: the ends of the 95 percent interval
        of mu, the difference on new seeds and new images; the two-sided p-value of mu = 0; and the ends of the interval for new
        seeds on these same images, by Student's t over the seeds. From fewer seeds one cannot estimate how much seeds differ,
        so there is no interval.

    Raises:
        UserError: if the two do not have the same seeds and samples.

    References:
        Satterthwaite, Biometrics Bulletin 2 (1946) 110; Dorfman, Berbaum and Metz, Investigative Radiology 27 (1992) 723; Hillis,
        Statistics in Medicine 26 (2007) 596.
    """
    if ours.shape != theirs.shape or ours.ndim != 2:
        raise UserError(
            f"expected scores [S, N] of the same runs and samples, got {list(ours.shape)} and {list(theirs.shape)}"
        )
    difference = ours - theirs
    found = {"difference": float(difference.mean())}
    if len(difference) < FEWEST_SEEDS:
        return found
    from scipy import stats  # which takes a second

    mean, of_seeds, of_images = (float(value) for value in spread(difference))
    both = np.sqrt(of_seeds + of_images)
    half = both * critical_value(len(difference), share_of_seeds(of_seeds, of_images))
    found |= {"low": float(mean - half), "high": float(mean + half)}
    found["p"] = float(p_value(mean, len(difference), of_seeds, of_images))
    on_these = float(stats.t.ppf(1 - LEVEL / 2, len(difference) - 1) * np.sqrt(of_seeds))
    return found | {"test_set_low": mean - on_these, "test_set_high": mean + on_these}


def spread(difference: Array) -> Spread:
    """The mean of differences `[..., S, N]`, and its variance split by its sources, each `[...]`."""
    S, N = difference.shape[-2:]
    mean = difference.mean((-2, -1), keepdims=True)
    of_seeds, of_images = difference.mean(-1, keepdims=True) - mean, difference.mean(-2, keepdims=True) - mean
    rest = difference - mean - of_seeds - of_images
    seeds = N * np.square(of_seeds).sum((-2, -1)) / (S - 1)
    images = S * np.square(of_images).sum((-2, -1)) / max(N - 1, 1)
    both = np.square(rest).sum((-2, -1)) / max((S - 1) * (N - 1), 1)
    return Spread(mean[..., 0, 0], seeds / (S * N), np.maximum(images - both, 0) / (S * N))


def share_of_seeds(of_seeds: npt.ArrayLike, of_images: npt.ArrayLike) -> Array:
    """The share of the variance that comes from seeds; 1 if the variance is zero."""
    whole = np.add(of_seeds, of_images)
    return np.divide(of_seeds, whole, out=np.ones_like(whole), where=whole > 0)


def p_value(mean: npt.ArrayLike, S: int, of_seeds: npt.ArrayLike, of_images: npt.ArrayLike) -> Array:
    """The two-sided p-value of a mean over S seeds; see `paired_difference`. Arrays of one shape, or numbers."""
    error = np.sqrt(np.add(of_seeds, of_images))
    away = np.abs(mean)
    ratio = np.divide(away, error, out=np.where(away > 0, np.inf, 0.0), where=error > 0)
    return _tails(ratio, S, share_of_seeds(of_seeds, of_images))


def critical_value(S: int, share: npt.ArrayLike) -> float:
    """Half the width of the 95 percent interval, in standard errors."""
    from scipy import stats
    from scipy.optimize import brentq

    widest = float(stats.t.ppf(1 - LEVEL / 4, S - 1))
    return float(brentq(lambda ratio: float(_tails(np.asarray(ratio), S, np.asarray(share))) - LEVEL, 0.0, 2 * widest))


def _tails(ratio: Array, S: int, share: Array) -> Array:
    """P(|x| > ratio) for a mean in standard errors: the average of Satterthwaite's value and that of Behrens and Fisher."""
    from scipy import stats

    share = np.maximum(share, 1e-9)  # for smaller shares both are the normal distribution
    satterthwaite = 2 * stats.t.sf(ratio, (S - 1) / np.square(share))
    # Student's t is a normal variable divided by a chi variable; given the latter, the sum is normal: integrate over it
    chi, weights = _chi(S - 1)
    deviation = np.sqrt(share[..., None] / np.square(chi) + (1 - share[..., None]))
    behrens_fisher = 2 * stats.norm.sf(np.asarray(ratio)[..., None] / deviation) @ weights
    return (satterthwaite + behrens_fisher) / 2


def _chi(degrees: int) -> tuple[Array, Array]:
    """Nodes and weights to integrate over a chi variable divided by the root of its degrees of freedom."""
    from scipy import stats

    end = np.sqrt(stats.chi2.isf(1e-12, degrees) / degrees)
    nodes = end / 2 * (_NODES + 1)
    weights = _WEIGHTS * stats.chi.pdf(nodes * np.sqrt(degrees), degrees)
    return nodes, weights / weights.sum()
