"""Mean and standard deviation of images, which a network normalises them with."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

CONSTANT = 1e-6  # a standard deviation up to this, which rounding errors make, is that of a channel that never changes


def statistics(batches: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, with four decimals, or more if all values are close.

    A constant channel has deviation 1.

    Args:
        batches: images `[B, C, H, W]`, at least one; uint8 of 0 to 255 or numbers in [0, 1].
    """
    count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for images in batches:
        values = images.double() / 255 if images.dtype == torch.uint8 else images.double()
        count += values.numel() // values.shape[1]
        total, squares = total + values.sum((0, 2, 3)), squares + values.square().sum((0, 2, 3))
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > CONSTANT, std, 1.0)
    decimals = [max(4, 2 - math.floor(math.log10(value))) for value in std.tolist()]
    of_mean, of_std = (tuple(map(round, values.tolist(), decimals)) for values in (mean, std))
    return of_mean, of_std
