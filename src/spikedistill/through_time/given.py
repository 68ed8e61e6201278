"""Layers whose output is already known: only their gradient is computed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..neurons import PackedSpikes
from ..sparse import SparseLayer
from .operations import TRANSPOSED


def given_linear(
    name: str,
    value: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *args: Any,
    kept: PackedSpikes | SparseLayer | None = None,
    **kwargs: Any,
) -> Tensor:
    """Return the value with the gradient that the named layer has with respect to x, weight and bias.

    Args:
        name: "linear", "conv2d", "conv_transpose2d" and so on.
        value: `[N, ...]`.
        x: `[N, ...]`.
        kept: x as spikes `[T, B, ...]` in bits, which are then kept for the gradient instead of x; or a layer on spikes, whose
            weights get their gradient from them.
        args, kwargs: arguments of the function of that name after its bias.
    """
    if name == "linear":
        return _GivenLinear.apply(value, x, weight, bias, kept)
    geometry_of = _transposed_convolution if name in TRANSPOSED else convolution_geometry
    geometry, before = geometry_of(weight.shape[2:], *args, **kwargs)
    if before:
        assert not isinstance(kept, SparseLayer)
        x, kept = torch.nn.functional.pad(x, before), None if kept is None else kept.padded(before)
    return _GivenConvolution.apply(value, x, weight, bias, geometry, kept)


def given(value: Tensor, source: Tensor, slope: Tensor | None = None) -> Tensor:
    """Return the value with the gradient `slope` (default 1) with respect to the source; all three have one shape."""
    return _Given.apply(value, source, slope)


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor, slope: Tensor | None) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.dtype = source.dtype
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        grad = (
            grads[0] if slope is None else slope * grads[0]
        )  # in the memory order of the slope, which is also that of the source
        return None, grad.to(ctx.dtype), None


def _keep(ctx: Any, x: Tensor, kept: PackedSpikes | SparseLayer | None, weight: Tensor) -> None:
    ctx.layer = kept if isinstance(kept, SparseLayer) else None
    ctx.timesteps = kept.timesteps if isinstance(kept, PackedSpikes) else None
    ctx.save_for_backward(None if ctx.layer else kept.bits if isinstance(kept, PackedSpikes) else x, weight)


def _kept(ctx: Any) -> tuple[Any, Tensor]:
    """Input and weight again, both in the dtype of the weight; None as the input of a layer on spikes.

    Raises:
        RuntimeError: for a gradient with a graph of its own, because spikes in bits have none.
    """
    x, weight = ctx.saved_tensors
    if ctx.timesteps is None and ctx.layer is None:
        return x, weight
    if torch.is_grad_enabled():
        raise RuntimeError(
            "create_graph=True needs second-order gradients of a layer that keeps its input spikes in bits, as large layers do and "
            "all layers on a GPU: compute them on a CPU, for fewer or smaller samples"
        )
    if ctx.layer is not None:
        return None, weight
    return PackedSpikes(ctx.timesteps, x).read(0, ctx.timesteps, weight.dtype).flatten(0, 1), weight


def _from_spikes(ctx: Any, grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight of a layer on spikes, from `[T*B, O, ...]`."""
    return ctx.layer.weight_gradient(grad.unflatten(0, (ctx.layer.timesteps, -1)), weight)


class _GivenLinear(torch.autograd.Function):
    """The given value of `x @ weight.T + bias`, with the gradient of that expression."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kept: PackedSpikes | SparseLayer | None,
    ) -> Tensor:
        _keep(ctx, x, kept, weight)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = _kept(ctx)
        grad = grads[0]
        flat = grad.flatten(0, -2)
        _, to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        of_weight = None
        if to_weight:
            of_weight = flat.mT @ x.flatten(0, -2) if ctx.layer is None else _from_spikes(ctx, grad, weight)
        return (
            None,
            grad @ weight if to_x else None,
            of_weight,
            flat.sum(0) if to_bias else None,
            None,
        )


class _Geometry(NamedTuple):
    """The geometry of a convolution, in the form of its backward function."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


def gradient_breaks(weight: torch.Size, strides: Sequence[int]) -> bool:
    """Whether PyTorch's gradient of a convolution's weight writes beyond its memory if the channels of the input are last.

    On a CPU with AVX-512, oneDNN's for kernels of 1x1 with a stride and fewer than 16 channels does (PyTorch 2.13).
    """
    return weight[1] < _BLOCK and set(weight[2:]) == {1} and max(strides) > 1


_BLOCK = 16


def convolution_geometry(
    kernel: torch.Size, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[_Geometry, list[int]]:
    """Geometry of a convolution with the arguments of `torch.nn.functional.conv2d`, and the padding before it."""
    n = len(kernel)
    dilation = _tuple(dilation, n)
    before: list[int] = []
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = tuple(t // 2 for t in total)
        if any(t % 2 for t in total):  # an even kernel: torch puts the extra padding at the end
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
    def forward(
        ctx: Any,
        value: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: _Geometry,
        kept: PackedSpikes | SparseLayer | None,
    ) -> Tensor:
        _keep(ctx, x, kept, weight)
        ctx.geometry = geometry
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = _kept(ctx)
        grad, (for_x, for_weight, for_bias) = grads[0], ctx.needs_input_grad[1:4]
        if ctx.layer is None:
            if gradient_breaks(weight.shape, ctx.geometry.stride):
                x = x.contiguous()
            needed = [for_x, for_weight, for_bias]
            found = torch.ops.aten.convolution_backward(grad, x, weight, ctx.bias_sizes, *ctx.geometry, needed)
            return None, *found, None, None
        to_x = to_bias = None
        if for_x or for_bias:  # for which only the shape of x matters, and its order in memory
            shape = len(grad), *ctx.layer.input_shape[1:]
            last = torch.channels_last if len(shape) == 4 else torch.contiguous_format
            x = torch.empty(shape, dtype=weight.dtype, memory_format=last)
            needed = [for_x, False, for_bias]
            given = grad, x, weight, ctx.bias_sizes, *ctx.geometry, needed
            to_x, _, to_bias = torch.ops.aten.convolution_backward(*given)
        return None, to_x, _from_spikes(ctx, grad, weight) if for_weight else None, to_bias, None, None
