"""The dynamics of a whole sequence as one loop forward and one backward, to be compiled: each reads and writes every timestep once.

The loops run on sequences as they lie in memory (`memory_format.py`), a block of timesteps at a time: more would overflow the
registers, and the same neurons at many timesteps, read side by side, the cache. Backward, a block's membranes are computed again.

The compiler joins loops over the same axes alone, others go through memory: a unit, ones like the scale, gives every value the axes
of the scale.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiler import applies, compiled
from .memory_format import as_shown, as_stored, per_channel
from .packed import PackedSpikes, pack, unpack
from .surrogate import Surrogate

# Timesteps of a block, at most; a multiple of 8, the timesteps in a byte of spikes.
BLOCK = 8


def fused_lif(
    current: Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    v_init: float,
    detach_membrane: bool,
) -> tuple[Tensor, PackedSpikes]:
    """`lif` without its checks, for plain numbers: the spikes, and the same in bits without a graph."""
    options = decay, threshold, v_reset, detach_reset, derivative, v_init, detach_membrane
    spikes, bits = _FusedLIF.apply(current, *options)
    return spikes, PackedSpikes(len(spikes), bits)


class _FusedLIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
        stored = as_stored(current, current)
        scale, shift = unit_norm(current)
        spikes, bits, starts = fire_sequence(stored, scale, shift, None, options, for_gradient=ctx.needs_input_grad[0])
        bits = as_shown(bits, current)
        ctx.mark_non_differentiable(bits)
        ctx.save_for_backward(current, *starts)
        ctx.options = options
        return as_shown(spikes, current), bits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        current, *starts = ctx.saved_tensors
        stored, grad = as_stored(current, current), as_stored(grads[0], current)
        to_current = gradient_through_time(grad, stored, *unit_norm(current), None, starts, ctx.options)
        return as_shown(to_current, current), *[None] * len(ctx.options)


def unit_norm(current: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and shift of currents that are what they are: one compiled loop serves them and those of a batch-norm."""
    precision = torch.promote_types(current.dtype, torch.float32)
    channels = current.shape[2] if current.ndim > 3 else 1
    ones = per_channel(torch.ones(channels, dtype=precision, device=current.device), current)
    return ones, torch.zeros_like(ones)


