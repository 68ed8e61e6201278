"""The dynamics of a sequence on a GPU, by the kernels of `triton_kernels.py`.

Sequences come in their memory layout, `[T, rows, values]` (`memory_format.py`). Tensors with a value per channel broadcast over a
timestep: `[rows, 1]`, or `[values]`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..neuron import Neuron
from ..surrogate import known_form
from .triton_kernels import (
    fire_kernel,
    gradient_kernel,
    moments_kernel,
    respond_kernel,
    share_kernel,
    statistics_kernel,
    unpack_kernel,
)

# Neurons of a tile: four for each of 128 threads. With eight, bfloat16 is read 16 bytes at a time, but fewer threads fit.
_TILE = 512

# The dtypes of currents and spikes.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# The most timesteps for which the kernel of rates is unrolled.
LONGEST = 64

# Programs that sum over channels: enough to fill any GPU, few enough that adding up their parts is quick.
_PROGRAMS = 1024

# Channels whose parts one program adds up.
_CHANNELS = 8
_PARTS = 128  # of them at a time


def fire(
    into: Tensor | None,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    neuron: Neuron,
    *,
    timesteps: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compute the spikes of a block of at most 8 timesteps.

    Args:
        into: a tensor like x to write the spikes into; None makes a new one.
        x: `[t, rows, values]`; the currents are x * scale + shift + residual.
        scale, shift: tensors that broadcast over a timestep of x, in float32.
        residual: like x, or None.
        membrane: before the first timestep, a number or `[rows, values]` in float32.
        timesteps: T, if x is `[1, rows, values]`, the same at all timesteps.

    Returns:
        The spikes, like x; the packed spikes `[1, rows, values]`; the membrane after the last timestep, or None if `membrane` is a
        number.
    """
    T = timesteps or len(x)
    spikes = x.new_empty(T, *x.shape[1:]) if into is None else into
    bits = torch.empty(1, *x.shape[1:], dtype=torch.uint8, device=x.device)
    after = torch.empty_like(membrane) if isinstance(membrane, Tensor) else None
    grid, sizes = _tiles(x, scale)
    with _on(x):
        fire_kernel[_all(grid)](
            x, scale, shift, residual, *_start(membrane), spikes, bits, after, *x.shape[1:],
            *_numbers(neuron), T=T, STILL=len(x) < T, **sizes,
        )  # fmt: skip
    return spikes, bits, after


def gradient(
    into: Tensor | None,
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    ahead: Tensor | None,
    neuron: Neuron,
    detach_membrane: bool,
) -> tuple[Tensor, Tensor | None]:
    """Compute the gradient with respect to the currents of a block of at most 8 timesteps, from that with respect to its spikes.

    Args:
        into: a tensor like x to write the gradient into; None makes a new one.
        residual: like x, packed spikes `[1, rows, values]`, or None.
        ahead: gradient with respect to the membrane after the last timestep; None if the sequence is one block.
        x: if it is `[1, rows, values]`, the same at all timesteps, its gradient is the sum over them.

    The other arguments are those of `fire`.

    Returns:
        The gradient, like x; the gradient with respect to the membrane before the first timestep, or None if `ahead` is None.
    """
    to_current = torch.empty_like(x) if into is None else into
    behind = None if ahead is None else torch.empty_like(ahead)
    grid, sizes = _tiles(x, scale)
    with _on(x):
        gradient_kernel[_all(grid)](
            grad, x, scale, shift, residual, *_start(membrane), ahead, to_current, behind, None, None, None, None,
            *x.shape[1:], 1, *_numbers(neuron), *known_form(neuron.derivative),
            T=len(grad), STILL=len(x) < len(grad), DETACH_RESET=neuron.detach_reset, DETACH_MEMBRANE=detach_membrane, **sizes,
        )  # fmt: skip
    return to_current, behind


