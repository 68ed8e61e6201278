"""One timestep at a time with an explicit state: early exit and use on a device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import UserError
from ..neurons import NormalisedCurrent, can_wait, lif_step, norm_lif_step
from .batch_norm import BatchNormCall, running_statistics
from .call import Call
from .draws import without_draws
from .dropout import dropout_scale_shift, dropped
from .mapping import check_layer
from .operations import ADDITIONS, DROPOUTS, LAYERS, PER_TIMESTEP
from .signal import Signal, replace_signals, signals_in
from .waiting import sum_in_waiting

# What the currents of neurons whose input stays as it is are kept under, behind their path.
CURRENT = " current"
# Steps that a stream is expected to run: what pays off in a sequence of so many timesteps does so here.
STEPS = 4


class Membranes(Call):
    """The call that one step is, with the state that it reads and writes: membranes, each under the path of its module.

    Where the input stays as it is, what it makes of the first neurons' currents does too: they are kept at the first timestep and
    read at the others, in which nothing before them is computed.

    Args:
        paths: the path of every module.
        before: the state after the previous timestep; empty at the first.
        still: whether the input is the same at every timestep.
    """

    gradient = "step"
    needs_all = "without running statistics it needs all timesteps at once; call the model on the sequence"
    training = "in training mode it needs the whole batch's timesteps; call model.eval() first"

    def __init__(self, paths: Mapping[Any, str], before: Mapping[str, Tensor], still: bool = False) -> None:
        super().__init__(1)
        self.paths = paths
        self.before = before
        self.after: dict[str, Tensor] = {}
        self.keeps_currents = still and not before
        self.reads_currents = still and any(key.endswith(CURRENT) for key in before)

    def forget_currents(self) -> None:
        """Keep none: something other than neurons asks for a value that stays as it is."""
        self.keeps_currents = False
        self.after = {key: value for key, value in self.after.items() if not key.endswith(CURRENT)}

    def key_of(self, layer: Any) -> str:
        """The layer's path; one that is called again in the same step has a further state, `path#1`.

        Raises:
            UserError: for a layer that is no submodule of the network, and so has no path, or that a checkpoint computes again.
        """
        if self.ended:
            raise UserError(
                f"a checkpoint computes a {type(layer).__name__} of one timestep again, when its state has moved on: put the "
                "checkpoint around a whole Recurrent, or around layers without state"
            )
        if layer not in self.paths:
            raise UserError(
                f"a {type(layer).__name__} layer is no submodule of the network: keep it as an attribute or in a ModuleList"
            )
        path = key = self.paths[layer]
        calls = 0
        while key in self.after:
            calls += 1
            key = f"{path}#{calls}"
        return key

    def state_of(self, key: str, samples: int) -> Tensor | None:
        """The state of a layer after the previous timestep; None at the first.

        Raises:
            UserError: for one of other samples.
        """
        state = self.before.get(key)
        if state is not None and len(state) != samples:
            raise UserError(
                f"the state of {key!r} is of {len(state)} samples, the input of {samples}: they must be the same"
            )
        return state

    def keep(self, key: str, membrane: Tensor) -> None:
        """Pass a membrane on to the next timestep."""
        self.after[key] = membrane

    def drop(self, stream: "Stream", name: str, func: Callable[..., Any], p: float) -> tuple[Tensor, Tensor | float]:
        """The mask of a dropout, as `dropout_scale_shift` returns it.

        Raises:
            UnsupportedOperationError: because one mask belongs to all timesteps.
        """
        stream.refuse(name, "in training mode its mask belongs to all timesteps; call the model on the sequence")


class Timestep(Membranes):
    """One timestep of a `Recurrent` in a call on a whole sequence.

    Args:
        paths, before: as of `Membranes`.
        gradient: the name of the gradient rule.
        cuts_membranes: cut the gradient's path through the membranes.
        timestep: which one, from 0.
        is_last: whether it is the last.
        masks: of dropout, drawn at the first timestep and used again at the others.
    """

    needs_all = training = (
        "in training inside a Recurrent it would need the statistics of all timesteps, and each depends on the one before; put it "
        "in front of the Recurrent, or keep it in eval mode"
    )

    def __init__(
        self,
        paths: Mapping[Any, str],
        before: Mapping[str, Tensor],
        gradient: str,
        cuts_membranes: bool,
        timestep: int,
        is_last: bool,
        masks: list[tuple[Tensor, Tensor | float]],
    ) -> None:
        super().__init__(paths, before)
        self.gradient = gradient
        self._cuts_membranes = cuts_membranes
        self.timestep = timestep
        self.is_last = is_last
        self._masks = masks
        self._used = 0

    def keep(self, key: str, membrane: Tensor) -> None:
        self.after[key] = membrane.detach() if self._cuts_membranes else membrane

    def drop(self, stream: "Stream", name: str, func: Callable[..., Any], p: float) -> tuple[Tensor, Tensor | float]:
        if self.ended:
            stream.refuse(
                name, "a checkpoint inside a Recurrent would draw another mask; put it around the whole Recurrent"
            )
        if self.timestep == 0:
            self._masks.append(dropout_scale_shift(name, func, stream.sample, p))
        self._used += 1
        return self._masks[self._used - 1]


class Stream(Signal):
    """The value `[B, ...]` of one timestep, and the membranes of the network.

    Args:
        value: the value; of one that stays as it is and is not computed again, on the meta device, its shape alone.
        membranes: those of this step.
        still: whether the value is the same at every timestep, and neurons may keep it.
    """

    call: Membranes

    def __init__(self, value: Tensor | NormalisedCurrent, membranes: Membranes, still: bool = False) -> None:
        self._held = value
        self.call = membranes
        self._still = still

    @property
    def gradient(self) -> str:  # type: ignore[override]
        return self.call.gradient

    @property
    def _value(self) -> Tensor:
        if isinstance(self._held, NormalisedCurrent):
            self._held = self._held.value()[0]
        return self._held

    @property
    def _held_like(self) -> Tensor:
        return self._held.x if isinstance(self._held, NormalisedCurrent) else self._held

    @property
    def _axes_before(self) -> int:  # type: ignore[override]
        return 1 if isinstance(self._held, NormalisedCurrent) else 0

    @property
    def requires_grad(self) -> bool:
        return self._held.requires_grad

    def _over_time(self) -> Tensor:
        return self._mean_over_time().unsqueeze(0)

    def _mean_over_time(self) -> Tensor:
        self.moves()
        return self._value.clone()  # a tensor of its own, because the state may hold the value too

    def moves(self) -> None:
        """Compute with the value as one that may change: something other than neurons asks for it."""
        if self._still:
            self.call.forget_currents()

    def become(self, other: Any) -> None:
        self._held, self._still = other._held, other._still

    def fire(self, neuron: Any) -> Self:
        self.enter("LIF", neuron)
        membranes, held = self.call, self._held
        key = membranes.key_of(neuron)
        if self._still:
            held = membranes.before[key + CURRENT] if membranes.reads_currents else self._value
        dynamics, before = neuron.dynamics(self.ndim), membranes.before.get(key)
        if isinstance(held, NormalisedCurrent) and dynamics.has_numbers_only:
            spikes, membrane = norm_lif_step(held, before, dynamics)
        else:
            current = held if isinstance(held, Tensor) else self._value
            spikes, membrane = lif_step(current, before, dynamics)
        membranes.keep(key, membrane)
        if isinstance(held, Tensor) and self._still and (membranes.reads_currents or membranes.keeps_currents):
            membranes.after[key + CURRENT] = held
        return self._with(spikes)

    def normalise(self, norm: Any) -> Self:
        self.enter(type(norm).__name__, norm)
        self.moves()
        if norm.training:
            self.refuse(type(norm).__name__, self.call.training)
        key = self.call.key_of(norm)
        timestep = self.call.before.get(key)
        if timestep is None:
            timestep = torch.zeros(self.shape[0], dtype=torch.int64, device=self.device)
        self.call.after[key] = timestep + 1
        return self._with(norm.at(self._value, timestep))

    def recur(self, recurrent: Any) -> Self:
        self.enter("Recurrent", recurrent)
        self.moves()
        key = self.call.key_of(recurrent)
        value = self._value
        before = self.call.state_of(key, len(value))
        if first := before is None:
            before = value.new_zeros(len(value), *(value.shape[1:] if recurrent.shape is None else recurrent.shape))
        y = recurrent.at(self._with(value), self._with(before), first=first)
        self.call.after[key] = y._value
        return self._with(y._value)

    def delay(self, delay: Any) -> Self:
        self.enter("Delay")
        self.moves()
        key, value = self.call.key_of(delay), self._value
        line = self.call.state_of(key, len(value))
        if line is None:
            line = value.new_zeros(len(value), delay.timesteps, *value.shape[1:])
        self.call.after[key] = torch.cat([line[:, 1:], value.unsqueeze(1)], 1)
        return self._with(line[:, 0])

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        signals = signals_in(args, kwargs)
        still = all(signal._still for signal in signals)
        if not still and any(signal._still for signal in signals):
            self.call.forget_currents()
        if still and self.call.reads_currents:
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
                self.refuse(name, self.call.needs_all)
            x = self._value.unsqueeze(0)
            if not still and can_wait(x, times=STEPS) and not torch.is_grad_enabled():
                statistics = running_statistics(x, call)
                waiting = NormalisedCurrent(x, call.weight, call.bias, *statistics, call.eps, batch=False)
                return self._with(waiting.detached())
        if name in DROPOUTS:
            p = dropped(*args[1:], **kwargs)
            if not p:
                return self
            scale, shift = self.call.drop(self, name, func, p)
            return self._with(self._value * scale + shift)
        out = func(*replace_signals(args, lambda s: s._value), **replace_signals(kwargs, lambda s: s._value))
        return pytree.tree_map(lambda value: self._with(value, still), out)

    def _with(self, value: Tensor | NormalisedCurrent, still: bool = False) -> Self:
        return type(self)(value, self.call, still)


def run_timesteps(recurrent: Any, steps: Sequence[Tensor], gradient: str, cuts_membranes: bool) -> list[Tensor]:
    """What a `Recurrent` returns at each timestep, `[B, ...]`.

    Args:
        recurrent: the module.
        steps: its input at each timestep.
        gradient: the name of the gradient rule.
        cuts_membranes: cut the gradient's path through the membranes.
    """
    paths = {layer: path for path, layer in recurrent.named_modules()}
    state: Mapping[str, Tensor] = {}
    masks: list[tuple[Tensor, Tensor | float]] = []
    outs = []
    for t, x in enumerate(steps):

        def run(t: int = t, x: Tensor = x, state: Mapping[str, Tensor] = state) -> tuple[Tensor, dict[str, Tensor]]:
            now = Timestep(paths, state, gradient, cuts_membranes, t, t == len(steps) - 1, masks)
            try:
                return Stream(x, now).recur(recurrent)._value, now.after
            finally:
                now.ended = True

        # at the second timestep, because dropout draws at the first
        out, state = without_draws(run, paths, "inside a Recurrent") if t == 1 else run()
        outs.append(out)
    return outs