def fire_sequence(
    x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None, options: tuple[Any, ...], *, for_gradient: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Spikes like x, the same in bits, and what else their gradient needs.

    Args:
        x: `[T, ...]` as stored; the currents are x * scale + shift + residual.
        scale, shift: what broadcasts over a timestep of x.
        residual: like x, or its spikes in bits, or None.
        options: decay, threshold, v_reset, detach_reset, derivative, v_init, detach_membrane.

    Returns:
        The spikes; in bits; for a gradient the membrane at the start of each block but the first.
    """
    decay, threshold, v_reset, _, _, v_init, _ = options
    run: Callable[..., Any] = compiled(_fire) if applies(x) else _fire
    spikes, unit = torch.empty_like(x), torch.ones_like(scale)
    membrane: Any = _of_one_timestep(x, scale.dtype, v_init)
    bits: list[Tensor] = []
    starts: list[Tensor] = []
    for out, part, more in zip(*(_blocks(each, len(x)) for each in (spikes, x, residual)), strict=True):
        if for_gradient and bits:
            starts.append(membrane)
        packed, membrane = run(out.unbind(0), part, scale, shift, more, unit, membrane, decay, threshold, v_reset)
        bits.append(packed)
    return spikes, bits[0] if len(bits) == 1 else torch.cat(bits), starts


def gradient_through_time(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    starts: Sequence[Tensor],
    options: tuple[Any, ...],
) -> Tensor:
    """Gradient to the currents, like x, from that to the spikes; the other arguments as `fire_sequence` took and returned them."""
    *numbers, v_init, detach_membrane = options
    run: Callable[..., Any] = compiled(_gradient_of_block) if applies(x) else _gradient_of_block
    to_current, unit = torch.empty_like(grad), torch.ones_like(scale)
    membranes = [_of_one_timestep(x, scale.dtype, v_init), *starts]
    ahead = torch.zeros_like(starts[0]) if starts else None
    parts = zip(*(_blocks(each, len(x)) for each in (to_current, grad, x, residual)), membranes, strict=True)
    for out, grad_part, x_part, more, membrane in reversed(list(parts)):
        outs = out.unbind(0)
        ahead = run(outs, grad_part, x_part, scale, shift, more, unit, membrane, ahead, *numbers, detach_membrane)
    return to_current


def _of_one_timestep(x: Tensor, dtype: torch.dtype, value: float) -> float | Tensor:
    """The value, for every neuron where there are several blocks: the loop of the first is then that of the others."""
    return value if len(x) <= BLOCK else torch.full_like(x[0], value, dtype=dtype)


def _blocks(sequence: Tensor | None, timesteps: int) -> Sequence[Any]:
    """The parts of a sequence, or of its spikes in bits."""
    if sequence is None:
        return [None] * -(-timesteps // BLOCK)
    return sequence.split(BLOCK // 8 if sequence.dtype == torch.uint8 else BLOCK)


def currents_of(x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None) -> list[Tensor]:
    """The currents x * scale + shift + residual of every timestep, in the precision of the scale.

    Args:
        x: `[T, ...]` as stored.
        scale, shift: what broadcasts over a timestep of x.
        residual: like x, or its spikes in bits, or None.
    """
    scaled = [x_t.to(scale.dtype) * scale + shift for x_t in x.unbind(0)]
    if residual is None:
        return scaled
    packed = residual.dtype == torch.uint8
    more = unpack(residual, 0, len(x), scale.dtype) if packed else residual.unbind(0)
    return [one + more_t.to(scale.dtype) for one, more_t in zip(scaled, more, strict=True)]


def _fire(
    spikes: Sequence[Tensor],
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    unit: Tensor,
    membrane: float | Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
) -> tuple[Tensor, Tensor | None]:
    """Spikes of a block of timesteps, written where they belong.

    Args:
        spikes: of each timestep, to be written.
        unit: ones like the scale.
        membrane: that before the first timestep.

    Returns:
        The spikes in bits; the membrane after the last timestep, None where that before the first was a number.
    """
    currents = currents_of(x, scale, shift, residual)
    fired, _, after = _dynamics(currents, _like(currents[0], membrane), decay, threshold, v_reset)
    for out, fired_t in zip(spikes, fired, strict=True):
        out.copy_(fired_t)
    return pack(fired, unit), after[-1] if isinstance(membrane, Tensor) else None


def fire_once(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
) -> tuple[Tensor, Tensor]:
    """One timestep, `[1, ...]` as stored: the spikes like x, and the membrane after them in the precision of the scale."""
    currents = currents_of(x, scale, shift, residual)
    (spikes,), _, (after,) = _dynamics(currents, membrane[0], decay, threshold, v_reset)
    return spikes.to(x.dtype).unsqueeze(0), after.unsqueeze(0)


def _dynamics(
    currents: list[Tensor], membrane: Tensor, decay: float, threshold: float, v_reset: float | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Spikes, and the membranes before and after them, of every timestep."""
    spikes, before, after = [], [], []
    for current in currents:
        u = decay * membrane + current
        distance = u - threshold
        fires = distance >= 0
        membrane = torch.where(fires, distance if v_reset is None else v_reset, u)
        spikes.append(fires.to(u.dtype))
        before.append(u)
        after.append(membrane)
    return spikes, before, after


def _gradient_of_block(
    to_current: Sequence[Tensor],
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    unit: Tensor,
    membrane: float | Tensor,
    ahead: Tensor | None,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    detach_membrane: bool,
) -> Tensor | None:
    """Gradient to the currents of a block of timesteps: the membranes once more, then the chain rule backwards through time.

    Args:
        to_current: that gradient of each timestep, to be written.
        unit: ones like the scale.
        membrane: that before the first timestep.
        ahead: gradient to the membrane after the last, None where there is nothing ahead.

    Returns:
        The gradient to the membrane before the first timestep; None where there is nothing ahead, and so nothing behind.
    """
    currents = currents_of(x, scale, shift, residual)
    _, before, _ = _dynamics(currents, _like(currents[0], membrane), decay, threshold, v_reset)
    to_membrane = torch.zeros_like(before[0]) if ahead is None else ahead
    for out, grad_t, u_t in zip(to_current[::-1], grad.unbind(0)[::-1], before[::-1], strict=True):
        to_spikes, distance = grad_t.to(u_t.dtype), u_t - threshold
        if not detach_reset:
            to_spikes = to_spikes + to_membrane * (-threshold if v_reset is None else v_reset - u_t)
        survives = to_membrane if v_reset is None else torch.where(distance >= 0, 0.0, to_membrane)
        to_u = survives + to_spikes * (derivative(distance) * unit)
        out.copy_(to_u)
        to_membrane = torch.zeros_like(to_u) if detach_membrane else decay * to_u
    return None if ahead is None else to_membrane


def _like(current: Tensor, membrane: float | Tensor) -> Tensor:
    return membrane if isinstance(membrane, Tensor) else torch.full_like(current, membrane)
