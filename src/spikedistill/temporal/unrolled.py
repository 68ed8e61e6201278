"""Backpropagation through time: every timestep's value with its graph."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor
from torch.utils import _pytree as pytree

from ..neurons import lif
from .batch_norm import BatchNormCall, batch_norm
from .dropout import dropout_arguments, dropout_scale_shift
from .operations import DROPOUTS, LAYERS, PER_TIMESTEP
from .signal import Signal, check_layer, fold_time, map_over_time


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

    @property
    def requires_grad(self) -> bool:
        return self._values.requires_grad

    def over_time(self) -> Tensor:
        return self._values.expand(self.timesteps, *self._values.shape[1:])

    def mean_over_time(self) -> Tensor:
        return self._values.mean(0)

    def become(self, other: Any) -> None:
        self._values = other._values

    def fire(self, neuron: Any) -> Self:
        self.keep_graph("LIF")
        dynamics = neuron.dynamics(self.ndim)
        return self._with(lif(self.over_time(), detach_membrane=self.gradient == "sltt", **dynamics))

    def normalise(self, norm: Any) -> Self:
        self.keep_graph(type(norm).__name__)
        return self._with(norm.over_time(self._values, self.timesteps))

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in PER_TIMESTEP:
            return self._wrap(map_over_time(func, args, kwargs, lambda signal: signal._values))
        if name not in LAYERS:
            self.refuse(name)
        check_layer(self, name, args, kwargs)
        if name == "batch_norm":
            return self._with(batch_norm(self._values, self.timesteps, BatchNormCall(*args[1:], **kwargs)))
        if name in DROPOUTS:
            scale, shift = dropout_scale_shift(name, func, self.sample, *dropout_arguments(*args[1:], **kwargs))
            return self._with(self._values * scale + shift)
        return self._wrap(fold_time(func, self._values, *args[1:], **kwargs))

    def _with(self, values: Tensor) -> Self:
        return type(self)(values, self.timesteps, self.gradient)

    def _wrap(self, out: Any) -> Any:
        return pytree.tree_map(self._with, out)
