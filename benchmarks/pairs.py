"""What runs of several seeds have in the mean, and differences between runs of equal seeds, by Student's t."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def difference(ours: Sequence[float], theirs: Sequence[float], digits: int = 1) -> str:
    """The mean difference of pairs with its 95 percent interval, such as `+1.2 [+0.4, +2.0]`; of one pair the difference alone."""
    each = np.subtract(ours, theirs)
    if len(each) < 2:
        return f"{each.mean():+.{digits}f}"
    reach = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
    low, high = each.mean() - reach, each.mean() + reach
    return f"{each.mean():+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """The mean with the standard deviation, such as `91.2 ± 0.4`; of one value that alone."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"
