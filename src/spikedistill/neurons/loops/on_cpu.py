"""The dynamics of a sequence on a CPU, by the loops of `cpu_kernels.cpp`; its functions are those of `on_gpu.py`.

The loops are compiled once on a machine, in some seconds, and kept. Sequences come in their memory layout, `[T, rows, values]`
(`memory_format.py`), in float32 or bfloat16.
"""

import ctypes
import functools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...native import DTYPES, call, check_compiler, library
from ..neuron import Neuron
from ..surrogate import known_form

_SOURCE = Path(__file__).with_name("cpu_kernels.cpp")

# The most timesteps of a block.
BLOCK = 8

LONGEST = sys.maxsize


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
    only_bits: bool = False,
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """`on_gpu.fire`; with `only_bits` no spikes but their bits."""
    T = timesteps or len(x)
    spikes = None if only_bits else x.new_empty(T, *x.shape[1:]) if into is None else into
    bits = torch.empty(1, *x.shape[1:], dtype=torch.uint8, device=x.device)
    after = torch.empty_like(membrane) if isinstance(membrane, Tensor) else None
    loops = _loops(x.dtype, T, neuron.v_reset is not None)
    call(
        loops.fire, *_sequence(T, x, scale, shift, residual), *_numbers(neuron), *_start(membrane), spikes, bits, after
    )
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
    """`on_gpu.gradient`."""
    to_current = torch.empty_like(x) if into is None else into
    behind = None if ahead is None else torch.empty_like(ahead)
    rest = ahead, to_current, behind, 0, *[None] * 5
    _back(grad, x, scale, shift, residual, membrane, neuron, detach_membrane, *rest)
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
    """`on_gpu.gradient_through_norm`. The first pass writes the gradient with respect to the currents, and the second reads it."""
    to_x, to_current = torch.empty_like(x), torch.empty_like(x) if to_residual else None
    to_weight, to_bias = torch.empty_like(mean), torch.empty_like(mean)
    rest = None, to_current, None, len(mean), mean, inv_std, to_x, to_weight, to_bias
    _back(grad, x, scale, shift, residual, neuron.v_init, neuron, detach_membrane, *rest)
    return to_x, to_current, to_weight, to_bias


def _back(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    neuron: Neuron,
    detach_membrane: bool,
    *rest: Any,
) -> None:
    """Call the backward loop; `rest` are its arguments after the gradient with respect to the spikes."""
    form = known_form(neuron.derivative)
    loops = _loops(x.dtype, len(grad), neuron.v_reset is not None, neuron.detach_reset, form.name)
    numbers = *_numbers(neuron), *_start(membrane), *form[1:], detach_membrane
    call(loops.gradient, *_sequence(len(grad), x, scale, shift, residual), *numbers, grad, *rest)


def statistics(
    x: Tensor,
    channels: int,
    by_row: bool,
    eps: float,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """`on_gpu.statistics`."""
    mean, inv_std = torch.empty(2, channels, dtype=torch.float32, device=x.device).unbind()
    running = running_mean, running_var, float(momentum)
    loops = _loops(x.dtype, min(len(x), BLOCK))
    call(loops.statistics, torch.get_num_threads(), *x.shape, by_row, x, channels, float(eps), *running, mean, inv_std)
    return mean, inv_std


def respond(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    segments: int,
    neuron: Neuron,
    *,
    timesteps: int | None = None,
    only_bits: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`on_gpu.respond`; with `only_bits` the spikes of at most 8 timesteps come in bits, `[1, ...]`."""
    T = timesteps or len(x)
    length = T // segments
    block = next(size for size in range(BLOCK, 0, -1) if length % size == 0)
    spikes, rates = (x.new_empty(count, *x.shape[1:]) for count in (0 if only_bits else T, segments))
    bits = torch.empty(1, *x.shape[1:], dtype=torch.uint8) if only_bits else None
    answer = torch.empty(segments, *x.shape[1:], dtype=scale.dtype, device=x.device)
    form = known_form(neuron.derivative)
    numbers = *_numbers(neuron), float(neuron.v_init), *form[1:]
    loops = _loops(x.dtype, block, neuron.v_reset is not None, neuron.detach_reset, form.name)
    sizes = segments, length // block
    call(loops.respond, *_sequence(T, x, scale, shift, residual), *numbers, *sizes, spikes, bits, rates, answer)
    return spikes if bits is None else bits, rates, answer


def unpack(bits: Tensor, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """`on_gpu.unpack`."""
    spikes = torch.empty(stop - start, *bits.shape[1:], dtype=dtype, device=bits.device)
    loops = _loops(dtype, min(len(spikes), BLOCK))
    call(loops.unpack, torch.get_num_threads(), start, stop, bits[0].numel(), bits, spikes)
    return spikes


def _sequence(T: int, x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None) -> tuple[Any, ...]:
    """The first arguments of a loop over timesteps."""
    assert scale.dtype == shift.dtype == torch.float32
    assert scale.numel() == shift.numel() == x.shape[1 if scale.ndim == 2 else 2]
    in_bits = residual is not None and residual.dtype == torch.uint8
    assert residual is None or in_bits or residual.dtype == x.dtype
    return torch.get_num_threads(), len(x) < T, *x.shape[1:], scale.ndim == 2, x, scale, shift, residual, in_bits


def _numbers(neuron: Neuron) -> tuple[float, float, float]:
    return float(neuron.decay), float(neuron.threshold), float(neuron.v_reset or 0)


def _start(membrane: float | Tensor) -> tuple[Tensor | None, float]:
    return (membrane, 0.0) if isinstance(membrane, Tensor) else (None, float(membrane))


def check() -> None:
    """Compile loops and run one.

    Raises:
        OSError: if there is no compiler, or the library cannot be loaded.
    """
    check_compiler()
    unpack(torch.ones(1, 1, 1, dtype=torch.uint8, device="cpu"), 0, 1, torch.float32)


@functools.cache
def _loops(
    dtype: torch.dtype, timesteps: int, hard: bool = False, detach_reset: bool = False, form: str = "logistic"
) -> ctypes.CDLL:
    """The loops for one kind of neuron and so many timesteps, from the cache or compiled."""
    values = {"VALUE": DTYPES[dtype], "TIMESTEPS": timesteps, "HARD": int(hard), "DETACH_RESET": int(detach_reset)}
    values |= {"FORM": form.upper()}
    return library(_SOURCE, values)
