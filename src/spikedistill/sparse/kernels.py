"""The functions of `kernels.cpp` on tensors. Sizes are checked by those who make a `Geometry`."""

import ctypes
import functools
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ..native import DTYPES, call, check_compiler, library
from ..neurons import Neuron

_SOURCE = Path(__file__).with_name("kernels.cpp")

WORD = 64
# of glibc, which Python has no name for
_LEVEL1_DCACHE_SIZE = 188


class Geometry(NamedTuple):
    """A convolution over images, or over lines or single values, which are images of height 1."""

    images: int
    channels: int
    height: int
    width: int
    outputs: int
    kernel_h: int = 1
    kernel_w: int = 1
    out_h: int = 1
    out_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    dilation_h: int = 1
    dilation_w: int = 1
    groups: int = 1

    @classmethod
    def of(
        cls,
        x: tuple[int, ...],
        weight: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Self:
        """The geometry for samples `[B, C, H, W]`, `[B, C, L]` or `[B, C]` and a weight `[O, C / groups, ...]`."""
        size, kernel, strides, dilations = ((1, 1, *axes)[-2:] for axes in (x[2:], weight[2:], stride, dilation))
        pads = (0, 0, *padding)[-2:]
        axes = zip(size, kernel, strides, pads, dilations, strict=True)
        out = [max(0, (n + 2 * p - d * (k - 1) - 1) // s + 1) for n, k, s, p, d in axes]
        return cls(*x[:2], *size, weight[0], *kernel, *out, *strides, *pads, *dilations, groups)  # type: ignore[call-arg]

    @property
    def taps(self) -> int:
        return self.kernel_h * self.kernel_w

    @property
    def operations(self) -> int:
        """Multiplications and additions of a dense layer for one timestep."""
        return self.images * self.out_h * self.out_w * self.outputs * self.channels // self.groups * self.taps

    @property
    def words(self) -> int:
        return -(-self.channels // WORD)


@functools.cache
def kernels(dtype: torch.dtype = torch.float32) -> ctypes.CDLL:
    """The compiled functions for values of a dtype.

    Raises:
        OSError: if they cannot be compiled.
    """
    check_compiler()
    found = library(_SOURCE, {"VALUE": DTYPES[dtype], "UNITS": _units()})
    for name in ("count_bits", "floats_of_blocks", "rows_of_bits", "pool_rows", "forward_and_fire", "fire_rows"):
        getattr(found, name).restype = ctypes.c_int64
    found.digest.restype = ctypes.c_uint64
    return found


def _units() -> int:
    """How many blocks of weights the first cache holds, of which a third is left for what else is read."""
    try:
        cache = os.sysconf(_LEVEL1_DCACHE_SIZE) if platform.libc_ver()[0] == "glibc" else 0
    except (ValueError, OSError):
        cache = 0
    return 2 if cache >= 48 * 1024 else 1


@functools.cache
def available() -> bool:
    """Whether the functions work on this machine."""
    try:
        kernels()
    except OSError:
        return False
    return True


@functools.lru_cache(4096)
def _as_c(geometry: Geometry) -> Any:
    return (ctypes.c_int64 * len(geometry))(*geometry)


def to_blocks(weight: Tensor, geometry: Geometry) -> Tensor:
    """A weight `[O, C / groups, ...]` in the order in which spikes read it, in float32."""
    library, shape = kernels(), _as_c(geometry)
    blocks = torch.empty(library.floats_of_blocks(shape))
    call(library.to_blocks, torch.get_num_threads(), shape, weight.detach().float().contiguous(), blocks)
    return blocks


def digest(values: Tensor) -> int:
    """A number that differs if any bit of a contiguous tensor does, but for chance."""
    words, rest = divmod(values.numel() * values.element_size(), 8)
    start = values.data_ptr()
    tail = ctypes.c_void_p(start + 8 * words)
    return int(call(kernels().digest, torch.get_num_threads(), ctypes.c_void_p(start), words, tail, rest))


def rows_of_bits(bits: Tensor, timesteps: int) -> tuple[Tensor, int]:
    """Rows `[positions, words, T]`, and the number of spikes, of the bits `[ceil(T / 8), positions, C]`."""
    _, positions, channels = bits.shape
    rows = torch.empty(positions, -(-channels // WORD), timesteps, dtype=torch.int64)
    threads = torch.get_num_threads()
    return rows, call(kernels().rows_of_bits, threads, positions, channels, timesteps, bits, rows)


def count_bits(values: Tensor) -> int:
    """How many bits of a dense uint8 tensor are 1."""
    start = ctypes.c_void_p(values.data_ptr())
    return int(call(kernels().count_bits, torch.get_num_threads(), start, values.numel()))


def bits_of_rows(rows: Tensor, channels: int) -> Tensor:
    """The inverse of `rows_of_bits`."""
    positions, _, timesteps = rows.shape
    bits = torch.empty(-(-timesteps // 8), positions, channels, dtype=torch.uint8)
    call(kernels().bits_of_rows, torch.get_num_threads(), positions, channels, timesteps, rows, bits)
    return bits


def unpack_rows(rows: Tensor, channels: int, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """Zeros and ones `[stop - start, positions, C]`."""
    positions, _, timesteps = rows.shape
    spikes = torch.empty(stop - start, positions, channels, dtype=dtype)
    threads = torch.get_num_threads()
    call(kernels(dtype).unpack_rows, threads, positions, channels, timesteps, start, stop, rows, spikes)
    return spikes


def pool_rows(rows: Tensor, geometry: Geometry) -> tuple[Tensor, int]:
    """Rows of max-pooled spikes, and their number; the geometry is that of the windows."""
    timesteps = rows.shape[-1]
    pooled = torch.empty(
        geometry.images * geometry.out_h * geometry.out_w, geometry.words, timesteps, dtype=torch.int64
    )
    threads = torch.get_num_threads()
    return pooled, call(kernels().pool_rows, threads, _as_c(geometry), timesteps, rows, pooled)


class Norm(NamedTuple):
    """A batch-norm of evaluation.

    Attributes:
        mean, var: its running statistics, `[O]`, float32.
        weight, bias: `[O]`, float32, or None.
        eps: added to the variance.
    """

    mean: Tensor
    var: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


class _Norm(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_void_p) for name in Norm._fields[:4]), ("eps", ctypes.c_double))


def _norm_as_c(norm: Norm | None) -> Any:
    if norm is None:
        return None
    return ctypes.byref(_Norm(*(None if part is None else part.data_ptr() for part in norm[:4]), norm.eps))


def forward(
    rows: Tensor,
    blocks: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    dtype: torch.dtype,
    norm: Norm | None = None,
) -> Tensor:
    """The layer's outputs `[T, positions, O]`, or those of the batch-norm after it, computed in float32."""
    timesteps = rows.shape[-1]
    out = torch.empty(timesteps, geometry.images * geometry.out_h * geometry.out_w, geometry.outputs, dtype=dtype)
    threads = torch.get_num_threads()
    call(kernels(dtype).forward, threads, _as_c(geometry), timesteps, rows, blocks, bias, _norm_as_c(norm), out)
    return out


def forward_and_fire(
    rows: Tensor,
    blocks: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    norm: Norm | None,
    residual: Tensor | None,
    membrane: float | Tensor,
    neuron: Neuron,
    dtype: torch.dtype,
    *,
    keeps: bool = False,
) -> tuple[Tensor, int, Tensor | None]:
    """`fire_rows` of the outputs of a layer and its batch-norm, which never reach memory."""
    timesteps = rows.shape[-1]
    positions = geometry.images * geometry.out_h * geometry.out_w
    given = torch.get_num_threads(), _as_c(geometry), timesteps, rows, blocks, bias, _norm_as_c(norm)
    places = positions, geometry.outputs, timesteps
    return _fired(kernels(dtype).forward_and_fire, given, places, residual, membrane, neuron, keeps)


def fire_rows(
    x: Tensor,
    timesteps: int,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    neuron: Neuron,
    *,
    keeps: bool = False,
) -> tuple[Tensor, int, Tensor | None]:
    """Spikes of neurons with the currents x * scale + shift + residual.

    Args:
        x: `[T or 1, positions, C]`.
        timesteps: T.
        scale, shift: `[C]`, float32.
        residual: like x at every timestep, or rows of spikes `[positions, words, T]`, or None.
        membrane: before the first timestep, a number or `[positions, C]`.
        neuron: of numbers only.
        keeps: whether the membranes after the last timestep are needed.

    Returns:
        Their rows `[positions, words, T]`, their number, and the membranes `[positions, C]` after the last timestep, or None.
    """
    given = torch.get_num_threads(), x.shape[1], x.shape[2], timesteps, x, len(x) < timesteps, scale, shift
    return _fired(kernels(x.dtype).fire_rows, given, (*x.shape[1:], timesteps), residual, membrane, neuron, keeps)


def _fired(
    function: Any,
    given: tuple[Any, ...],
    places: tuple[int, ...],
    residual: Tensor | None,
    membrane: float | Tensor,
    neuron: Neuron,
    keeps: bool,
) -> tuple[Tensor, int, Tensor | None]:
    """Call a function that fires at so many positions, channels and timesteps."""
    positions, channels, timesteps = places
    rows = torch.empty(positions, -(-channels // WORD), timesteps, dtype=torch.int64)
    before, number = (membrane, 0.0) if isinstance(membrane, Tensor) else (None, float(membrane))
    after = torch.empty(positions, channels) if keeps else None
    in_rows = residual is not None and residual.dtype == torch.int64
    dense, spikes = (None, residual) if in_rows else (residual, None)
    hard = neuron.v_reset is not None
    numbers = float(neuron.decay), float(neuron.threshold), float(neuron.v_reset or 0), hard, number
    return rows, call(function, *given, dense, spikes, *numbers, before, after, rows), after


def weight_gradient(rows: Tensor, grad: Tensor, geometry: Geometry, shape: torch.Size) -> Tensor:
    """The gradient with respect to the weight of that shape, float32, from that with respect to the outputs `[T, positions, O]`."""
    library, sizes, threads = kernels(grad.dtype), _as_c(geometry), torch.get_num_threads()
    blocks = torch.empty(library.floats_of_blocks(sizes))
    call(library.weight_gradient, threads, sizes, rows.shape[-1], rows, grad, blocks)
    weight = torch.empty(shape)
    call(library.from_blocks, threads, sizes, blocks, weight)
    return weight
