"""One timestep at a time with an explicit state: early exit and use on a device."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from torch import Tensor
from torch.utils import _pytree as pytree

from ..neurons import lif_step
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
    replace_signals,
)

_PER_SAMPLE = LINEAR | NORMS | MEAN_POOLS | MAX_POOLS
_ALLOWED = _PER_SAMPLE | SHAPES | SUMS | PRODUCTS | QUOTIENTS | NONLINEAR | DROPOUTS | {"batch_norm"}


class Membranes:
    """The membranes that one step reads and writes, each under the path of its module.

    Args:
        paths: the path of every module.
        before: membranes after the previous timestep; empty at the first.
    """

    def __init__(self, paths: Mapping[Any, str], before: Mapping[str, Tensor]) -> None:
        self.paths = paths
        self.before = before
        self.after: dict[str, Tensor] = {}

    def key_of(self, neuron: Any) -> str:
        """The neuron's path; a module that is called again in the same step has a further membrane, `path#1`."""
        path, key, calls = self.paths[neuron], self.paths[neuron], 0
        while key in self.after:
            calls += 1
            key = f"{path}#{calls}"
        return key


class Stream(Signal):
    """The value `[B, ...]` of one timestep, and the membranes of the network."""

    gradient = "step"
    timesteps = 1

    def __init__(self, value: Tensor, membranes: Membranes) -> None:
        self._value = value
        self._membranes = membranes

    @property
    def sample(self) -> Tensor:
        return self._value

    def over_time(self) -> Tensor:
        return self._value.unsqueeze(0)

    def mean_over_time(self) -> Tensor:
        return self._value

    def become(self, other: Any) -> None:
        self._value = other._value

    def fire(self, neuron: Any) -> Self:
        key = self._membranes.key_of(neuron)
        dynamics = neuron.dynamics(self.ndim)
        spikes, membrane = lif_step(self._value, self._membranes.before.get(key), **dynamics)
        self._membranes.after[key] = membrane
        return self._with(spikes)

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name not in _ALLOWED:
            self.refuse(name)
        if name in _PER_SAMPLE:
            check_sample(self, name)
        out = func(*replace_signals(args, lambda s: s._value), **replace_signals(kwargs, lambda s: s._value))
        return pytree.tree_map(self._with, out)

    def _with(self, value: Tensor) -> Self:
        return type(self)(value, self._membranes)
