"""Postponed batch-norm, with a residual added to it: the loop of the next neurons computes both."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..neurons import NormalisedCurrent, SpikesInBits
from ..sparse import NormalisedLayer, SpikeRows


def sum_in_waiting(one: Any, other: Any, values: Callable[[Any], Tensor]) -> NormalisedCurrent | NormalisedLayer | None:
    """The sum of a signal with a postponed batch-norm and another of the same kind, shape and length; None for any other sum.

    Args:
        one, other: the summands.
        values: returns the exact values of a signal, computing a postponed batch-norm.
    """
    if type(one) is not type(other) or one.shape != other.shape:
        return None
    if not isinstance(one._held, NormalisedCurrent | NormalisedLayer):
        one, other = other, one
    waiting = one._held
    if not isinstance(waiting, NormalisedCurrent | NormalisedLayer) or waiting.residual is not None:
        return None
    held = other._held
    in_bits = isinstance(held, SpikeRows if isinstance(waiting, NormalisedLayer) else SpikesInBits)
    residual = held if in_bits else values(other)
    like = held.like if in_bits else residual
    if like.shape != waiting.like.shape or like.dtype != waiting.like.dtype:
        return None
    if isinstance(waiting, NormalisedLayer):
        return waiting.plus(residual)
    return waiting.plus(residual, getattr(other, "_packed", None))
