"""Postponed batch-norm, with a residual added to it: the loop of the next neurons computes both."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..neurons import NormalisedCurrent, SpikesInBits
from ..sparse import LayerOnSpikes, NormalisedLayer, SpikeRows


def sum_in_waiting(one: Any, other: Any, values: Callable[[Any], Tensor]) -> NormalisedCurrent | NormalisedLayer | None:
    """The sum of a signal with a postponed batch-norm and another of the same kind, shape and length; None for any other sum.

    Args:
        one, other: the summands.
        values: returns the exact values of a signal, computing a postponed batch-norm.
    """
    if type(one) is not type(other) or one.shape != other.shape:
        return None
    if not _waits(one._held):
        one, other = other, one
    waiting = one._held
    if not _waits(waiting):
        return None
    held, on_spikes = other._held, isinstance(waiting, LayerOnSpikes | NormalisedLayer)
    in_bits = isinstance(held, SpikeRows if on_spikes else SpikesInBits)
    residual = held if in_bits else values(other)
    like = held.like if in_bits else residual
    if like.shape != waiting.like.shape or like.dtype != waiting.like.dtype:
        return None
    return waiting.plus(residual) if on_spikes else waiting.plus(residual, getattr(other, "_packed", None))


def _waits(held: Any) -> bool:
    """Whether a value waits to be computed, and nothing has been added to it."""
    if isinstance(held, NormalisedCurrent | NormalisedLayer):
        return held.residual is None
    return isinstance(held, LayerOnSpikes)
