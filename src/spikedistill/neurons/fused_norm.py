"""Batch-norm and neurons in one compiled loop: neither the normalised currents nor the membranes are written to memory.

The backward loop computes the membranes again from the input of the batch-norm, which is all that it keeps beside the residual.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiler import applies, compiled
from .fused import fire_once, fire_sequence, gradient_through_time
from .memory_format import as_shown, as_stored, is_dense, per_channel
from .packed import PackedSpikes
from .surrogate import Surrogate


@dataclass(frozen=True)
class NormalisedCurrent:
    """Currents `[T, B, C, ...]` that are not computed yet: weight * (x - mean) * inv_std + bias + residual.

    Attributes:
        x: `[T, B, C, ...]`.
        weight, bias: `[C]`, or None.
        mean, inv_std: `[C]` in float32 or better, without graph.
        batch: whether they are the statistics of x itself, whose gradient then counts.
        residual: of the shape of x; None where there is none.
        residual_spikes: the residual's spikes in bits, to keep in its place; None where it is something else.
        again: computes x once more, to be called backward in place of keeping it; None where x is kept.
    """

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    inv_std: Tensor
    eps: float
    batch: bool
    residual: Tensor | None = None
    residual_spikes: PackedSpikes | None = None
    again: Callable[[], Tensor] | None = None

    @property
    def requires_grad(self) -> bool:
        return any(part is not None and part.requires_grad for part in (self.x, self.weight, self.bias, self.residual))

    def detached(self) -> "NormalisedCurrent":
        """The same with parameters that take no part in a graph."""
        weight, bias = (None if part is None else part.detach() for part in (self.weight, self.bias))
        return replace(self, weight=weight, bias=bias)

    def plus(self, residual: Tensor, residual_spikes: PackedSpikes | None) -> "NormalisedCurrent":
        return replace(self, residual=residual, residual_spikes=residual_spikes)

    def value(self) -> Tensor:
        """The currents, for whatever is not a layer of neurons."""
        mean, var = (None, None) if self.batch else (self.mean, self.inv_std.square().reciprocal() - self.eps)
        weight, bias = self.weight, self.bias
        if mean is not None:  # the kernel wants its parameters in the dtype of the statistics
            weight, bias = (None if part is None else part.to(mean.dtype) for part in (weight, bias))
        folded = F.batch_norm(self.x.flatten(0, 1), mean, var, weight, bias, self.batch, 0.0, self.eps)
        out = folded.unflatten(0, self.x.shape[:2])
        return out if self.residual is None else out + self.residual

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What broadcasts over a timestep of x as stored, in the precision of the statistics."""
        scale = self.inv_std if self.weight is None else self.inv_std * self.weight.detach()
        shift = -self.mean * scale if self.bias is None else self.bias.detach() - self.mean * scale
        return per_channel(scale, self.x), per_channel(shift, self.x)


def can_wait(x: Tensor, times: int = 1) -> bool:
    """Whether the normalisation of `times` as much as `[T, B, C, ...]` is worth putting off until neurons ask for it."""
    return may_wait(x) and applies(x, times)


def may_wait(x: Tensor) -> bool:
    """Whether the normalisation of `[T, B, C, ...]` can be put off at all."""
    return x.ndim > 3 and is_dense(x)


def fused_norm_lif(
    current: NormalisedCurrent,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    v_init: float,
    detach_membrane: bool,
) -> tuple[Tensor, PackedSpikes]:
    """`lif` of currents that are not computed yet: the spikes, and the same in bits without a graph."""
    options = (decay, threshold, v_reset, detach_reset, derivative, v_init, detach_membrane)
    spikes, bits = _NormLIF.apply(current.x, current.weight, current.bias, current.residual, current, options)
    return spikes, PackedSpikes(len(spikes), bits)


def fused_norm_lif_step(
    current: NormalisedCurrent,
    state: Tensor | None,
    decay: float,
    threshold: float,
    v_reset: float | None,
    v_init: float,
) -> tuple[Tensor, Tensor]:
    """`lif_step` of currents `[1, B, C, ...]` that are not computed yet, without a graph."""
    x, (scale, shift) = current.x, current.scale_and_shift()
    stored = as_stored(x, x)
    residual = None if current.residual is None else as_stored(current.residual, x)
    membrane = torch.full_like(stored, v_init, dtype=scale.dtype) if state is None else as_stored(state.unsqueeze(0), x)
    spikes, after = compiled(fire_once)(stored, scale, shift, residual, membrane, decay, threshold, v_reset)
    return as_shown(spikes, x)[0], as_shown(after, x)[0]


class _NormLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        current: NormalisedCurrent,
        options: tuple[Any, ...],
    ) -> tuple[Tensor, Tensor]:
        scale, shift = current.scale_and_shift()
        for_gradient = any(ctx.needs_input_grad)
        spikes, bits, starts = fire_sequence(
            as_stored(x, x),
            scale,
            shift,
            None if residual is None else as_stored(residual, x),
            options,
            for_gradient=for_gradient,
        )
        bits = as_shown(bits, x)
        ctx.mark_non_differentiable(bits)
        if for_gradient:
            packed = current.residual_spikes
            kept = residual if packed is None else packed.bits
            precise = None if weight is None else weight.to(scale.dtype)
            ctx.again = current.again
            ctx.save_for_backward(
                x if current.again is None else None, precise, current.mean, current.inv_std, scale, shift, kept, starts
            )
            ctx.options, ctx.eps, ctx.affine = options, current.eps, bias is not None
        return as_shown(spikes, x), bits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inv_std, scale, shift, kept, starts = ctx.saved_tensors
        if ctx.again is not None:
            x = ctx.again()
        residual: Tensor | PackedSpikes | None = None if kept is None else as_stored(kept, x)
        if kept is not None and kept.dtype == torch.uint8:
            residual = PackedSpikes(len(x), as_stored(kept, x))
        stored, grad = as_stored(x, x), as_stored(grads[0], x)
        to_current = as_shown(gradient_through_time(grad, stored, scale, shift, residual, starts, ctx.options), x)
        to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            to_current.flatten(0, 1), x.flatten(0, 1), weight, None, None, mean, inv_std, True, ctx.eps,
            [ctx.needs_input_grad[0], weight is not None, ctx.affine],
        )  # fmt: skip
        to_residual = to_current if ctx.needs_input_grad[3] else None
        return None if to_x is None else to_x.view(x.shape), to_weight, to_bias, to_residual, None, None
