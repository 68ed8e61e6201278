"""Rate-based gradients in one pass: exact spikes without a graph beside segment means with one.

For a linear operation the mean of the outputs is the output of the mean, so the forward value of the means is read off the spiking
pass and nothing is evaluated twice; only the backward rule runs on the means, at batch m*B instead of T*B.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..neurons import lif_response
from .batch_norm import BatchNormCall, batch_norm, batch_norm_rates
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
    TRANSPOSED,
    Signal,
    check_sample,
    dropout_scale_shift,
    fold_time,
    map_over_time,
    signals_in,
)
from .unrolled import dropout_arguments

_NOT_LINEAR = (
    "it is not linear in time, so the mean of its outputs is not its output at the mean rate; "
    "use gradient='bptt' or 'sltt'"
)


class Rate(Signal):
    """Spikes `[T, B, ...]` without graph beside segment means `[m, B, ...]` with graph.

    Where the value is constant in time both have a leading 1 and are the same, so that whatever is computed there is exact.

    Args:
        spikes: exact values.
        rates: their segment means.
        lengths: timesteps of each of the m segments.
    """

    gradient = "rate"

    def __init__(self, spikes: Tensor, rates: Tensor, lengths: tuple[int, ...]) -> None:
        self._spikes = spikes
        self._rates = rates
        self._lengths = lengths
        self.timesteps = sum(lengths)

    @classmethod
    def constant(cls, value: Tensor, lengths: tuple[int, ...]) -> Self:
        """A signal that is `[1, B, ...]` at every timestep."""
        return cls(value.detach(), value, lengths)

    @property
    def sample(self) -> Tensor:
        return self._rates[0]

    @property
    def is_constant(self) -> bool:
        return self._spikes.shape[0] == 1

    def over_time(self) -> Tensor:
        """Exact values `[T, B, ...]`; the graph behind each timestep is that of its segment's mean."""
        if self.is_constant:
            return self._rates.expand(self.timesteps, *self._rates.shape[1:])
        answer = (self._rates - self._rates.detach()).unbind(0)
        return self._spikes + torch.stack(
            [part for part, length in zip(answer, self._lengths, strict=True) for _ in range(length)]
        )

    def mean_over_time(self) -> Tensor:
        if self.is_constant:
            return self._rates[0]
        weights = self._rates.new_tensor(self._lengths) / self.timesteps
        return torch.tensordot(weights, self._rates, dims=1)

    def become(self, other: Any) -> None:
        self._spikes, self._rates = other._spikes, other._rates

    def fire(self, neuron: Any) -> Self:
        dynamics = neuron.dynamics(self.ndim)
        decay, v_init = dynamics["decay"], dynamics["v_init"]
        with_decay, with_v_init = _learns(decay), _learns(v_init)
        currents = self._spikes.expand(self.timesteps, *self._spikes.shape[1:])
        response = lif_response(currents, self._lengths, with_decay=with_decay, with_v_init=with_v_init, **dynamics)
        rates = segment_means(response.spikes, self._lengths)
        rates = rates + _answer(self._rates, response.to_current)
        if response.to_decay is not None:
            rates = rates + _answer(decay, response.to_decay)
        if response.to_v_init is not None:
            rates = rates + _answer(v_init, response.to_v_init)
        return type(self)(response.spikes, rates.to(response.spikes.dtype), self._lengths)

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.is_constant and (name in LINEAR or name in NORMS or name in MEAN_POOLS or name in MAX_POOLS):
            check_sample(self, name)
            return self._constant(fold_time(func, self._rates, *args[1:], **kwargs))
        if name in LINEAR:
            check_sample(self, name)
            return self._linear(name, func, *args[1:], **kwargs)
        if name in MEAN_POOLS:
            check_sample(self, name)
            return self._pair(lambda value: fold_time(func, value, *args[1:], **kwargs))
        if name in MAX_POOLS:
            check_sample(self, name)
            return self._max_pool(func, *args[1:], **kwargs)
        if name == "batch_norm":
            return self._batch_norm(BatchNormCall(*args[1:], **kwargs))
        if name in DROPOUTS:
            scale, shift = dropout_scale_shift(name, func, self.sample, *dropout_arguments(*args[1:], **kwargs))
            return self._pair(lambda value: value * scale + shift)
        return self._per_timestep(name, func, args, kwargs)

    def _per_timestep(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Whatever is linear in the signals that vary: the same call on the spikes and on the segment means."""
        varying = _varying(args, kwargs)
        if not (
            name in SHAPES
            or name in SUMS
            or (name in PRODUCTS and len(varying) <= 1)
            or (name in QUOTIENTS and not _varying(args[1:], kwargs))
            or (name in NONLINEAR and not varying)
        ):
            nonlinear = name in NONLINEAR or name in NORMS or name in PRODUCTS or name in QUOTIENTS
            self.refuse(name, _NOT_LINEAR if nonlinear else "")
        if not varying:
            return self._constant(map_over_time(func, args, kwargs, lambda signal: signal._rates))
        with torch.no_grad():
            spikes = map_over_time(func, args, kwargs, lambda signal: signal._spikes)
        return self._zip(spikes, map_over_time(func, args, kwargs, lambda signal: signal._segments()))

    def _segments(self) -> Tensor:
        """Segment means `[m, B, ...]`, also of a value that is constant in time."""
        return self._rates.expand(len(self._lengths), *self._rates.shape[1:])

    def _linear(
        self, name: str, func: Callable[..., Any], weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Self:
        # detached rather than only under no_grad: autocast would keep a weight cast there, without its graph
        with torch.no_grad():
            spikes = fold_time(
                func, self._spikes, weight.detach(), None if bias is None else bias.detach(), *args, **kwargs
            )
            means = segment_means(spikes, self._lengths)
        rates, weight = self._rates.to(means.dtype), weight.to(means.dtype)
        bias = None if bias is None else bias.to(means.dtype)
        if name == "linear":
            return type(self)(spikes, _GivenLinear.apply(means, rates, weight, bias), self._lengths)
        geometry_of = _transposed_convolution if name in TRANSPOSED else _convolution
        geometry, before = geometry_of(weight.shape[2:], *args, **kwargs)
        x = torch.nn.functional.pad(rates.flatten(0, 1), before) if before else rates.flatten(0, 1)
        folded = _GivenConvolution.apply(means.flatten(0, 1), x, weight, bias, geometry)
        return type(self)(spikes, folded.unflatten(0, means.shape[:2]), self._lengths)

    def _max_pool(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Self:
        """Value: mean of the pooled timesteps; gradient: that of pooling the mean rate."""
        with torch.no_grad():
            spikes = fold_time(func, self._spikes, *args, **kwargs)
            means = segment_means(spikes, self._lengths)
        return type(self)(spikes, means + _answer(fold_time(func, self._rates, *args, **kwargs), 1.0), self._lengths)

    def _batch_norm(self, call: BatchNormCall) -> Self:
        if self.is_constant:
            return self._constant(batch_norm(self._rates, self.timesteps, call))
        return type(self)(*batch_norm_rates(self._spikes, self._rates, self._lengths, call), self._lengths)

    def _pair(self, call: Callable[[Tensor], Tensor]) -> Any:
        if self.is_constant:
            return self._constant(call(self._rates))
        with torch.no_grad():
            spikes = call(self._spikes)
        return self._zip(spikes, call(self._rates))

    def _zip(self, spikes: Any, rates: Any) -> Any:
        return pytree.tree_map(lambda s, r: type(self)(s, r, self._lengths), spikes, rates)

    def _constant(self, value: Any) -> Any:
        return pytree.tree_map(lambda v: self.constant(v, self._lengths), value)


def _varying(*values: Any) -> list[Signal]:
    return [signal for signal in signals_in(values) if isinstance(signal, Rate) and not signal.is_constant]


def segment_means(value: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Means over consecutive segments: `[T, B, ...] -> [m, B, ...]`."""
    if len(set(lengths)) == 1:
        return value.unflatten(0, (len(lengths), lengths[0])).mean(1)
    return torch.stack([part.mean(0) for part in value.split(lengths)])


def _answer(source: Tensor, slope: Tensor | float) -> Tensor:
    """Exactly zero, with the gradient `slope` to its source."""
    return (source - source.detach()) * slope


def _learns(option: float | Tensor) -> bool:
    return isinstance(option, Tensor) and option.requires_grad


class _GivenLinear(torch.autograd.Function):
    """The given value of `x @ weight.T + bias`, with the gradient of that expression."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        flat = grad.flatten(0, -2)
        _, to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            None,
            grad @ weight if to_x else None,
            flat.mT @ x.flatten(0, -2) if to_weight else None,
            flat.sum(0) if to_bias else None,
        )


class _Geometry(NamedTuple):
    """How a convolution lies over its input, as its backward takes it."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


def _convolution(
    kernel: torch.Size, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[_Geometry, list[int]]:
    """Geometry of a convolution with the arguments of `torch.nn.functional.conv2d`, and what to pad before it."""
    n = len(kernel)
    dilation = _tuple(dilation, n)
    before: list[int] = []
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = tuple(t // 2 for t in total)
        if any(t % 2 for t in total):  # an even kernel: torch puts the odd one behind
            before = [side for t in reversed(total) for side in (0, t % 2)]
    return _Geometry(_tuple(stride, n), _tuple(padding, n), dilation, False, (0,) * n, groups), before


def _transposed_convolution(
    kernel: torch.Size, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1
) -> tuple[_Geometry, list[int]]:
    """The same for the arguments of `torch.nn.functional.conv_transpose2d`."""
    n = len(kernel)
    padding, output_padding = _tuple(padding, n), _tuple(output_padding, n)
    return _Geometry(_tuple(stride, n), padding, _tuple(dilation, n), True, output_padding, groups), []


def _tuple(value: Any, n: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * n if len(values) == 1 else values


class _GivenConvolution(torch.autograd.Function):
    """The given value of a convolution of x, with the gradient of that convolution."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
            grads[0],
            x,
            weight,
            ctx.bias_sizes,
            *ctx.geometry,
            list(ctx.needs_input_grad[1:4]),
        )
        return None, to_x, to_weight, to_bias, None