def gradient_through_norm(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    inv_std: Tensor,
    neuron: Neuron,
    detach_membrane: bool,
    *,
    to_residual: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """`gradient` of at most 8 timesteps and through the batch-norm before it, whose statistics are those of x.

    There are two passes. The first sums, over each channel, the gradient with respect to the currents and its product with
    x - mean. The second computes that gradient again, which is faster than writing and reading it, and subtracts the share of the
    statistics.

    Args:
        mean, inv_std: `[C]`.
        to_residual: whether to return the gradient with respect to the currents.

    Returns:
        The gradients with respect to x; the currents, or None; weight and bias `[C]`.
    """
    grid, sizes = _tiles(x, scale)
    channels, (_, rows, values) = len(mean), x.shape
    programs, parts = _parts(grid, rows, values, channels, sizes["BY_ROW"], x)
    shares = torch.empty(2, channels, dtype=scale.dtype, device=x.device)
    to_weight, to_bias = torch.empty_like(mean), torch.empty_like(mean)
    to_x, to_current = torch.empty_like(x), torch.empty_like(x) if to_residual else None
    given = grad, x, scale, shift, residual, *_start(neuron.v_init), None
    options = rows, values, channels, *_numbers(neuron), *known_form(neuron.derivative)
    more = {
        "T": len(x), "STILL": False, "DETACH_RESET": neuron.detach_reset, "DETACH_MEMBRANE": detach_membrane, **sizes,
    }  # fmt: skip
    with _on(x):
        gradient_kernel[_all(programs)](*given, None, None, mean, parts, None, None, *options, **more)
        share_kernel[(_tiles_in(channels, _CHANNELS),)](
            parts, inv_std, shares, to_weight, to_bias, parts.shape[1], channels, float(x.numel() // channels),
            PARTS=_PARTS, CHANNELS=_CHANNELS,
        )  # fmt: skip
        gradient_kernel[_all(grid)](*given, to_current, None, mean, None, shares, to_x, *options, **more)
    return to_x, to_current, to_weight, to_bias


def statistics(
    x: Tensor,
    channels: int,
    by_row: bool,
    eps: float,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """Compute mean and 1 / std `[C]` of each channel of `[T, rows, values]`, and update the running statistics.

    Args:
        by_row: whether all values of a row belong to one channel; if not, each belongs to another.
    """
    T, rows, values = x.shape
    grid, sizes = _tiles_of(T * rows, values, by_row)
    programs, parts = _parts(grid, T * rows, values, channels, by_row, x)
    mean, inv_std = (torch.empty(channels, dtype=torch.float32, device=x.device) for _ in range(2))
    with _on(x):
        moments_kernel[_all(programs)](x, parts, T * rows, values, channels, **sizes)
        statistics_kernel[(_tiles_in(channels, _CHANNELS),)](
            parts, x, values if by_row else 1, mean, inv_std, running_mean, running_var,
            parts.shape[1], channels, float(x.numel() // channels), momentum, eps,
            PARTS=_PARTS, CHANNELS=_CHANNELS,
        )  # fmt: skip
    return mean, inv_std


def _parts(
    grid: tuple[int, int], rows: int, values: int, channels: int, by_row: bool, x: Tensor
) -> tuple[tuple[int, int], Tensor]:
    """The grid of programs that sum over channels, and an empty tensor for their parts `[2, number, C]`."""
    down, across = grid
    down = down if by_row else min(down, max(1, _PROGRAMS // across))
    number = across * (rows // channels) if by_row else down
    return (down, across), torch.empty(2, number, channels, dtype=torch.float32, device=x.device)


def respond(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    segments: int,
    neuron: Neuron,
    *,
    timesteps: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute spikes like x, and for each of m segments of one length the mean rate and its derivative, `[m, rows, values]`.

    The derivative is with respect to a constant added to the currents of the segment. The arguments are those of `fire`.
    """
    T = timesteps or len(x)
    spikes = x.new_empty(T, *x.shape[1:])
    rates = x.new_empty(segments, *x.shape[1:])
    answer = torch.empty(segments, *x.shape[1:], dtype=scale.dtype, device=x.device)
    grid, sizes = _tiles(x, scale)
    with _on(x):
        respond_kernel[_all(grid)](
            x, scale, shift, residual, neuron.v_init, spikes, rates, answer, *x.shape[1:],
            *_numbers(neuron), *known_form(neuron.derivative),
            M=segments, LENGTH=T // segments, STILL=len(x) < T, DETACH_RESET=neuron.detach_reset, **sizes,
        )  # fmt: skip
    return spikes, rates, answer


def unpack(bits: Tensor, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """Unpack the spikes `[stop - start, ...]` of some timesteps from the bits `[ceil(T / 8), ...]`, which are contiguous."""
    spikes = torch.empty(stop - start, *bits.shape[1:], dtype=dtype, device=bits.device)
    size = bits[0].numel()
    for byte in range(start // 8, (stop + 7) // 8):
        first, last = max(start, 8 * byte), min(stop, 8 * byte + 8)
        with _on(bits):
            unpack_kernel[(_tiles_in(size, _TILE),)](
                bits[byte], spikes[first - start :], size, first % 8, T=last - first, TILE=_TILE
            )
    return spikes


def _tiles_in(count: int, size: int) -> int:
    return -(-count // size)


def _on(x: Tensor) -> Any:
    """Launch kernels on the device of x."""
    return torch.cuda.device_of(x)


def _tiles(x: Tensor, scale: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """The number of programs, down and across, and the size of a tile."""
    return _tiles_of(x.shape[1], x.shape[2], scale.ndim == 2)


def _tiles_of(rows: int, values: int, by_row: bool) -> tuple[tuple[int, int], dict[str, Any]]:
    across = min(1 << (values - 1).bit_length(), _TILE)
    down = _TILE // across
    return (_tiles_in(rows, down), _tiles_in(values, across)), {
        "BY_ROW": by_row,
        "ROWS": down,
        "VALUES": across,
    }


def _all(programs: tuple[int, int]) -> tuple[int]:
    """The number of programs, as a grid of one dimension, because the second may have too few."""
    return (math.prod(programs),)


def _start(membrane: float | Tensor) -> tuple[Tensor | None, float]:
    return (membrane, 0.0) if isinstance(membrane, Tensor) else (None, float(membrane))


def _numbers(neuron: Neuron) -> tuple[float, float, float, bool]:
    return float(neuron.decay), float(neuron.threshold), float(neuron.v_reset or 0), neuron.v_reset is not None
