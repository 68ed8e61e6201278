"""One timestep at a time with an explicit state, for early exit and for use on a device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import UserError
from ..neurons import Neuron, NormalisedCurrent, SpikingNeuron, can_wait, lif_step, norm_lif_step
from ..sparse import LayerOnSpikes, NormalisedLayer, SpikeRows, fire_in_rows, may_fire_in_rows, may_run_sparse
from .batch_norm import BatchNormCall, norm_of, running_statistics
from .call import Call
from .draws import without_draws
from .dropout import dropout_scale_shift, dropped
from .mapping import check_layer
from .neuron_step import check_gradient, run_step
from .on_spikes import ON_SPIKES, Waiting, arranged, note_reading, on_spikes, writes_bits
from .operations import ADDITIONS, DROPOUTS, LAYERS, PER_TIMESTEP
from .signal import Signal, replace_signals, signals_in
from .waiting import sum_in_waiting

# Follows the path of a layer in the key of its constant input current.
CURRENT = " current"
# How many steps a stream is expected to run, to decide what pays off.
STEPS = 4


class Membranes(Call):
    """One step of a network: the state that it reads and the state that it writes, by the paths of the layers.

    If the network's input is constant, so are the currents of the first neurons. They are kept at the first timestep, and at all
    others nothing before these neurons is computed.

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
        self.calls: dict[str, int] = {}
        self.keeps_currents = still and not before
        self.reads_currents = still and any(key.endswith(CURRENT) for key in before)

    def forget_currents(self) -> None:
        """Keep no currents: something other than neurons uses a constant value."""
        self.keeps_currents = False
        self.after = {key: value for key, value in self.after.items() if not key.endswith(CURRENT)}

    def key_of(self, layer: Any) -> str:
        """The key of a layer's state: its path, and `path#1` at a second call in the same step.

        Raises:
            UserError: for a layer that is no submodule of the network, and so has no path, or that a checkpoint computes again.
        """
        if self.ended:
            raise UserError(
                f"a checkpoint computes a {type(layer).__name__} of one timestep again, but its state is of a later "
                "timestep: put the checkpoint around a whole Recurrent, or around layers without state"
            )
        if layer not in self.paths:
            raise UserError(
                f"a {type(layer).__name__} layer is no submodule of the network: keep it as an attribute or in a ModuleList"
            )
        path = self.paths[layer]
        calls = self.calls[path] = self.calls.get(path, 0) + 1
        return path if calls == 1 else f"{path}#{calls - 1}"

    def state_of(self, key: str, samples: int) -> Tensor | None:
        """The state of a layer after the previous timestep; None at the first.

        Raises:
            UserError: for a state of other samples.
        """
        state = self.before.get(key)
        if state is not None and state.shape[0] != samples:
            raise UserError(
                f"the state of {key!r} is of {len(state)} samples, the input of {samples}: they must be the same"
            )
        return state

    def parts_of(self, key: str, samples: int) -> dict[str, Tensor]:
        """The parts of a layer's state by name, each kept under `path.name`, and a single tensor under the path and no name.

        Raises:
            UserError: for a state of other samples.
        """
        if (state := self.state_of(key, samples)) is not None:
            return {"": state}
        start = f"{key}." if key else ""
        names = [other.removeprefix(start) for other in self.before if other.startswith(start)]
        keys = {name: start + name for name in names if name.isidentifier() or name.isdigit()}
        parts = {name: self.state_of(part, samples) for name, part in keys.items()}
        return {name: part for name, part in parts.items() if part is not None}

    def keep(self, key: str, state: Tensor) -> None:
        """Pass a neuron's state on to the next timestep."""
        self.after[key] = state

    def drop(self, stream: "Stream", name: str, func: Callable[..., Any], p: float) -> tuple[Tensor, Tensor | float]:
        """The mask of a dropout, as `dropout_scale_shift` returns it.

        Raises:
            UnsupportedOperationError: always, because one mask belongs to all timesteps.
        """
        stream.refuse(name, "in training mode its mask belongs to all timesteps; call the model on the sequence")


