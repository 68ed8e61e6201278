"""The dynamics of a whole sequence as one loop forward and one backward, to be compiled: each reads and writes every timestep once.

The loops run on sequences as they lie in memory (`memory_format.py`). Backward, the membranes are computed again from the currents,
a block of timesteps at a time: of more, the registers would overflow.

The compiler joins loops over the same axes alone, others go through memory: a unit, ones like the scale, gives every value the axes
of the scale.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiler import applies, compiled
from .memory_format import as_shown, as_stored, per_channel
from .packed import PackedSpikes, pack, unpack
from .surrogate import Surrogate

# Timesteps of a block of the backward loop, at most.
BLOCK = 16


def fused_lif(
    current: Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    v_init: float,
    detach_membrane: bool,
) -> Tensor:
    """`lif` without its checks, for plain numbers."""
    return _FusedLIF.apply(current, decay, threshold, v_reset, detach_reset, derivative, v_init, detach_membrane)


class _FusedLIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, *options: Any) -> Tensor:
        stored = as_stored(current, current)
        scale, shift = unit_norm(current)
        spikes, _, starts = fire_sequence(stored, scale, shift, None, options, for_gradient=ctx.needs_input_grad[0])
        ctx.save_for_backward(current, starts)
        ctx.options = options
        return as_shown(spikes, current)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        current, starts = ctx.saved_tensors
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
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    options: tuple[Any, ...],
    *,
    for_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes like x, the same in bits, and what else their gradient needs.

    Args:
        x: `[T, ...]` as stored; the currents are x * scale + shift + residual.
        scale, shift: what broadcasts over a timestep of x.
        residual: like x, or None.
        options: decay, threshold, v_reset, detach_reset, derivative, v_init, detach_membrane.

    Returns:
        The spikes; in bits; for a gradient the membranes `[blocks - 1, ...]` at the start of each block but the first, None where
        there is one block.
    """
    decay, threshold, v_reset, _, _, v_init, _ = options
    run = compiled(_fire) if applies(x) else _fire
    unit = torch.ones_like(scale)
    blocks = tuple(_block_sizes(len(x))) if for_gradient else ()
    return run(x, scale, shift, residual, unit, decay, threshold, v_reset, v_init, blocks)


def gradient_through_time(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | PackedSpikes | None,
    starts: Tensor | None,
    options: tuple[Any, ...],
) -> Tensor:
    """Gradient to the currents, like x, from that to the spikes; the other arguments as `fire_sequence` took and returned them."""
    *numbers, v_init, detach_membrane = options
    first, found = len(x), []
    unit = torch.ones_like(scale)
    membranes: list[Any] = [v_init] if starts is None else [torch.full_like(starts[0], v_init), *starts.unbind(0)]
    ahead = None if starts is None else torch.zeros_like(starts[0])
    parts = [each.split(_block_sizes(len(x))) for each in (grad, x)]
    run: Callable[..., Any] = compiled(_gradient_of_block) if applies(x) else _gradient_of_block
    for grad_part, x_part, membrane in reversed(list(zip(*parts, membranes, strict=True))):
        first -= len(x_part)
        more, offset = _residual_of(residual, first, len(x_part))
        to_current, ahead = run(
            grad_part, x_part, scale, shift, more, offset, unit, membrane, ahead, *numbers, detach_membrane
        )
        found.append(to_current)
    return found[0] if len(found) == 1 else torch.cat(found[::-1])


def _block_sizes(timesteps: int) -> list[int]:
    """Timesteps of each block, as even as can be."""
    blocks = -(-timesteps // BLOCK)
    short, longer = divmod(timesteps, blocks)
    return [short + 1] * longer + [short] * (blocks - longer)


def _residual_of(residual: Tensor | PackedSpikes | None, first: int, count: int) -> tuple[Tensor | None, int]:
    """The residual of some timesteps, or the bytes that hold it and the bit at which they begin."""
    if isinstance(residual, PackedSpikes):
        return residual.bits[first // 8 : -(-(first + count) // 8)], first % 8
    return (None if residual is None else residual[first : first + count]), 0


def currents_of(x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None, offset: int = 0) -> list[Tensor]:
    """The currents x * scale + shift + residual of every timestep, in the precision of the scale.

    Args:
        x: `[T, ...]` as stored.
        scale, shift: what broadcasts over a timestep of x.
        residual: like x, or its spikes in bits, or None.
        offset: the first of these bits.
    """
    scaled = [x_t.to(scale.dtype) * scale + shift for x_t in x.unbind(0)]
    if residual is None:
        return scaled
    packed = residual.dtype == torch.uint8
    more = unpack(residual, offset, len(x), scale.dtype) if packed else residual.unbind(0)
    return [one + more_t.to(scale.dtype) for one, more_t in zip(scaled, more, strict=True)]


def _fire(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    unit: Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
    v_init: float,
    blocks: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor | None]:
    currents = currents_of(x, scale, shift, residual)
    spikes, _, after = _dynamics(currents, torch.full_like(currents[0], v_init), decay, threshold, v_reset)
    starts = [after[sum(blocks[:i]) - 1] for i in range(1, len(blocks))]
    return (
        torch.stack([fired.to(x.dtype) for fired in spikes]),
        pack(spikes, unit),
        torch.stack(starts) if starts else None,
    )


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
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    offset: int,
    unit: Tensor,
    membrane: float | Tensor,
    ahead: Tensor | None,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    detach_membrane: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradient to the currents of some timesteps: the membranes once more, then the chain rule backwards through time.

    Args:
        unit: ones like the scale.
        membrane: that before the first of them.
        ahead: gradient to the membrane after the last, None where there is nothing ahead.

    Returns:
        That gradient, like x, and the one to the membrane before the first timestep; None where there is nothing ahead, and so
        nothing behind.
    """
    currents = currents_of(x, scale, shift, residual, offset)
    start = membrane if isinstance(membrane, Tensor) else torch.full_like(currents[0], membrane)
    _, before, _ = _dynamics(currents, start, decay, threshold, v_reset)
    to_membrane = torch.zeros_like(before[0]) if ahead is None else ahead
    to_current = []
    for grad_t, u_t in zip(grad.unbind(0)[::-1], before[::-1], strict=True):
        to_spikes, distance = grad_t.to(u_t.dtype), u_t - threshold
        if not detach_reset:
            to_spikes = to_spikes + to_membrane * (-threshold if v_reset is None else v_reset - u_t)
        survives = to_membrane if v_reset is None else torch.where(distance >= 0, 0.0, to_membrane)
        to_u = survives + to_spikes * (derivative(distance) * unit)
        to_current.append(to_u.to(grad_t.dtype))
        to_membrane = torch.zeros_like(to_u) if detach_membrane else decay * to_u
    return torch.stack(to_current[::-1]), None if ahead is None else to_membrane
