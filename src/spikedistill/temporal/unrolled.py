"""Backpropagation through time: every timestep's value with its graph."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor
from torch.utils import _pytree as pytree

from ..neurons import lif
from .batch_norm import BatchNormCall, batch_norm
from .signal import (
    DROPOUTS,
    LINEAR,
    MAX_POOLS,
    MEAN_POOLS,
    NONLINEAR,
    NORMS,
    PRODUCTS,
    QUOTIENTS,
    SHAPES,
    SUMS,
    Signal,
    check_sample,
    dropout_scale_shift,
    fold_time,
    map_over_time,
)

_PER_SAMPLE = LINEAR | NORMS | MEAN_POOLS | MAX_POOLS
_PER_TIMESTEP = SHAPES | SUMS | PRODUCTS | QUOTIENTS | NONLINEAR


class Unrolled(Signal):
    """Values `[T, B, ...]` with graph, or `[1, B, ...]` where they are constant in time.

    Args:
        values: the values.
        timesteps: T.
        gradient: "bptt", or "sltt", which cuts the gradient's path through the previous membrane.
    """

    def __init__(self, values: Tensor, timesteps: int, gradient: str = "bptt") -> None:
        self._values = values
        self.timesteps = timesteps
        self.gradient = gradient

    @property
    def sample(self) -> Tensor:
        return self._values[0]

    def over_time(self) -> Tensor:
        return self._values.expand(self.timesteps, *self._values.shape[1:])

    def mean_over_time(self) -> Tensor:
        return self._values.mean(0)

    def become(self, other: Any) -> None:
        self._values = other._values

    def fire(self, neuron: Any) -> Self:
        dynamics = neuron.dynamics(self.ndim)
        return self._with(lif(self.over_time(), detach_membrane=self.gradient == "sltt", **dynamics))

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in _PER_SAMPLE:
            check_sample(self, name)
            return self._wrap(fold_time(func, self._values, *args[1:], **kwargs))
        if name in _PER_TIMESTEP:
            return self._wrap(map_over_time(func, args, kwargs, lambda signal: signal._values))
        if name == "batch_norm":
            return self._with(batch_norm(self._values, self.timesteps, BatchNormCall(*args[1:], **kwargs)))
        if name in DROPOUTS:
            scale, shift = dropout_scale_shift(name, func, self.sample, *dropout_arguments(*args[1:], **kwargs))
            return self._with(self._values * scale + shift)
        self.refuse(name)

    def _with(self, values: Tensor) -> Self:
        return type(self)(values, self.timesteps, self.gradient)

    def _wrap(self, out: Any) -> Any:
        return pytree.tree_map(self._with, out)


def dropout_arguments(p: float = 0.5, training: bool = True) -> tuple[float, bool]:
    """The arguments of a dropout function after its input."""
    return p, training
