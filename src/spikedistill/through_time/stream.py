"""One timestep at a time with an explicit state: early exit and use on a device."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import UserError
from ..neurons import NormalisedCurrent, can_wait, lif_step, norm_lif_step
from .batch_norm import BatchNormCall, running_statistics
from .dropout import dropout_arguments
from .operations import ADDITIONS, DROPOUTS, LAYERS, PER_TIMESTEP
from .signal import Signal, check_layer, replace_signals, signals_in
from .waiting import sum_in_waiting

# What the currents of neurons whose input stays as it is are kept under, behind their path.
CURRENT = " current"
# Steps that a stream is expected to run: what pays off in a sequence of so many timesteps does so here.
STEPS = 4


class Membranes:
    """The membranes that one step reads and writes, each under the path of its module.

    Where the input stays as it is, what it makes of the first neurons' currents does too: they are kept at the first timestep and
    read at the others, in which nothing before them is computed.

    Args:
        paths: the path of every module.
        before: membranes after the previous timestep; empty at the first.
        still: whether the input is the same at every timestep.
    """

    def __init__(self, paths: Mapping[Any, str], before: Mapping[str, Tensor], still: bool = False) -> None:
        self.paths = paths
        self.before = before
        self.after: dict[str, Tensor] = {}
        self.keeps_currents = still and not before
        self.reads_currents = still and any(key.endswith(CURRENT) for key in before)

    def forget_currents(self) -> None:
        """Keep none: something other than neurons asks for a value that stays as it is."""
        self.keeps_currents = False
        self.after = {key: value for key, value in self.after.items() if not key.endswith(CURRENT)}

    def key_of(self, neuron: Any) -> str:
        """The neuron's path; a module that is called again in the same step has a further membrane, `path#1`.

        Raises:
            UserError: for a neuron that is no submodule of the network, and so has no path.
        """
        if neuron not in self.paths:
            raise UserError("a LIF layer is no submodule of the network: keep it as an attribute or in a ModuleList")
        path = key = self.paths[neuron]
        calls = 0
        while key in self.after:
            calls += 1
            key = f"{path}#{calls}"
        return key


class Stream(Signal):
    """The value `[B, ...]` of one timestep, and the membranes of the network.

    Args:
        value: the value; of one that stays as it is and is not computed again, on the meta device, its shape alone.
        membranes: those of this step.
        still: whether the value is the same at every timestep, and neurons may keep it.
    """

    gradient = "step"
    timesteps = 1

    def __init__(self, value: Tensor | NormalisedCurrent, membranes: Membranes, still: bool = False) -> None:
        self._held = value
        self._membranes = membranes
        self._still = still

    @property
    def _value(self) -> Tensor:
        if isinstance(self._held, NormalisedCurrent):
            self._held = self._held.value()[0]
        return self._held

    @property
    def sample(self) -> Tensor:
        # of a current that waits, x has the shape, dtype and device
        return self._held.x[0] if isinstance(self._held, NormalisedCurrent) else self._held

    @property
    def requires_grad(self) -> bool:
        return self._held.requires_grad

    def over_time(self) -> Tensor:
        return self.mean_over_time().unsqueeze(0)

    def mean_over_time(self) -> Tensor:
        if self._still:
            self._membranes.forget_currents()
        return self._value

    def become(self, other: Any) -> None:
        self._held, self._still = other._held, other._still

    def fire(self, neuron: Any) -> Self:
        self.keep_graph("LIF")
        membranes, held = self._membranes, self._held
        key = membranes.key_of(neuron)
        if self._still:
            held = membranes.before[key + CURRENT] if membranes.reads_currents else self._value
        dynamics, before = neuron.dynamics(self.ndim), membranes.before.get(key)
        if isinstance(held, NormalisedCurrent) and dynamics.has_numbers_only:
            spikes, membrane = norm_lif_step(held, before, dynamics)
        else:
            current = held if isinstance(held, Tensor) else self._value
            spikes, membrane = lif_step(current, before, dynamics)
        membranes.after[key] = membrane
        if isinstance(held, Tensor) and self._still and (membranes.reads_currents or membranes.keeps_currents):
            membranes.after[key + CURRENT] = held
        return self._with(spikes)

    def normalise(self, norm: Any) -> Self:
        self.keep_graph(type(norm).__name__)
        if self._still:
            self._membranes.forget_currents()
        if norm.training:
            self.refuse(
                type(norm).__name__, "in training mode it needs the whole batch's timesteps; call model.eval() first"
            )
        key = self._membranes.key_of(norm)
        timestep = self._membranes.before.get(key)
        if timestep is None:
            timestep = torch.zeros(self.shape[0], dtype=torch.int64, device=self.device)
        self._membranes.after[key] = timestep + 1
        return self._with(norm.at(self._value, timestep))

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        signals = signals_in(args, kwargs)
        still = all(signal._still for signal in signals)
        if not still and any(signal._still for signal in signals):
            self._membranes.forget_currents()
        if still and self._membranes.reads_currents:
            args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        if name in ADDITIONS and len(args) == 2 and not kwargs and not still:
            waiting = sum_in_waiting(*args, lambda signal: signal._value.unsqueeze(0))
            if waiting is not None:
                return self._with(waiting)
        if name not in LAYERS and name not in PER_TIMESTEP:
            self.refuse(name)
        if name in LAYERS:
            check_layer(self, name, args, kwargs)
        if name == "batch_norm":
            call = BatchNormCall(*args[1:], **kwargs)
            if call.training:
                self.refuse(
                    name, "without running statistics it needs all timesteps at once; call the model on the sequence"
                )
            x = self._value.unsqueeze(0)
            if not still and can_wait(x, times=STEPS) and not torch.is_grad_enabled():
                statistics = running_statistics(x, call)
                waiting = NormalisedCurrent(x, call.weight, call.bias, *statistics, call.eps, batch=False)
                return self._with(waiting.detached())
        if name in DROPOUTS and dropout_arguments(*args[1:], **kwargs)[1]:
            self.refuse(name, "in training mode its mask belongs to all timesteps; call the model on the sequence")
        out = func(*replace_signals(args, lambda s: s._value), **replace_signals(kwargs, lambda s: s._value))
        return pytree.tree_map(lambda value: self._with(value, still), out)

    def _with(self, value: Tensor | NormalisedCurrent, still: bool = False) -> Self:
        return type(self)(value, self._membranes, still)
