"""The dynamics of a sequence as a loop forward and one backward, to be compiled: each reads and writes every timestep once.

The loops run on sequences in their memory layout (`memory_format.py`), one block of timesteps at a time: more does not fit into
registers, and one neuron's values at many timesteps compete for the same few cache lines. The backward loop recomputes the
membranes of a block.

The compiler fuses only loops over the same axes; others go through memory. Multiplying by a unit, ones like the scale, gives every
value the axes of the scale.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..neuron import Neuron
from .memory_format import as_shown, as_stored, is_channels_last, per_channel
from .packed import PackedSpikes, SpikesInBits, carrier, pack
from .paths import Path, on_path, path_for

# The most timesteps of a block; a multiple of 8, because a byte holds the spikes of 8 timesteps.
BLOCK = 8


def fused_lif(
    current: Tensor, timesteps: int, neuron: Neuron, detach_membrane: bool, path: Path, *, only_bits: bool = False
) -> tuple[Tensor | SpikesInBits, PackedSpikes]:
    """`lif` without its checks, for a neuron of numbers. Returns the spikes, and the same spikes packed into bits, without graph.

    Args:
        current: `[T, B, ...]`, or `[1, B, ...]` if it is the same at all timesteps.
        timesteps: T.
        path: of these currents.
        only_bits: return `SpikesInBits`, where the kernel can and layers on spikes would read them.
    """
    only_bits = only_bits and may_write_only_bits(current, timesteps, path)
    if len(current) < timesteps and (path.kernels is None or timesteps > BLOCK):
        current = current.expand(timesteps, *current.shape[1:])
    spikes, bits = _FusedLIF.apply(current, timesteps, neuron, detach_membrane, path, only_bits)
    packed = PackedSpikes(timesteps, bits)
    return SpikesInBits(spikes, packed) if only_bits else spikes, packed


def may_write_only_bits(x: Tensor, timesteps: int, path: Path) -> bool:
    """Whether the kernel can write spikes in bits only, in the order of memory in which layers on spikes read them."""
    return path.name == "C++" and timesteps <= BLOCK and is_channels_last(x)


class _FusedLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, current: Tensor, timesteps: int, neuron: Neuron, detach_membrane: bool, path: Path, only_bits: bool
    ) -> tuple[Tensor, Tensor]:
        stored, norm = as_stored(current, current), unit_norm(current)
        starts: list[Tensor] = []
        if len(current) == timesteps:
            for_gradient = ctx.needs_input_grad[0]
            spikes, bits, starts = fire_sequence(
                stored, *norm, None, neuron, path, for_gradient=for_gradient, only_bits=only_bits
            )
        else:
            assert path.kernels is not None
            more = {"only_bits": True} if only_bits else {}
            given = None, stored, *norm, None, neuron.v_init, neuron
            spikes, bits, _ = path.kernels.fire(*given, timesteps=timesteps, **more)
        bits = as_shown(bits, current)
        ctx.mark_non_differentiable(bits)
        ctx.set_materialize_grads(False)  # of zeros, for the bits
        ctx.save_for_backward(current, *starts)
        ctx.neuron, ctx.detach_membrane = neuron, detach_membrane
        return carrier(current, timesteps) if spikes is None else as_shown(spikes, current), bits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return (None,) * 6
        current, *starts = ctx.saved_tensors
        stored, grad, norm = as_stored(current, current), as_stored(grads[0], current), unit_norm(current)
        neuron, detach_membrane = ctx.neuron, ctx.detach_membrane
        times = len(grad) // len(current)
        path = path_for(current, neuron, times)  # again, because a dispatch mode may be active now
        if times > 1 and path.kernels is not None:
            given = grad, stored, *norm, None, neuron.v_init, None, neuron, detach_membrane
            to_current, _ = path.kernels.gradient(None, *given)
        else:
            at_each = stored.expand_as(grad)
            to_current = gradient_through_time(grad, at_each, *norm, None, starts, neuron, detach_membrane, path)
            to_current = to_current.sum(0, keepdim=True) if times > 1 else to_current
        return as_shown(to_current, current), None, None, None, None, None


def unit_norm(current: Tensor) -> tuple[Tensor, Tensor]:
    """Scale one and shift zero, with which one compiled loop computes plain currents as well as those of a batch-norm."""
    precision = torch.promote_types(current.dtype, torch.float32)
    channels = current.shape[2] if current.ndim > 3 else 1
    ones = per_channel(torch.ones(channels, dtype=precision, device=current.device), current)
    return ones, torch.zeros_like(ones)


def fire_sequence(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    neuron: Neuron,
    path: Path,
    *,
    for_gradient: bool,
    only_bits: bool = False,
) -> tuple[Tensor | None, Tensor, list[Tensor]]:
    """Compute spikes like x, the same packed into bits, and what their gradient needs.

    Args:
        x: `[T, ...]` as stored; the currents are x * scale + shift + residual.
        scale, shift: tensors that broadcast over a timestep of x.
        residual: like x, or None.
        neuron: of numbers only.
        path: of x.
        only_bits: see `may_write_only_bits`.

    Returns:
        The spikes, or None with `only_bits`; the packed spikes; for a gradient, the membranes at the start of each block except the
        first.
    """
    run = path.kernels.fire if path.kernels else _with_unit(_fire, scale, path)
    if len(x) <= BLOCK:
        options = {"only_bits": True} if only_bits else {}
        spikes, bits, _ = run(None, x, scale, shift, residual, neuron.v_init, neuron, **options)
        return spikes, bits, []
    spikes, membrane = torch.empty_like(x), torch.full_like(x[0], _number(neuron.v_init), dtype=scale.dtype)
    words: list[Tensor] = []
    starts: list[Tensor] = []
    for first in range(0, len(x), BLOCK):
        if for_gradient and words:
            starts.append(membrane)
        out, part = (each[first : first + BLOCK] for each in (spikes, x))
        more = None if residual is None else residual[first : first + BLOCK]
        _, word, membrane = run(out, part, scale, shift, more, membrane, neuron)
        words.append(word)
    return spikes, torch.cat(words), starts


def gradient_through_time(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | PackedSpikes | None,
    starts: Sequence[Tensor],
    neuron: Neuron,
    detach_membrane: bool,
    path: Path,
) -> Tensor:
    """Compute the gradient with respect to the currents, like x, from the gradient with respect to the spikes.

    Args:
        residual: like x, or packed spikes.

    The other arguments are those of `fire_sequence`, and what it returned.
    """
    run = path.kernels.gradient if path.kernels else _with_unit(_gradient_of_block, scale, path)

    def part_of_residual(first: int, stop: int) -> Tensor | None:
        if isinstance(residual, PackedSpikes):
            bits = residual.bits
            return bits[first // 8].unsqueeze(0) if path.kernels else residual.read(first, stop, x.dtype)
        return None if residual is None else residual[first:stop]

    if not starts:
        more = part_of_residual(0, len(x))
        return run(None, grad, x, scale, shift, more, neuron.v_init, None, neuron, detach_membrane)[0]
    # so that one compiled loop serves the first and last block too
    membranes, ahead = [torch.full_like(starts[0], _number(neuron.v_init)), *starts], torch.zeros_like(starts[0])
    to_current = torch.empty_like(grad)
    for first in reversed(range(0, len(x), BLOCK)):
        stop = min(first + BLOCK, len(x))
        out, grad_part, x_part = (each[first:stop] for each in (to_current, grad, x))
        more, start = part_of_residual(first, stop), membranes.pop()
        _, ahead = run(out, grad_part, x_part, scale, shift, more, start, ahead, neuron, detach_membrane)
    return to_current


def _number(option: float | Tensor) -> float:
    assert not isinstance(option, Tensor)
    return option


def _with_unit(function: Callable[..., Any], scale: Tensor, path: Path) -> Callable[..., Any]:
    """The loop, compiled if that is the path, with its argument `unit` filled in, and with one tensor as `into`."""
    run, unit = on_path(path, function), torch.ones_like(scale)

    def loop(into: Tensor | None, *arguments: Any) -> Any:
        return run(None if into is None else into.unbind(0), unit, *arguments)

    return loop


def currents_of(x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None) -> list[Tensor]:
    """The currents x * scale + shift + residual of every timestep, in the precision of the scale.

    Args:
        x: `[T, ...]` as stored.
        scale, shift: tensors that broadcast over a timestep of x.
        residual: like x, or None.
    """
    scaled = [x_t.to(scale.dtype) * scale + shift for x_t in x.unbind(0)]
    if residual is None:
        return scaled
    return [one + more.to(scale.dtype) for one, more in zip(scaled, residual.unbind(0), strict=True)]


def _fire(
    into: Sequence[Tensor] | None,
    unit: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    neuron: Neuron,
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Compute the spikes of a block of timesteps.

    Args:
        into: tensors to write each timestep's spikes into; None makes a new tensor.
        unit: ones like the scale.
        membrane: before the first timestep.

    Returns:
        The spikes, like x; the packed spikes; the membrane after the last timestep, or None if `membrane` is a number.
    """
    currents = currents_of(x, scale, shift, residual)
    fired, _, after = _dynamics(currents, _start(membrane, currents[0]), neuron)
    spikes = _joined(fired, x.dtype, into)
    return spikes, pack(fired, unit), after[-1] if isinstance(membrane, Tensor) else None


