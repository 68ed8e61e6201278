"""Layers that get spikes in bits: whether they run on them, and values that wait to be computed."""

import functools
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from ..neurons import PackedSpikes
from ..sparse import (
    Geometry,
    KeptBlocks,
    LayerOnSpikes,
    SparseLayer,
    SpikeRows,
    is_large,
    may_run_sparse,
    rows_of,
    runs_sparse,
    to_blocks,
)
from .given import convolution_geometry, gradient_breaks

# The layers that may run on spikes.
ON_SPIKES = frozenset({"conv1d", "conv2d", "linear"})

KEPT_BLOCKS = KeptBlocks()

# Layers of neurons whose spikes were read as numbers, by dense layers, when they were last read.
_READ_AS_NUMBERS: Any = WeakSet()


def writes_bits(neuron: Any) -> bool:
    """Whether a layer of neurons shall write its spikes only in bits: unless numbers were last read of it.

    Unpacking bits would make a network of dense layers slower than one that knows no bits. The spikes are the same.
    """
    return neuron not in _READ_AS_NUMBERS


def note_reading(spikes: PackedSpikes | SpikeRows | None, *, in_bits: bool) -> None:
    """Note how a layer reads spikes."""
    if spikes is None or spikes.source is None:
        return
    if in_bits:
        _READ_AS_NUMBERS.discard(spikes.source)
    else:
        _READ_AS_NUMBERS.add(spikes.source)


class Waiting(Protocol):
    """Values `[T, B, ...]` that are computed when something reads them."""

    @property
    def like(self) -> Tensor:
        """A tensor of their shape, dtype and device."""

    @property
    def requires_grad(self) -> bool: ...

    def value(self) -> Tensor: ...


def sparse_layer(
    name: str,
    spikes: PackedSpikes | SpikeRows | None,
    dtype: torch.dtype,
    weight: Tensor,
    *args: Any,
    **kwargs: Any,
) -> SparseLayer | None:
    """The layer of that name on spikes, if it is one that may run sparse; None for others.

    Args:
        name: of a function of `torch.nn.functional`.
        spikes: its input.
        dtype: of its input.
        weight: its weight.
        args, kwargs: its arguments after the bias.
    """
    if spikes is None or name not in ON_SPIKES or weight.device.type != "cpu":
        return None
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    elif weight.dtype != dtype:
        return None
    if not may_run_sparse(weight.device, dtype):
        return None
    shape = spikes.shape if isinstance(spikes, SpikeRows) else spikes.bits.shape[1:]
    geometry = geometry_of(name, shape, weight, *args, **kwargs)
    if geometry is None or not is_large(geometry, spikes.timesteps):
        return None
    return SparseLayer(spikes, geometry, dtype)


def geometry_of(name: str, shape: torch.Size, weight: Tensor, *args: Any, **kwargs: Any) -> Geometry | None:
    """The geometry of a layer on samples of that shape; None if it is none that may run on spikes."""
    given = name, shape, weight.shape, args, tuple(kwargs.items())
    try:
        return _known_geometry(*given)
    except TypeError:  # lists among the arguments
        return _geometry(*given)


def _geometry(
    name: str, shape: torch.Size, weight: torch.Size, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]
) -> Geometry | None:
    if len(weight) != len(shape) or len(weight) not in (2, 3, 4):
        return None
    if name == "linear":
        return Geometry.of(shape, weight, (), (), (), 1)
    geometry, before = convolution_geometry(weight[2:], *args, **dict(kwargs))
    fits = shape[1] == weight[1] * geometry.groups and weight[0] % geometry.groups == 0
    if before or not fits:
        return None
    return Geometry.of(shape, weight, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


_known_geometry = functools.lru_cache(1024)(_geometry)


def on_spikes(
    name: str,
    spikes: SpikeRows | PackedSpikes,
    dtype: torch.dtype,
    goes_on: bool,
    *args: Any,
    **kwargs: Any,
) -> LayerOnSpikes | SpikeRows | None:
    """A layer of evaluation on spikes, whose output waits, or the spikes after max-pooling; None if it runs dense.

    Args:
        name: of a function of `torch.nn.functional`.
        spikes: its input.
        dtype: of its input.
        goes_on: whether this is a later timestep of a sequence.
        args, kwargs: its arguments after the input.
    """
    if name == "max_pool2d":
        return max_pooled(spikes, dtype, *args, **kwargs)
    if name not in ON_SPIKES:
        return None
    weight, bias, rest = _parameters(*args, **kwargs)
    layer = sparse_layer(name, spikes, dtype, weight, *rest[0], **rest[1])
    sparse = layer is not None and runs_sparse(layer, "inference")
    note_reading(spikes, in_bits=sparse)
    if layer is None or not sparse:
        return None
    return LayerOnSpikes(layer, KEPT_BLOCKS.of(weight, layer.dtype, layer.geometry, goes_on=goes_on), bias)


def _parameters(
    weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None, tuple[tuple[Any, ...], dict[str, Any]]]:
    return weight, bias, (args, kwargs)


def max_pooled(spikes: SpikeRows | PackedSpikes, dtype: torch.dtype, *args: Any, **kwargs: Any) -> SpikeRows | None:
    """The spikes after `max_pool2d` with arguments after its input; None for options that spikes in bits do not take."""
    bits = spikes.rows if isinstance(spikes, SpikeRows) else spikes.bits
    if not may_run_sparse(bits.device, dtype):
        return None
    windows = max_pool_windows(spikes.shape if isinstance(spikes, SpikeRows) else bits.shape[1:], *args, **kwargs)
    if windows is None:
        return None
    return rows_of(spikes, dtype).max_pooled(windows)


def blocks_of(weight: Tensor, layer: SparseLayer) -> Tensor:
    """The blocks of weights that change between calls, as in training."""
    return to_blocks(weight.to(layer.dtype), layer.geometry)


def arranged(x: Tensor, timesteps: int, name: str, *args: Any, **kwargs: Any) -> Tensor:
    """The input `[T or 1, B, C, H, W]` of a dense convolution, with the channels last in memory if layers on spikes may follow.

    Args:
        x: the input.
        timesteps: T.
        name: of a function of `torch.nn.functional`.
        args, kwargs: its arguments after the input.
    """
    if name != "conv2d" or x.ndim != 5 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return x
    weight, _, rest = _parameters(*args, **kwargs)
    geometry = geometry_of(name, x.shape[1:], weight, *rest[0], **rest[1])
    if geometry is None:
        return x
    if gradient_breaks(weight.shape, (geometry.stride_h, geometry.stride_w)):
        return x.contiguous()
    if not may_run_sparse(x.device, x.dtype) or not is_large(geometry, timesteps):
        return x
    # flat in between, because PyTorch recognises the order of a single sample by its strides, which views leave undefined
    last = x.permute(0, 1, 3, 4, 2)
    return last.reshape(-1).view(last.shape).permute(0, 1, 4, 2, 3)


def max_pool_windows(
    shape: torch.Size,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Geometry | None:
    """The windows of `max_pool2d` on samples of that shape; None for options that spikes in bits do not take."""
    if ceil_mode or return_indices or len(shape) != 4:
        return None
    kernel, padding, dilation = (
        (value,) * 2 if isinstance(value, int) else tuple(value) for value in (kernel_size, padding, dilation)
    )
    stride = kernel if stride is None or stride == [] else (stride,) * 2 if isinstance(stride, int) else tuple(stride)
    return Geometry.of(tuple(shape), (shape[1], shape[1], *kernel), stride, padding, dilation, 1)