class Timestep(Membranes):
    """One timestep of a `Recurrent` in a call on a whole sequence.

    Args:
        paths, before: see `Membranes`.
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

    def keep(self, key: str, state: Tensor) -> None:
        self.after[key] = state.detach() if self._cuts_membranes else state

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
        value: the value, or one that waits, `[1, B, ...]`; if it is constant and not computed again, only its shape, as a tensor on
            the meta device.
        membranes: those of this step.
        still: whether the value is the same at every timestep, and neurons may keep it.
        packed: the value in bits, if it is spikes.
    """

    call: Membranes

    def __init__(
        self, value: Tensor | Waiting, membranes: Membranes, still: bool = False, packed: SpikeRows | None = None
    ) -> None:
        self._held = value
        self._packed = packed
        self.call = membranes
        self._still = still

    @property
    def gradient(self) -> str:  # type: ignore[override]
        return self.call.gradient

    @property
    def _value(self) -> Tensor:
        if not isinstance(self._held, Tensor):
            note_reading(self._packed, in_bits=False)
            self._held = self._held.value()[0]
        return self._held

    @property
    def _held_like(self) -> Tensor:
        return self._held if isinstance(self._held, Tensor) else self._held.like

    @property
    def _axes_before(self) -> int:  # type: ignore[override]
        return 0 if isinstance(self._held, Tensor) else 1

    @property
    def requires_grad(self) -> bool:
        return self._held.requires_grad

    def _over_time(self) -> Tensor:
        return self._mean_over_time().unsqueeze(0)

    def _mean_over_time(self) -> Tensor:
        self.moves()
        return self._value.clone()  # a tensor of its own, because the state may hold the value too

    def moves(self) -> None:
        """Treat the value as one that may change, because something other than neurons uses it."""
        if self._still:
            self.call.forget_currents()

    def become(self, other: Any) -> None:
        self._held, self._packed, self._still = other._held, other._packed, other._still

    def fire(self, neuron: Any) -> Self:
        self.enter("LIF", neuron)
        membranes = self.call
        key = membranes.key_of(neuron)
        held = self._current_for(key)
        dynamics, before = neuron.dynamics(self.ndim), membranes.before.get(key)
        if dynamics.has_numbers_only and not isinstance(held, Tensor):
            if isinstance(held, LayerOnSpikes | NormalisedLayer):
                return self._in_rows(neuron, key, *held.fire(dynamics, self._membrane(before), keeps=True))
            if isinstance(held, NormalisedCurrent) and not self._may_fire_in_rows(held, neuron, dynamics):
                spikes, membrane = norm_lif_step(held, before, dynamics)
                membranes.keep(key, membrane)
                return self._with(spikes)
        current = held if isinstance(held, Tensor) else self._value
        given = held if isinstance(held, NormalisedCurrent) else current.unsqueeze(0)
        if self._may_fire_in_rows(given, neuron, dynamics):
            return self._in_rows(neuron, key, *fire_in_rows(given, 1, dynamics, self._membrane(before), keeps=True))
        spikes, membrane = lif_step(current, before, dynamics)
        membranes.keep(key, membrane)
        return self._with(spikes)

    def _may_fire_in_rows(self, current: Tensor | NormalisedCurrent, neuron: Any, dynamics: Neuron) -> bool:
        usable = not torch.is_grad_enabled() and may_run_sparse(self.device, self.dtype)
        return usable and writes_bits(neuron) and may_fire_in_rows(current, 1, dynamics)

    def _membrane(self, before: Tensor | None) -> Tensor | None:
        """The membranes before this timestep, of the signal's shape; None at the first."""
        if before is not None and before.shape != self.shape:
            raise UserError(
                f"the state is {list(before.shape)}, the current {list(self.shape)}: expected the same shape, one membrane per "
                "neuron"
            )
        return before

    def _in_rows(self, neuron: Any, key: str, spikes: SpikeRows, membrane: Tensor | None) -> Self:
        assert membrane is not None
        spikes.source = neuron
        self.call.keep(key, membrane)
        return type(self)(spikes, self.call, packed=spikes)

    def advance(self, neuron: Any) -> Self:
        self.enter(type(neuron).__name__, neuron)
        membranes = self.call
        key = membranes.key_of(neuron)
        held = self._current_for(key)
        current = held if isinstance(held, Tensor) else self._value
        spikes, state = run_step(neuron, current, membranes.parts_of(key, current.shape[0]))
        if membranes.timestep:  # at the first timestep, spikes may be independent of the current
            check_gradient(neuron, current, spikes)
        for name, part in state.items():
            membranes.keep(f"{key}.{name}" if key and name else key or name, part)
        return self._with(spikes)

    def _current_for(self, key: str) -> Tensor | Waiting:
        """The input current of neurons. A constant value is kept in the state at the first timestep, and read at the others."""
        if not self._still:
            return self._held
        membranes = self.call
        current = membranes.before[key + CURRENT] if membranes.reads_currents else self._value
        if membranes.reads_currents or membranes.keeps_currents:
            membranes.after[key + CURRENT] = current
        return current

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
        before = self.call.state_of(key, value.shape[0])
        if first := before is None:
            before = value.new_zeros(value.shape[0], *(value.shape[1:] if recurrent.shape is None else recurrent.shape))
        y = recurrent.at(self._with(value), self._with(before), first=first)
        self.call.after[key] = y._value
        return self._with(y._value)

    def delay(self, delay: Any) -> Self:
        self.enter("Delay")
        self.moves()
        key, value = self.call.key_of(delay), self._value
        line = self.call.state_of(key, value.shape[0])
        if line is None:
            line = value.new_zeros(value.shape[0], delay.timesteps, *value.shape[1:])
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
            if isinstance(self._held, LayerOnSpikes):
                return self._with(self._held.normalised(norm_of(self._held.like, call)))
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
        if self._packed is not None and not torch.is_grad_enabled():
            found = on_spikes(name, self._packed, self.dtype, bool(self.call.before), *args[1:], **kwargs)
            if found is not None:
                return type(self)(found, self.call, packed=found if isinstance(found, SpikeRows) else None)
        if name in ON_SPIKES and not torch.is_grad_enabled() and self.call.timestep is None and not self._packed:
            args = (self._with(arranged(self._value.unsqueeze(0), STEPS, name, *args[1:], **kwargs)[0]), *args[1:])
        out = func(*replace_signals(args, lambda s: s._value), **replace_signals(kwargs, lambda s: s._value))
        return pytree.tree_map(lambda value: self._with(value, still), out)

    def _with(self, value: Tensor | Waiting, still: bool = False) -> Self:
        return type(self)(value, self.call, still)


