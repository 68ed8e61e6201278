"""Dropout over time: one mask per sample, the same at every timestep."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def dropped(p: float = 0.5, training: bool = True) -> float:
    """The probability of a dropout function, from its arguments after the input; 0 if it returns the input itself."""
    return p if training else 0.0


def dropout_scale_shift(name: str, func: Callable[..., Any], sample: Tensor, p: float) -> tuple[Tensor, Tensor | float]:
    """The mask of a dropout, drawn once per sample for all its timesteps, as `y = scale * x + shift`."""
    ones = torch.ones_like(sample, requires_grad=False)
    if "alpha" not in name:
        return func(ones, p, True), 0.0
    masks = torch.nn.functional.dropout if name == "alpha_dropout" else _feature_dropout
    kept = (masks(ones, p, True) > 0).to(sample.dtype)
    # Klambauer et al. (2017): dropped elements become SELU's lower limit, which keeps mean and variance of N(0, 1).
    low = -1.7580993408473766
    scale = ((1 - p) * (1 + p * low**2)) ** -0.5 if p < 1 else 0.0
    return scale * kept, scale * (low * (1 - kept) - p * low)


def _feature_dropout(ones: Tensor, p: float, training: bool) -> Tensor:
    per_channel = ones.new_ones(*ones.shape[:2], *[1] * (ones.ndim - 2))
    return torch.nn.functional.dropout(per_channel, p, training).expand_as(ones)
