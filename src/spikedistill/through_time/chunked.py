"""Rate-based gradients with memory that hardly grows with T: values that vary in time are read a few timesteps at a time.

Between two layers of neurons only spikes are stored, in one bit each. Convolutions, batch-norms and sums between them are computed
chunk by chunk, when the next layer of neurons reads them. Batch-norm needs the statistics of all timesteps before it normalises
any. So a convolution runs twice, once for the statistics and once for the neurons, or its outputs are kept until the neurons have
fired.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..neurons import Neuron, PackedSpikes, ReadLater, Response, lif_response_in_chunks, normalise
from .batch_norm import BatchNormCall, follow, normalise_rates
from .call import Call
from .mapping import map_over_time
from .operations import PRODUCTS, SUMS
from .rates import Rates
from .signal import is_signal, replace_signals, signals_in


class Moments(NamedTuple):
    """Number of values, mean and sum of squared deviations of each channel, in float64."""

    number: int
    mean: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, value: Tensor) -> Self:
        """The moments of `[n, B, C, ...]`."""
        others = [d for d in range(value.ndim) if d != 2]
        var, mean = torch.var_mean(value.float() if value.dtype.itemsize < 4 else value, others, correction=0)
        count = value.numel() // value.shape[2]
        return cls(count, mean.double(), count * var.double())

    def merge(self, other: "Moments | None") -> "Moments":
        """The moments of both together (Chan et al., 1979)."""
        if other is None:
            return self
        number = self.number + other.number
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.number / number)
        deviations = self.deviations + other.deviations + shift.square() * (self.number * other.number / number)
        return Moments(number, mean, deviations)


@dataclass(frozen=True)
class Values:
    """The values of a signal at each timestep.

    Attributes:
        read: `read(start, stop)` returns the values of those timesteps, `[stop - start, B, ...]`; `[1, B, ...]` if constant.
        constant: whether they are constant in time.
        moments: of all timesteps, if they are already known.
        is_joint: whether each read computes a sum or product of several signals again.
    """

    read: Callable[[int, int], Tensor]
    constant: bool = False
    moments: Moments | None = None
    is_joint: bool = False

    @classmethod
    def stored(cls, value: Tensor | PackedSpikes, dtype: torch.dtype, moments: Moments | None = None) -> Self:
        """The values of spikes, or of a tensor `[T or 1, B, ...]`, read in that dtype."""
        if isinstance(value, PackedSpikes):
            return cls(lambda start, stop: value.read(start, stop, dtype))
        given, constant = ReadLater(value), value.shape[0] == 1

        def read(start: int, stop: int) -> Tensor:
            given.check()
            return value if constant else value[start:stop]

        return cls(read, constant, moments)


class ChunkedRates(Rates):
    """A `Rates` whose values are read `chunk` timesteps at a time.

    Args:
        spikes: exact values, stored or to be read.
        rates: their segment means.
        lengths: timesteps of each segment.
        chunk: the largest number of timesteps to compute at a time.
        recompute: run every convolution twice instead of keeping its outputs until the next neurons have fired.
    """

    def __init__(
        self,
        spikes: Tensor | PackedSpikes | Values,
        rates: Tensor,
        lengths: tuple[int, ...],
        chunk: int,
        recompute: bool,
        call: Call,
    ) -> None:
        self.call = call
        self._chunk = chunk
        self._recompute = recompute
        self._rates = rates
        self._lengths = lengths
        self._values = spikes if isinstance(spikes, Values) else Values.stored(spikes, rates.dtype)

    @property
    def _spikes(self) -> Tensor:
        """All values at once, for operations that cannot run in chunks. They are then kept."""
        with torch.no_grad():
            parts = [(0, 1)] if self.is_constant else self._chunks()
            value = torch.cat([self._values.read(start, stop) for start, stop in parts])
        self._values = Values.stored(value, value.dtype, self._values.moments)
        return value

    @property
    def _packed(self) -> None:
        """The layers after it read the spikes a few timesteps at a time."""

    @property
    def is_constant(self) -> bool:
        return self._values.constant

    def become(self, other: Any) -> None:
        self._values, self._rates, self._elements = other._values, other._rates, other._elements

    def like(self, spikes: Any, rates: Tensor) -> Self:
        return type(self)(spikes, rates, self._lengths, self._chunk, self._recompute, self.call)

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Start and stop of each chunk; none spans two segments."""
        start = 0
        for length in self._lengths:
            for first in range(start, start + length, self._chunk):
                yield first, min(first + self._chunk, start + length)
            start += length

    def _respond(self, neuron: Neuron, learned: Sequence[str], source: Any) -> Response:
        values = self._values

        def currents(start: int, stop: int) -> Tensor:
            part = values.read(start, stop)
            return part.expand(stop - start, *part.shape[1:])

        return lif_response_in_chunks(currents, self._lengths, self._chunk, neuron, learned)

    def _means(self, spikes: Any) -> Tensor:
        values = spikes if isinstance(spikes, Values) else Values.stored(spikes, self.dtype)
        means = _Means(self._lengths)
        for start, stop in self._chunks():
            means.add(values.read(start, stop))
        return means.result()

    def _each_step(self, call: Callable[[Tensor], Tensor], weights: Sequence[Tensor | None] = ()) -> tuple[Any, Tensor]:
        source, means, moments, kept = self._values, _Means(self._lengths), None, []
        given = ReadLater(*weights)

        def read(start: int, stop: int) -> Tensor:
            given.check()
            return call(source.read(start, stop))

        with torch.no_grad():
            for start, stop in self._chunks():
                part = read(start, stop)
                means.add(part)
                # the next batch-norm is likely to need them
                moments = Moments.of(part).merge(moments)
                if not self._recompute:
                    kept.append(part)
            if self._recompute:
                return Values(read, moments=moments), means.result()
            value = torch.cat(kept)
        return Values.stored(value, value.dtype, moments), means.result()

    def _pair(self, call: Callable[[Tensor], Tensor]) -> Any:
        if self.is_constant:
            return super()._pair(call)
        source = self._values
        return self._zip(Values(lambda start, stop: call(source.read(start, stop))), call(self._rates))

    def _over_steps(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rates: Any
    ) -> Any:
        if not isinstance(rates, Tensor):
            return super()._over_steps(name, func, args, kwargs, rates)
        sources = signals_in(args, kwargs)
        for source in sources:
            if isinstance(source, ChunkedRates) and source._values.is_joint:
                _ = (
                    source._spikes
                )  # they may be read twice or more, and nested sums and products would be recomputed each time
        # copies of the signals: x += y replaces the contents of x by the sum, which must not read itself
        args, kwargs = replace_signals(
            (args, kwargs), lambda signal: signal.like(signal._values, signal._rates.detach())
        )
        given = ReadLater(*pytree.tree_leaves((args, kwargs), is_leaf=is_signal))

        def read(start: int, stop: int) -> Tensor:
            given.check()
            return map_over_time(func, args, kwargs, lambda signal: signal._values.read(start, stop))

        return Values(read, is_joint=name in SUMS | PRODUCTS and len(sources) > 1)

    def _batch_norm(self, call: BatchNormCall) -> Any:
        if self.is_constant or not call.training:
            return super()._batch_norm(call)
        source = self._values
        moments = source.moments
        if moments is None:
            for start, stop in self._chunks():
                moments = Moments.of(source.read(start, stop)).merge(moments)
        assert moments is not None
        count = moments.number
        dtype = torch.promote_types(self.dtype, torch.float32)
        mean, var = moments.mean.to(dtype), (moments.deviations / count).to(dtype)
        follow(call.running_mean, call.running_var, mean, moments.deviations / max(count - 1, 1), call.momentum)
        inv_std = (var + call.eps).rsqrt()
        weight, bias = (part if part is None else part.detach() for part in (call.weight, call.bias))
        given = ReadLater(weight, bias)

        def read(start: int, stop: int) -> Tensor:
            given.check()
            return normalise(source.read(start, stop), weight, bias, mean, inv_std, call.eps)

        rates = normalise_rates(self._rates, self._lengths, mean, inv_std, count, call)
        return self.like(Values(read), rates)


class _Means:
    """Segment means of values that come a few timesteps at a time."""

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths
        self.sums: list[Tensor] = []
        self.left = 0

    def add(self, part: Tensor) -> None:
        """Add the next timesteps, `[n, B, ...]`, all of one segment."""
        if self.left == 0:
            self.left = self.lengths[len(self.sums)]
            self.sums.append(part.sum(0))
        else:
            self.sums[-1] += part.sum(0)
        self.left -= len(part)

    def result(self) -> Tensor:
        """The segment means `[m, B, ...]`."""
        return torch.stack([total / length for total, length in zip(self.sums, self.lengths, strict=True)])
