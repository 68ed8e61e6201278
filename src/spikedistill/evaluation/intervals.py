"""Confidence intervals of an accuracy that was measured on a finite test set."""

Z = 1.959963984540054  # the 97.5 percent quantile of the standard normal distribution


def wilson(accuracy: float, count: int) -> tuple[float, float]:
    """Wilson's 95 percent interval of an accuracy: the low and the high end.

    With p the accuracy, n the count and z = 1.96, the ends are those true accuracies from which p lies z standard errors away,

        (p + z²/2n ± z √(p (1 - p)/n + z²/4n²)) / (1 + z²/n)

    It stays within 0 and 1 and keeps its coverage near them, unlike p ± z √(p (1 - p)/n). It is for one trained network
    on new samples of the same kind; a network trained with another seed can lie outside. E. B. Wilson, Probable
    inference, the law of succession, and statistical inference, 1927.

    Args:
        accuracy: the fraction of samples that is right, from 0 to 1.
        count: samples, 1 or more.
    """
    z2 = Z**2 / count
    centre = (accuracy + z2 / 2) / (1 + z2)
    half = (z2 * accuracy * (1 - accuracy) + z2**2 / 4) ** 0.5 / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)
