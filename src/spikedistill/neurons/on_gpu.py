"""The dynamics of a sequence on a GPU, by the kernels of `triton_kernels.py`.

Sequences are given as they lie in memory, `[T, rows, values]` (`memory_format.py`). What is per channel broadcasts over a timestep:
`[rows, 1]`, or `[values]`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from .surrogate import Surrogate, arctan, dspike, rectangular, sigmoid, triangular
from .triton_kernels import fire_kernel, gradient_kernel, respond_kernel, unpack_kernel

# Neurons of a tile: eight for each of 128 threads, so that bfloat16 is read 16 bytes at a time.
_TILE = 1024


def _defaults(surrogate: Any) -> float:
    return float(surrogate.__defaults__[0])


# What a kernel is written for: the form of a surrogate, its slope or width, its height, and where it ends.
_FORMS: dict[Surrogate, tuple[str, float, float, float]] = {
    sigmoid: ("logistic", _defaults(sigmoid), _defaults(sigmoid), math.inf),
    dspike: ("logistic", 2 * _defaults(dspike), 2 * _defaults(dspike) / math.tanh(_defaults(dspike)), 1.0),
    rectangular: ("rectangle", 1.0, 1 / _defaults(rectangular), _defaults(rectangular) / 2),
    triangular: ("triangle", _defaults(triangular), 1 / _defaults(triangular) ** 2, math.inf),
    arctan: ("arctan", math.pi / 2 * _defaults(arctan), _defaults(arctan) / 2, math.inf),
}


def knows(surrogate: Surrogate) -> bool:
    """Whether there are kernels for that surrogate: for the library's own, with their defaults."""
    return surrogate in _FORMS


def fire(
    into: Tensor | None,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes of a block of at most 8 timesteps.

    Args:
        into: where the spikes shall be written, like x; None for a tensor of their own.
        x: `[t, rows, values]`; the currents are x * scale + shift + residual.
        scale, shift: what broadcasts over a timestep of x, in float32.
        residual: like x, or None.
        membrane: that before the first timestep, a number or `[rows, values]` in float32.

    Returns:
        The spikes, like x; the same in bits, `[1, rows, values]`; the membrane after the last timestep, None where that before the
        first was a number.
    """
    spikes = torch.empty_like(x) if into is None else into
    bits = torch.empty(1, *x.shape[1:], dtype=torch.uint8, device=x.device)
    after = torch.empty_like(membrane) if isinstance(membrane, Tensor) else None
    grid, sizes = _tiles(x, scale)
    with _on(x):
        fire_kernel[grid](
            x, scale, shift, residual, *_start(membrane), spikes, bits, after, *x.shape[1:],
            decay, threshold, *_reset(v_reset), T=len(x), **sizes,
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
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
    detach_membrane: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradient to the currents of a block of at most 8 timesteps, from that to its spikes.

    Args:
        into: where it shall be written, like x; None for a tensor of its own.
        residual: like x, None, or its spikes in bits, `[1, rows, values]`.
        ahead: gradient to the membrane after the last timestep, None where there is nothing ahead.

    The other arguments are those of `fire`.

    Returns:
        The gradient to the currents, like x; that to the membrane before the first timestep, None where there is nothing ahead.
    """
    to_current = torch.empty_like(x) if into is None else into
    behind = None if ahead is None else torch.empty_like(ahead)
    grid, sizes = _tiles(x, scale)
    with _on(x):
        gradient_kernel[grid](
            grad, x, scale, shift, residual, *_start(membrane), ahead, to_current, behind, None, None, None, None,
            *x.shape[1:], decay, threshold, *_reset(v_reset), *_form(surrogate),
            T=len(x), DETACH_RESET=detach_reset, DETACH_MEMBRANE=detach_membrane, **sizes,
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
    v_init: float,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
    detach_membrane: bool,
    *,
    to_residual: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """`gradient` of at most 8 timesteps and through the batch-norm before it, whose statistics are those of x.

    In two passes: the first sums, over each channel, the gradient to the currents and its product with x - mean; the second
    computes it again, for less than writing and reading it costs, and takes from it the share of the statistics.

    Args:
        mean, inv_std: `[C]`.
        to_residual: whether the gradient to the currents itself is wanted too.

    Returns:
        The gradient to x; that to the currents or None; the sums `[C]`, of the gradient to the currents and of its products with
        x - mean.
    """
    grid, sizes = _tiles(x, scale)
    by_row, count = sizes["BY_ROW"], x.numel() // len(mean)
    _, rows, values = x.shape
    channels = mean.repeat(rows // len(mean)).unsqueeze(1) if by_row else mean
    across = _tiles_in(values, sizes["VALUES"]) if by_row else _tiles_in(rows, sizes["ROWS"])
    parts = torch.empty(2, across, rows if by_row else values, dtype=scale.dtype, device=x.device)
    to_x = torch.empty_like(x)
    to_current = torch.empty_like(x) if to_residual else None
    given = grad, x, scale, shift, residual, *_start(v_init), None
    options = *x.shape[1:], decay, threshold, *_reset(v_reset), *_form(surrogate)
    more = {"T": len(x), "DETACH_RESET": detach_reset, "DETACH_MEMBRANE": detach_membrane, **sizes}
    with _on(x):
        gradient_kernel[grid](*given, None, None, channels, parts, None, None, *options, **more)
        sums = parts.view(2, -1, len(mean)).sum(1)
        means = sums / count
        means[1] *= inv_std.square()
        shares = means.repeat(1, rows // len(mean)) if by_row else means
        gradient_kernel[grid](*given, to_current, None, channels, None, shares, to_x, *options, **more)
    return to_x, to_current, sums[0], sums[1]


def respond(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    segments: int,
    v_init: float,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
) -> tuple[Tensor, Tensor]:
    """Spikes, like x, and what the mean rate of each of m segments of one length owes to its currents, `[m, rows, values]`."""
    spikes = torch.empty_like(x)
    answer = torch.empty(segments, *x.shape[1:], dtype=scale.dtype, device=x.device)
    grid, sizes = _tiles(x, scale)
    with _on(x):
        respond_kernel[grid](
            x, scale, shift, residual, *_start(v_init), spikes, answer, *x.shape[1:],
            decay, threshold, *_reset(v_reset), *_form(surrogate),
            M=segments, LENGTH=len(x) // segments, DETACH_RESET=detach_reset, **sizes,
        )  # fmt: skip
    return spikes, answer


def unpack(bits: Tensor, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """Zeros and ones `[stop - start, ...]` of timesteps within the bits `[ceil(T / 8), ...]`, which have no gaps."""
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
    """Launches go to the device of x."""
    return torch.cuda.device_of(x)


def _tiles(x: Tensor, scale: Tensor) -> tuple[tuple[int], dict[str, Any]]:
    """How many programs there are, and the tile that each of them has."""
    _, rows, values = x.shape
    across = min(1 << (values - 1).bit_length(), _TILE)
    down = _TILE // across
    grid = (_tiles_in(rows, down) * _tiles_in(values, across),)
    return grid, {"BY_ROW": scale.ndim == 2, "ROWS": down, "VALUES": across}


def _start(membrane: float | Tensor) -> tuple[Tensor | None, float]:
    return (membrane, 0.0) if isinstance(membrane, Tensor) else (None, float(membrane))


def _reset(v_reset: float | None) -> tuple[float, bool]:
    return (0.0, False) if v_reset is None else (float(v_reset), True)


def _form(surrogate: Surrogate) -> tuple[str, float, float, float]:
    return _FORMS[surrogate]
