"""Differences between runs of equal seeds, by Student's t."""

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
