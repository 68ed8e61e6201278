"""Postponed batch-norm, with a residual added to it: the loop of the next neurons computes both."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..neurons import NormalisedCurrent


def sum_in_waiting(one: Any, other: Any, values: Callable[[Any], Tensor]) -> NormalisedCurrent | None:
    """The sum of a signal with a postponed batch-norm and another of the same kind, shape and length; None for any other sum.

    Args:
        one, other: the summands.
        values: returns the exact values of a signal, computing a postponed batch-norm.
    """
    if type(one) is not type(other) or one.shape != other.shape:
        return None
    if not isinstance(one._held, NormalisedCurrent):
        one, other = other, one
    waiting = one._held
    if not isinstance(waiting, NormalisedCurrent) or waiting.residual is not None:
        return None
    residual = values(other)
    if residual.shape != waiting.x.shape or residual.dtype != waiting.x.dtype:
        return None
    return waiting.plus(residual, getattr(other, "_packed", None))