def fire_once(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: Tensor,
    neuron: Neuron,
) -> tuple[Tensor, Tensor]:
    """One timestep, `[1, ...]` as stored: the spikes like x, and the membrane after them in the precision of the scale."""
    currents = currents_of(x, scale, shift, residual)
    (spikes,), _, (after,) = _dynamics(currents, membrane[0], neuron)
    return spikes.to(x.dtype).unsqueeze(0), after.unsqueeze(0)


def _dynamics(
    currents: list[Tensor], membrane: Tensor, neuron: Neuron
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Spikes, and the membranes before and after them, of every timestep."""
    spikes, before, after = [], [], []
    for current in currents:
        u = neuron.integrate(current, membrane)
        fired = (u - neuron.threshold >= 0).to(u.dtype)
        membrane = neuron.reset(u, fired)
        spikes.append(fired)
        before.append(u)
        after.append(membrane)
    return spikes, before, after


def _gradient_of_block(
    into: Sequence[Tensor] | None,
    unit: Tensor,
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    ahead: Tensor | None,
    neuron: Neuron,
    detach_membrane: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradient of a block's currents: recompute the membranes, then apply the chain rule back in time.

    Args:
        into: tensors to write each timestep's gradient into; None makes a new tensor.
        unit: ones like the scale.
        membrane: before the first timestep.
        ahead: gradient with respect to the membrane after the last timestep; None if the sequence is one block.

    Returns:
        The gradient, like x; the gradient with respect to the membrane before the first timestep, or None if `ahead` is None.
    """
    currents = currents_of(x, scale, shift, residual)
    _, before, _ = _dynamics(currents, _start(membrane, currents[0]), neuron)
    to_membrane = torch.zeros_like(before[0]) if ahead is None else ahead
    threshold, v_reset = neuron.threshold, neuron.v_reset
    found = []
    for grad_t, u_t in zip(grad.unbind(0)[::-1], before[::-1], strict=True):
        to_spikes, distance = grad_t.to(u_t.dtype), u_t - threshold
        if not neuron.detach_reset:
            to_spikes = to_spikes + to_membrane * (-threshold if v_reset is None else v_reset - u_t)
        survives = to_membrane if v_reset is None else torch.where(distance >= 0, 0.0, to_membrane)
        to_u = survives + to_spikes * (neuron.derivative(distance) * unit)
        found.append(to_u)
        to_membrane = torch.zeros_like(to_u) if detach_membrane else neuron.decay * to_u
    return _joined(found[::-1], grad.dtype, into), None if ahead is None else to_membrane


def _joined(values: list[Tensor], dtype: torch.dtype, into: Sequence[Tensor] | None) -> Tensor | None:
    """Stack the values of some timesteps, or write them into the given tensors and return None."""
    if into is None:
        return torch.stack([value.to(dtype) for value in values])
    for out, value in zip(into, values, strict=True):
        out.copy_(value)
    return None


def _start(membrane: float | Tensor, current: Tensor) -> Tensor:
    return membrane if isinstance(membrane, Tensor) else torch.full_like(current, membrane)
