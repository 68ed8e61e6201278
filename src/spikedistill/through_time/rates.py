"""Rate-based gradients in one pass: exact spikes without a graph, and segment means with one.

For a linear operation the mean of the outputs is the output of the mean. So the means are read from the spiking pass, and nothing
is computed twice in the forward pass. Only the backward pass runs on the means, with batch size m*B instead of T*B.

A product of signals a and b that both vary, such as those of attention, is linear in each of them. Its mean is known from the
spiking pass: mean(a b) = mean(a) mean(b) + cov(a, b), the covariance being over the timesteps of a segment. The gradient leaves the
covariance out: d mean(a b) = mean(b) da + mean(a) db, where da and db are changes of the mean rates. If da_t is the change of a_t,
what is left out is cov(da, b) + cov(a, db), of which each entry is at most the product of the two standard deviations over time. It
is zero if one factor and its change are constant over a segment, and always in segments of one timestep.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..neurons import (
    Neuron,
    NormalisedCurrent,
    PackedSpikes,
    Response,
    SpikesInBits,
    can_wait,
    lif_response,
    mean_in_time,
    norm_lif_response,
)
from ..sparse import SpikeRows, may_run_sparse, runs_sparse
from .batch_norm import BatchNormCall, batch_norm, batch_norm_rates, batch_statistics, normalise_rates
from .call import Call
from .dropout import dropout_scale_shift, dropped
from .given import given, given_linear
from .mapping import check_layer, fold_time, map_over_time
from .on_spikes import arranged, blocks_of, max_pooled, note_reading, sparse_layer, writes_bits
from .operations import (
    ADDITIONS,
    DROPOUTS,
    LAYERS,
    LINEAR,
    MAX_POOLS,
    NONLINEAR_LAYERS,
    PER_TIMESTEP,
    PRODUCTS,
    QUOTIENTS,
    SHAPES,
    SUMS,
)
from .signal import Signal, signals_in
from .waiting import sum_in_waiting

_INSTEAD = "use gradient='bptt' or 'sltt'"
_NOT_LINEAR = f"it is not linear in time, so the mean of its outputs is not its output at the mean rate; {_INSTEAD}"
_SQUARE = (
    "a product of a signal with itself, also in another shape, holds squares, which are not linear in time; the square of spikes "
    f"is the spikes themselves, for all else {_INSTEAD}"
)
# Operations whose result has the elements of a signal, scaled, shifted or in another shape.
_SAME_ELEMENTS = (SHAPES - {"detach", "flip", "roll"}) | SUMS | QUOTIENTS | {"__mul__", "__rmul__", "mul"}
_NO_MEAN = f"its outputs depend on when the spikes come, and their mean rate does not tell that; {_INSTEAD}"
_NO_STEPS = f"gradients of mean rates are derived for LIF neurons, and this layer has its own step; {_INSTEAD}"


class Rates(Signal):
    """Spikes `[T, B, ...]` without graph, and segment means `[m, B, ...]` with graph.

    For a value that is constant in time both have a leading 1 and are the same, so all operations on it are exact.

    Args:
        spikes: exact values.
        rates: their segment means.
        lengths: timesteps of each of the m segments.
        call: the call that they belong to.
    """

    gradient = "rate"
    # the same number for signals with the same elements, whose product would hold squares
    _elements: int | None = None

    def __init__(
        self, spikes: Tensor | NormalisedCurrent | SpikesInBits, rates: Tensor, lengths: tuple[int, ...], call: Call
    ) -> None:
        self._held = spikes
        self._rates = rates
        self._lengths = lengths
        self.call = call
        # the spikes in bits, after max-pooling
        self._pooled: SpikeRows | None = None

    @classmethod
    def constant(cls, value: Tensor, lengths: tuple[int, ...], call: Call) -> Self:
        """A signal that is `[1, B, ...]` at every timestep."""
        return cls(value.detach(), value, lengths, call)

    @property
    def _spikes(self) -> Tensor:
        if not isinstance(self._held, Tensor):
            with torch.no_grad():
                self._held = self._held.value()
        return self._held

    @property
    def _packed(self) -> PackedSpikes | SpikeRows | None:
        """The spikes in bits, if they are held so."""
        return self._held.packed if isinstance(self._held, SpikesInBits) else self._pooled

    @property
    def _held_like(self) -> Tensor:
        return self._rates

    @property
    def requires_grad(self) -> bool:
        return self._rates.requires_grad

    @property
    def is_constant(self) -> bool:
        return isinstance(self._held, Tensor) and self._held.shape[0] == 1

    def _over_time(self) -> Tensor:
        # each timestep has the graph of its segment's mean
        if self.is_constant:
            return self._rates.expand(self.timesteps, *self._rates.shape[1:])
        answer = (self._rates - self._rates.detach()).unbind(0)
        return self._spikes + torch.stack(
            [part for part, length in zip(answer, self._lengths, strict=True) for _ in range(length)]
        )

    def _mean_over_time(self) -> Tensor:
        if self.is_constant:
            return self._rates[0].clone()
        if len(set(self._lengths)) == 1:
            return self._rates.mean(0)
        # numbers, because a CUDA graph could not copy a tensor of them to its device
        parts = zip(self._lengths, self._rates.unbind(0), strict=True)
        return torch.stack([length / self.timesteps * part for length, part in parts]).sum(0)

    def become(self, other: Any) -> None:
        self._held, self._rates, self._pooled = other._held, other._rates, other._pooled
        self._elements = other._elements

    def fire(self, neuron: Any) -> Self:
        self.enter("LIF", neuron)
        dynamics = neuron.dynamics(self.ndim)
        learned = [name for name in ("decay", "v_init", "threshold") if learns(getattr(dynamics, name))]
        response = self._respond(dynamics, learned, neuron)
        if isinstance(response.spikes, SpikesInBits):
            response.spikes.packed.source = neuron
        rates = self._means(response.spikes) if response.rates is None else response.rates
        rates = given(rates, self._rates, response.to_current)
        for name in learned:
            rates = rates + answer(getattr(dynamics, name), getattr(response, f"to_{name}"))
        return self.like(response.spikes, rates.to(self.dtype))

    def like(self, spikes: Any, rates: Tensor) -> Self:
        """A signal over the same segments of time."""
        return type(self)(spikes, rates, self._lengths, self.call)

    def _respond(self, neuron: Neuron, learned: Sequence[str], source: Any) -> Response:
        """Spikes of a layer of neurons with the signal as their currents, and the derivatives of their rates."""
        in_bits = may_run_sparse(self.device, self.dtype) and writes_bits(source)
        if isinstance(self._held, NormalisedCurrent) and neuron.has_numbers_only:
            return norm_lif_response(self._held, self._lengths, neuron, learned, only_bits=in_bits)
        return lif_response(self._spikes, self._lengths, neuron, learned, only_bits=in_bits)

    def _means(self, spikes: Tensor) -> Tensor:
        return self._average(spikes)

    def _average(self, values: Tensor) -> Tensor:
        """The segment means of values `[T, B, ...]`, with their graph."""
        return segment_means(values, self._lengths)

    def normalise(self, norm: Any) -> Self:
        self.enter(type(norm).__name__, norm)
        if norm.training and not self.is_constant:
            spikes, rates = norm.over_segments(self._spikes, self._rates, self._lengths, self._average)
            return self.like(spikes, rates)
        values = norm.over_time(self._rates if self.is_constant else self.over_time(), self.timesteps)
        if values.shape[0] == 1:
            return self.like(values.detach(), values)
        return self.like(values.detach(), self._average(values))

    def recur(self, recurrent: Any) -> Self:
        self.refuse("Recurrent", _NO_MEAN)

    def delay(self, delay: Any) -> Self:
        self.refuse("Delay", _NO_MEAN)

    def advance(self, neuron: Any) -> Self:
        self.refuse(type(neuron).__name__, _NO_STEPS)

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name not in LAYERS:
            return self._per_timestep(name, func, args, kwargs)
        check_layer(self, name, args, kwargs)
        if name == "batch_norm":
            return self._batch_norm(BatchNormCall(*args[1:], **kwargs))
        if name in DROPOUTS:
            p = dropped(*args[1:], **kwargs)
            if not p:
                return self
            scale, shift = dropout_scale_shift(name, func, self.sample, p)
            return self._pair(lambda value: value * scale + shift)
        if self.is_constant:
            x = arranged(self._rates, self.timesteps, name, *args[1:], **kwargs)
            return self._constant(fold_time(func, x, *args[1:], **kwargs))
        if name in LINEAR:
            return self._linear(name, func, *args[1:], **kwargs)
        if name in MAX_POOLS:
            return self._max_pool(name, func, *args[1:], **kwargs)
        if name in NONLINEAR_LAYERS:
            self.refuse(name, _NOT_LINEAR)
        return self._pair(lambda value: fold_time(func, value, *args[1:], **kwargs))

    def _per_timestep(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation that is linear in each signal that varies: the same call on the spikes and on the segment means."""
        if name not in PER_TIMESTEP:
            self.refuse(name)
        varying = _varying(args, kwargs)
        if not varying:
            return self._constant(map_over_time(func, args, kwargs, lambda signal: signal._rates))
        if name in PRODUCTS and len({signal.elements for signal in varying}) < len(varying):
            self.refuse(name, _SQUARE)
        if not (
            name in SHAPES
            or name in SUMS
            or name in PRODUCTS
            or (name in QUOTIENTS and not _varying(args[1:], kwargs) and kwargs.get("rounding_mode") is None)
        ):
            self.refuse(name, _NOT_LINEAR)
        rates = map_over_time(func, args, kwargs, lambda signal: signal._segments())
        if not all(part.is_floating_point() for part in pytree.tree_leaves(rates)):
            self.refuse(name, "the mean over time of integers is no integer; " + _NOT_LINEAR)
        spikes = self._over_steps(name, func, args, kwargs, rates)
        if name in PRODUCTS and len(varying) > 1:
            with torch.no_grad():
                means = self._means(spikes)
            return self.like(spikes, given(means, rates))
        found = self._zip(spikes, rates)
        if name in _SAME_ELEMENTS and len(varying) == 1 and isinstance(found, Rates):
            (source,) = varying
            is_part = found._rates[0].numel() < source._rates[0].numel()
            found._elements = None if is_part else source.elements
        return found

    @property
    def elements(self) -> int:
        """Equal for signals of a call that have the same elements, in any shape."""
        if self._elements is None:
            self.call.numbered += 1
            self._elements = self.call.numbered
        return self._elements

    def _over_steps(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rates: Any
    ) -> Any:
        """The exact values of an operation whose segment means are given."""
        if name in ADDITIONS and len(args) == 2 and not kwargs:
            waiting = sum_in_waiting(*args, lambda signal: signal._spikes)
            if waiting is not None:
                return waiting
        with torch.no_grad():
            return map_over_time(func, args, kwargs, lambda signal: signal._spikes)

    def _segments(self) -> Tensor:
        """Segment means `[m, B, ...]`, also of a value that is constant in time."""
        return self._rates.expand(len(self._lengths), *self._rates.shape[1:])

    def _linear(
        self, name: str, func: Callable[..., Any], weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Self:
        # detached rather than only under no_grad: autocast would keep a weight cast there, without its graph
        frozen = weight.detach(), None if bias is None else bias.detach()
        layer = sparse_layer(name, self._packed, self.dtype, weight, *args, **kwargs)
        sparse = layer is not None and runs_sparse(layer, "forward")
        note_reading(self._packed, in_bits=sparse)
        if layer is not None and sparse:
            with torch.no_grad():
                spikes = layer.forward(blocks_of(frozen[0], layer), frozen[1])
                means = self._means(spikes)
        else:
            spikes, means = self._each_step(
                lambda value: fold_time(
                    func, arranged(value, self.timesteps, name, weight, bias, *args, **kwargs), *frozen, *args, **kwargs
                ),
                frozen,
            )
        rates, weight = self._rates.to(means.dtype), weight.to(means.dtype)
        bias = None if bias is None else bias.to(means.dtype)
        folded = given_linear(name, means.flatten(0, 1), rates.flatten(0, 1), weight, bias, *args, **kwargs)
        return self.like(spikes, folded.unflatten(0, means.shape[:2]))

    def _max_pool(self, name: str, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Self:
        """Value: mean of the pooled timesteps; gradient: that of pooling the mean rate."""
        packed = self._packed
        spikes, means = self._each_step(lambda value: fold_time(func, value, *args, **kwargs))
        out = self.like(spikes, given(means, fold_time(func, self._rates, *args, **kwargs)))
        if name == "max_pool2d" and packed is not None:
            out._pooled = max_pooled(packed, self.dtype, *args, **kwargs)
        return out

    def _each_step(self, call: Callable[[Tensor], Tensor], weights: Sequence[Tensor | None] = ()) -> tuple[Any, Tensor]:
        """Exact values of a layer, which may be called again with the same weights, and their segment means."""
        with torch.no_grad():
            spikes = call(self._spikes)
            return spikes, self._means(spikes)

    def _batch_norm(self, call: BatchNormCall) -> Self:
        if self.is_constant:
            return self._constant(batch_norm(self._rates, self.timesteps, call))
        x = self._spikes
        if not call.training or not can_wait(x):
            return self.like(*batch_norm_rates(x, self._rates, self._lengths, call))
        mean, inv_std = batch_statistics(x, call)
        rates = normalise_rates(self._rates, self._lengths, mean, inv_std, x.numel() // x.shape[2], call)
        waiting = NormalisedCurrent(x, call.weight, call.bias, mean, inv_std, call.eps, batch=False)
        return self.like(waiting.detached(), rates)

    def _pair(self, call: Callable[[Tensor], Tensor]) -> Any:
        if self.is_constant:
            return self._constant(call(self._rates))
        with torch.no_grad():
            spikes = call(self._spikes)
        return self._zip(spikes, call(self._rates))

    def _zip(self, spikes: Any, rates: Any) -> Any:
        return pytree.tree_map(self.like, spikes, rates)

    def _constant(self, value: Any) -> Any:
        return pytree.tree_map(lambda v: self.like(v.detach(), v), value)


def _varying(*values: Any) -> list["Rates"]:
    return [signal for signal in signals_in(values) if isinstance(signal, Rates) and not signal.is_constant]


def segment_means(value: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Means over consecutive segments: `[T, B, ...] -> [m, B, ...]`."""
    if len(set(lengths)) == 1:
        return mean_in_time(value, len(lengths))
    return torch.stack([part.mean(0) for part in value.split(lengths)])


def answer(source: Tensor, slope: Tensor) -> Tensor:
    """Zeros with the gradient `slope` with respect to the source."""
    return (source - source.detach()) * slope


def learns(option: float | Tensor) -> bool:
    """Whether an option of neurons receives a gradient."""
    return isinstance(option, Tensor) and option.requires_grad
