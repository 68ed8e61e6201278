"""How often the intervals of a comparison contain what they are for, and how often a difference is found: by simulation.

Legend: S seeds, N test samples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from spikedistill.evaluation.comparison.differences import LEVEL, critical_value, p_value, share_of_seeds, spread

Array = npt.NDArray[np.float64]
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_CHUNK = 500  # trials at a time


class Case(NamedTuple):
    """One point of the grid.

    Attributes:
        seeds: S.
        share: the share of the variance of the mean that comes from seeds.
        noise: the share of that which is of seeds and images together, sigma_e^2 / N.
    """

    seeds: int
    share: float
    noise: float


def simulate(case: Case, trials: int, samples: int, differences: Sequence[float], seed: int) -> dict[str, Any]:
    """Shares of trials, in percent, for normal effects whose mean has the variance 1.

    Args:
        case: how large the effects are.
        trials: how many comparisons of S seeds and N test samples.
        samples: N.
        differences: true differences in standard errors, at which power is counted.
        seed: of the generator.

    Returns:
        `{seeds, share, noise, coverage, fixed, power}`: how often the interval contains the true difference, how often that for
        this test set contains the difference on it (None where seeds do not differ), and how often each of `differences` is found
        at p < 0.05.
    """
    generator = np.random.default_rng([seed, case.seeds, round(100 * case.share), round(100 * case.noise)])
    S, N = case.seeds, samples
    a = np.sqrt(S * case.share * (1 - case.noise))
    b, e = np.sqrt(N * (1 - case.share)), np.sqrt(S * N * case.share * case.noise)
    inside, fixed, found = 0, 0, np.zeros(len(differences))
    for begin in range(0, trials, _CHUNK):
        shape = (min(_CHUNK, trials - begin), S, N)
        of_images = b * generator.standard_normal((shape[0], 1, N))
        d = a * generator.standard_normal((*shape[:2], 1)) + of_images + e * generator.standard_normal(shape)
        mean, of_seeds, variance_of_images = spread(d)
        inside += int((p_value(mean, S, of_seeds, variance_of_images) >= LEVEL).sum())
        on_these = np.abs(mean - of_images.mean((1, 2)))
        fixed += int((on_these <= stats.t.ppf(1 - LEVEL / 2, S - 1) * np.sqrt(of_seeds)).sum())
        found += [(p_value(mean + true, S, of_seeds, variance_of_images) < LEVEL).sum() for true in differences]
    rates = {"coverage": 100 * inside / trials, "fixed": 100 * fixed / trials if case.share else None}
    return case._asdict() | rates | {"power": [float(100 * count / trials) for count in found]}


def simulate_answers(S: int, trials: int, samples: int, spread_of_seeds: float, seed: int) -> dict[str, Any]:
    """As `simulate`, for right and wrong answers instead of normal scores, and two methods of 90 and 91 percent.

    An answer is right where a normal variable is positive. Images differ in how hard they are, for both methods (0.8 of its
    variance) and for each of them (0.05). Runs differ by `spread_of_seeds`, in points of accuracy near 90. The rest is drawn for
    every answer.
    """
    generator = np.random.default_rng([seed, S, round(1000 * spread_of_seeds)])
    both, own = 0.8, 0.05
    of_run = spread_of_seeds / 100 / stats.norm.pdf(stats.norm.ppf(0.9))
    rest = 1 - both - own
    whole = np.sqrt(1 + of_run**2)
    levels = [stats.norm.ppf(accuracy) * whole for accuracy in (0.9, 0.91)]
    inside = 0
    for begin in range(0, trials, _CHUNK):
        shape = (min(_CHUNK, trials - begin), S, samples)
        shared = np.sqrt(both) * generator.standard_normal((shape[0], 1, samples))
        right = []
        for level in levels:
            latent = level + shared + np.sqrt(own) * generator.standard_normal((shape[0], 1, samples))
            latent = latent + of_run * generator.standard_normal((*shape[:2], 1))
            right.append(latent + np.sqrt(rest) * generator.standard_normal(shape) > 0)
        mean, of_seeds, of_images = spread(right[1].astype(float) - right[0])
        inside += int((p_value(mean - 0.01, S, of_seeds, of_images) >= LEVEL).sum())
    return {"seeds": S, "spread": spread_of_seeds, "coverage": 100 * inside / trials}


def to_markdown(found: Sequence[dict[str, Any]], differences: Sequence[float]) -> str:
    """A row for each S: the smallest and the largest coverage over the grid, and the power at its ends and its middle."""
    head = ["seeds", "coverage, new seeds and images", "coverage, this test set"]
    head += [f"power at {true:g} standard errors" for true in differences]
    lines = [head, ["--:"] * len(head)]
    for S in dict.fromkeys(row["seeds"] for row in found):
        rows = [row for row in found if row["seeds"] == S]
        powers = ([row["power"][place] for row in rows] for place in range(len(differences)))
        fixed = [row["fixed"] for row in rows if row["fixed"] is not None]
        coverage = [_range([row["coverage"] for row in rows], 1), _range(fixed, 1)]
        lines.append([str(S), *coverage, *(_range(power, 0) for power in powers)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def widths(seeds: Sequence[int]) -> str:
    """Half the width of the interval in standard errors, for every S and share of seeds."""
    head = ["seeds", *(f"{share:.0%} of seeds" for share in SHARES)]
    rows = [
        [str(S), *(f"{critical_value(S, share_of_seeds(share, 1 - share)):.2f}" for share in SHARES)] for S in seeds
    ]
    lines = [head, ["--:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _range(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"