def run_timesteps(
    layer: nn.Module,
    through: Callable[["Stream", Any], "Stream"],
    steps: Sequence[Tensor],
    gradient: str,
    cuts_membranes: bool,
) -> list[Tensor]:
    """Run a layer one timestep after another.

    Args:
        layer: a `Recurrent`, or a layer of neurons with its own `step`.
        through: sends a stream through the layer: `Stream.recur` or `Stream.advance`.
        steps: the layer's input at each timestep.
        gradient: the name of the gradient rule.
        cuts_membranes: cut the gradient's path through the states of neurons.

    Returns:
        What the layer returns at each timestep, `[B, ...]`.
    """
    paths = {module: path for path, module in layer.named_modules()}
    state: Mapping[str, Tensor] = {}
    masks: list[tuple[Tensor, Tensor | float]] = []
    outs = []
    for t, x in enumerate(steps):

        def run(t: int = t, x: Tensor = x, state: Mapping[str, Tensor] = state) -> tuple[Tensor, dict[str, Tensor]]:
            now = Timestep(paths, state, gradient, cuts_membranes, t, t == len(steps) - 1, masks)
            try:
                return through(Stream(x, now), layer)._value, now.after
            finally:
                now.ended = True

        # at the second timestep, because dropout draws at the first; neurons may draw at each
        watched = t == 1 and not isinstance(layer, SpikingNeuron)
        out, state = without_draws(run, paths, "inside a Recurrent") if watched else run()
        outs.append(out)
    return outs
