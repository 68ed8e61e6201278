"""Backpropagation through time: the values of all timesteps with their graph."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..neurons import (
    NormalisedCurrent,
    PackedSpikes,
    ReadLater,
    SpikesInBits,
    can_wait,
    lif_in_bits,
    may_wait,
    norm_lif,
)
from ..sparse import (
    LayerOnSpikes,
    NormalisedLayer,
    SpikeRows,
    fire_in_rows,
    may_fire_in_rows,
    may_run_sparse,
    runs_sparse,
)
from .batch_norm import BatchNormCall, batch_norm, batch_norm_where, batch_statistics, norm_of, running_statistics
from .call import Call
from .dropout import dropout_scale_shift, dropped
from .given import given_linear
from .mapping import check_layer, fold_time, map_over_time
from .on_spikes import (
    Waiting,
    arranged,
    blocks_of,
    max_pooled,
    note_reading,
    on_spikes,
    sparse_layer,
    writes_bits,
)
from .operations import ADDITIONS, DROPOUTS, LAYERS, LINEAR, PER_TIMESTEP
from .signal import Signal
from .stream import Stream, run_timesteps
from .waiting import sum_in_waiting


class Unrolled(Signal):
    """Values `[T, B, ...]` with graph, or `[1, B, ...]` if they are constant in time.

    Args:
        values: the values.
        call: the call that they belong to.
        gradient: the name of the gradient rule.
        cuts_membranes: cut the gradient's path through the previous membrane.
        packed: the values in bits, if they are spikes.
        checkpoint: keep only spikes, and run convolutions on them again in the backward pass.
        again: computes the values again, if they are the output of such a convolution.
    """

    def __init__(
        self,
        values: Tensor | Waiting,
        call: Call,
        gradient: str = "bptt",
        cuts_membranes: bool = False,
        packed: PackedSpikes | SpikeRows | None = None,
        checkpoint: bool = False,
        again: Callable[[], Tensor] | None = None,
    ) -> None:
        self._held = values
        self._packed = packed
        self._checkpoint = checkpoint
        self._again = again
        self.call = call
        self.gradient = gradient
        self._cuts_membranes = cuts_membranes

    @property
    def _values(self) -> Tensor:
        if not isinstance(self._held, Tensor):
            note_reading(self._packed, in_bits=False)
            self._held = self._held.value()
        return self._held

    @property
    def _held_like(self) -> Tensor:
        return self._held if isinstance(self._held, Tensor) else self._held.like

    @property
    def requires_grad(self) -> bool:
        return self._held.requires_grad

    def _over_time(self) -> Tensor:
        return self._values.expand(self.timesteps, *self._values.shape[1:])

    def _mean_over_time(self) -> Tensor:
        lengths, present = self.call.lengths, self.call.present
        if lengths is None or present is None or len(self._values) != self.timesteps:
            return self._values.mean(0)
        axes = [1] * (self._values.ndim - 2)
        return (self._values * present.view(*present.shape, *axes)).sum(0) / lengths.view(-1, *axes)

    def firing_rate(self) -> Tensor:
        in_bits = isinstance(self._held, SpikesInBits) and self.call.lengths is None
        return self._held.mean() if in_bits else super().firing_rate()  # type: ignore[union-attr]

    def become(self, other: Any) -> None:
        self._held, self._packed, self._again = other._held, other._packed, other._again

    def fire(self, neuron: Any) -> Self:
        self.enter("LIF", neuron)
        dynamics, held = neuron.dynamics(self.ndim), self._held
        if not dynamics.has_numbers_only:
            held = self._values
        if isinstance(held, LayerOnSpikes | NormalisedLayer):
            return self._with_rows(held.fire(dynamics)[0], neuron)
        in_bits = may_run_sparse(self.device, self.dtype) and writes_bits(neuron)
        current = held if isinstance(held, NormalisedCurrent) else self._values
        if in_bits and not torch.is_grad_enabled() and may_fire_in_rows(current, self.timesteps, dynamics):
            return self._with_rows(fire_in_rows(current, self.timesteps, dynamics)[0], neuron)
        options = {"detach_membrane": self._cuts_membranes, "only_bits": in_bits}
        spikes, packed = (
            norm_lif(current, dynamics, **options)
            if isinstance(current, NormalisedCurrent)
            else lif_in_bits(current, dynamics, timesteps=self.timesteps, **options)
        )
        if packed is not None:
            packed.source = neuron
        return self._with(spikes, packed)

    def normalise(self, norm: Any) -> Self:
        self.enter(type(norm).__name__, norm)
        if norm.training and self.call.lengths is not None:
            self.refuse(
                type(norm).__name__, "its statistics would count the padding of shorter sequences: use BatchNorm2d"
            )
        return self._with(norm.over_time(self._values, self.timesteps))

    def recur(self, recurrent: Any) -> Self:
        return self._by_timestep(recurrent, Stream.recur)

    def advance(self, neuron: Any) -> Self:
        return self._by_timestep(neuron, Stream.advance)

    def _by_timestep(self, layer: Any, through: Callable[[Stream, Any], Stream]) -> Self:
        """Send the signal through a layer that runs one timestep after another."""
        name = type(layer).__name__
        self.enter(name, layer)
        if type(self) is not Unrolled and torch.is_grad_enabled():
            self.refuse(name, "it runs timestep by timestep, where this rule's own signal would not be used")
        values = self._values
        steps = values.unbind(0) if len(values) == self.timesteps else [values.squeeze(0)] * self.timesteps
        return self._with(torch.stack(run_timesteps(layer, through, steps, self.gradient, self._cuts_membranes)))

    def delay(self, delay: Any) -> Self:
        self.enter("Delay")
        values = self.over_time()
        late = min(delay.timesteps, self.timesteps)
        return self._with(torch.cat([torch.zeros_like(values[:late]), values[: self.timesteps - late]]))

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in ADDITIONS and len(args) == 2 and not kwargs:
            waiting = sum_in_waiting(*args, lambda signal: signal._values)
            if waiting is not None:
                return self._with(waiting)
        if name in PER_TIMESTEP:
            return self._wrap(map_over_time(func, args, kwargs, lambda signal: signal._values))
        if name not in LAYERS:
            self.refuse(name)
        check_layer(self, name, args, kwargs)
        if name == "batch_norm":
            return self._batch_norm(BatchNormCall(*args[1:], **kwargs))
        if name in DROPOUTS:
            p = dropped(*args[1:], **kwargs)
            if not p:
                return self
            scale, shift = dropout_scale_shift(name, func, self.sample, p)
            return self._with(self._values * scale + shift)
        if self._packed is not None and not torch.is_grad_enabled():
            found = on_spikes(name, self._packed, self.dtype, False, *args[1:], **kwargs)
            if found is not None:
                return self._with(found, found if isinstance(found, SpikeRows) else None)
        if name in LINEAR:
            return self._linear(name, func, *args[1:], **kwargs)
        out = self._wrap(fold_time(func, self._values, *args[1:], **kwargs))
        if name == "max_pool2d" and self._packed is not None:
            out._packed = max_pooled(self._packed, self.dtype, *args[1:], **kwargs)
        return out

    def _batch_norm(self, call: BatchNormCall) -> Self:
        """Postpone the normalisation if neurons may follow, whose loop can compute it."""
        if isinstance(self._held, LayerOnSpikes) and not call.training:
            return self._with(self._held.normalised(norm_of(self._held.like, call)))
        x = self._values
        if call.training and (present := self.call.present) is not None and len(x) == self.timesteps:
            return self._with(batch_norm_where(x, present, call))
        worth = may_wait(x) if self._checkpoint else can_wait(x)
        if len(x) != self.timesteps or not worth or (torch.is_grad_enabled() and not call.training):
            return self._with(batch_norm(x, self.timesteps, call))
        mean, inv_std = batch_statistics(x, call) if call.training else running_statistics(x, call)
        waiting = NormalisedCurrent(
            x, call.weight, call.bias, mean, inv_std, call.eps, call.training, again=self._again
        )
        return self._with(waiting if torch.is_grad_enabled() else waiting.detached())

    def _linear(
        self, name: str, func: Callable[..., Any], weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Self:
        """A convolution or linear layer. Spikes are kept in bits for its gradient."""
        packed = self._packed if torch.is_grad_enabled() else None
        layer = sparse_layer(name, packed, self.dtype, weight, *args, **kwargs)
        if packed is None or (isinstance(packed, SpikeRows) and layer is None):
            note_reading(packed, in_bits=False)
            x = arranged(self._values, self.timesteps, name, weight, bias, *args, **kwargs)
            return self._wrap(fold_time(func, x, weight, bias, *args, **kwargs))
        frozen = weight.detach(), None if bias is None else bias.detach()
        sparse = layer if layer is not None and runs_sparse(layer, "forward") else None
        kept = layer if layer is not None and runs_sparse(layer, "gradient") else packed
        note_reading(packed, in_bits=sparse is not None or kept is not packed)
        # spikes in bits have a graph without values, and a gradient is cast as it reaches them
        x = self._held.like if isinstance(self._held, SpikesInBits) else self._values
        if sparse is not None:
            value = sparse.forward(blocks_of(frozen[0], sparse), frozen[1])
        else:
            with torch.no_grad():
                value = fold_time(func, self._spikes(packed), *frozen, *args, **kwargs)
        weight, bias = weight.to(value.dtype), None if bias is None else bias.to(value.dtype)
        x = x if isinstance(self._held, SpikesInBits) else x.to(value.dtype)
        folded = given_linear(
            name,
            value.flatten(0, 1),
            x.flatten(0, 1),
            weight,
            bias,
            *args,
            kept=None if isinstance(kept, SpikeRows) else kept,
            **kwargs,
        )
        given = ReadLater(*frozen)
        timesteps, dtype = self.timesteps, value.dtype  # not the signal, which holds unpacked spikes

        @torch.no_grad()
        @torch.autocast(
            value.device.type, enabled=False
        )  # backward may run under autocast, and the casts are explicit here
        def again() -> Tensor:
            given.check()
            if sparse is not None:
                return sparse.forward(blocks_of(frozen[0], sparse), frozen[1])
            cast = [None if part is None else part.to(dtype) for part in frozen]
            return fold_time(func, packed.read(0, timesteps, dtype), *cast, *args, **kwargs)

        return self._with(folded.unflatten(0, value.shape[:2]), again=again if self._checkpoint else None)

    def _spikes(self, packed: PackedSpikes | SpikeRows) -> Tensor:
        """The values without a graph, which stay in bits if they are held so."""
        if isinstance(self._held, SpikesInBits):
            return packed.read(0, self.timesteps, self.dtype)
        return self._values.detach()

    def holding(self, values: Tensor) -> Self:
        """A signal of the same call and rule with other values, `[T, B, ...]`."""
        return self._with(values)

    def _with_rows(self, rows: SpikeRows, neuron: Any) -> Self:
        rows.source = neuron
        return self._with(rows, rows)

    def _with(
        self,
        values: Tensor | Waiting,
        packed: PackedSpikes | SpikeRows | None = None,
        again: Callable[[], Tensor] | None = None,
    ) -> Self:
        return type(self)(values, self.call, self.gradient, self._cuts_membranes, packed, self._checkpoint, again)

    def _wrap(self, out: Any) -> Any:
        return pytree.tree_map(self._with, out)
