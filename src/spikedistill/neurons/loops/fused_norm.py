"""Batch-norm and neurons in one compiled loop: neither the normalised currents nor the membranes are written to memory.

Only the input of the batch-norm and the residual are kept. The backward loop recomputes the membranes from them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..neuron import Neuron
from . import paths
from .fused import fire_once, fire_sequence, gradient_through_time, may_write_only_bits
from .memory_format import as_shown, as_stored, is_channels_last, is_dense, per_channel
from .packed import PackedSpikes, SpikesInBits, carrier
from .paths import Path, kernels_for, on_path, path_for
from .read_later import ReadLater


@dataclass(frozen=True)
class NormalisedCurrent:
    """Currents `[T, B, C, ...]` that are not computed yet: weight * (x - mean) * inv_std + bias + residual.

    Attributes:
        x: `[T, B, C, ...]`.
        weight, bias: `[C]`, or None.
        mean, inv_std: `[C]` in float32 or better, without graph.
        batch: whether mean and inv_std are statistics of x itself, through which gradients then flow.
        residual: a tensor of the shape of x, or spikes in bits, or None.
        residual_spikes: the residual as packed spikes, kept in its place; None if it is not spikes.
        again: a function that computes x again in the backward pass; None if x is kept.
    """

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    inv_std: Tensor
    eps: float
    batch: bool
    residual: Tensor | SpikesInBits | None = None
    residual_spikes: PackedSpikes | None = None
    again: Callable[[], Tensor] | None = None
    _given: ReadLater = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = ReadLater(self.x, self.weight, self.bias, self.mean, self.residual)
        object.__setattr__(self, "_given", given)

    @property
    def like(self) -> Tensor:
        """A tensor of their shape and dtype."""
        return self.x

    @property
    def requires_grad(self) -> bool:
        return any(part is not None and part.requires_grad for part in (self.x, self.weight, self.bias, self.residual))

    def detached(self) -> "NormalisedCurrent":
        """The same with detached parameters."""
        weight, bias = (None if part is None else part.detach() for part in (self.weight, self.bias))
        return replace(self, weight=weight, bias=bias)

    def plus(self, residual: Tensor | SpikesInBits, residual_spikes: PackedSpikes | None) -> "NormalisedCurrent":
        self._given.check()  # the new value notes the versions of its tensors again
        return replace(self, residual=residual, residual_spikes=residual_spikes)

    def value(self) -> Tensor:
        """The currents, for layers that are no neurons."""
        self._given.check()
        given = self.x, self.weight, self.bias, self.mean, self.inv_std, self.eps
        out = NormaliseBatch.apply(*given) if self.batch else normalise(*given)
        return out if self.residual is None else out + _value(self.residual)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift that broadcast over a timestep of x as stored, in the precision of membranes."""
        self._given.check()
        scale = self.inv_std if self.weight is None else self.inv_std * self.weight.detach()
        shift = -self.mean * scale if self.bias is None else self.bias.detach() - self.mean * scale
        precision = torch.promote_types(self.x.dtype, torch.float32)  # that of membranes
        return per_channel(scale.to(precision), self.x), per_channel(shift.to(precision), self.x)


def _value(residual: Tensor | SpikesInBits) -> Tensor:
    return residual if isinstance(residual, Tensor) else residual.value()


def stored_residual(current: NormalisedCurrent, path: Path) -> Tensor | None:
    """The residual in the memory layout of x: as values, or in bits if it comes so and the path's kernel reads them."""
    residual = current.residual
    if isinstance(residual, SpikesInBits) and path.name == "C++":
        return as_stored(residual.packed.bits, current.x)
    return None if residual is None else as_stored(_value(residual), current.x)


def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, inv_std: Tensor, eps: float
) -> Tensor:
    """weight * (x - mean) * inv_std + bias of `[T, B, C, ...]`."""
    # the kernel wants its parameters in the dtype of the statistics
    weight, bias = (None if part is None else part.to(mean.dtype) for part in (weight, bias))
    folded = F.batch_norm(x.flatten(0, 1), mean, inv_std.square().reciprocal() - eps, weight, bias, False, 0.0, eps)
    return folded.unflatten(0, x.shape[:2])


class NormaliseBatch(torch.autograd.Function):
    """`normalise` with gradients through the statistics of x, in which every value has the same weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, inv_std: Tensor, eps: float
    ) -> Tensor:
        ctx.eps, ctx.affine = eps, bias is not None
        ctx.save_for_backward(x, None if weight is None else weight.to(mean.dtype), mean, inv_std)
        return normalise(x, weight, bias, mean, inv_std, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inv_std = ctx.saved_tensors
        needed = ctx.needs_input_grad[0], ctx.affine
        return *gradient_of_norm(grads[0], x, weight, mean, inv_std, ctx.eps, *needed), None, None, None


def gradient_of_norm(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inv_std: Tensor,
    eps: float,
    for_x: bool,
    for_bias: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients with respect to x, weight and bias of `NormaliseBatch`, all tensors `[T, B, C, ...]` or `[C]`."""
    to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
        grad.flatten(0, 1), x.flatten(0, 1), weight, None, None, mean, inv_std, True, eps,
        [for_x, weight is not None, for_bias],
    )  # fmt: skip
    return None if to_x is None else to_x.view(x.shape), to_weight, to_bias


def batch_moments(
    x: Tensor, eps: float, running_mean: Tensor | None, running_var: Tensor | None, momentum: float
) -> tuple[Tensor, Tensor] | None:
    """Compute mean and 1 / std `[C]` of `[T, B, C, ...]` and update the running statistics; None if no kernel covers this."""
    kernels = kernels_for(x) if may_wait(x) else None
    running = [part for part in (running_mean, running_var) if part is not None]
    plain = all(part.dtype == torch.float32 and part.is_contiguous() and part.device == x.device for part in running)
    if kernels is None or len(running) == 1 or not plain:
        return None
    by_row = not is_channels_last(x)
    return kernels.statistics(as_stored(x, x), x.shape[2], by_row, eps, running_mean, running_var, momentum)


def can_wait(x: Tensor, times: int = 1) -> bool:
    """Whether postponing the normalisation saves time, for `times` as many values as in `[T, B, C, ...]`."""
    return may_wait(x) and not path_for(x, times=times).is_eager


def may_wait(x: Tensor) -> bool:
    """Whether the normalisation of `[T, B, C, ...]` can be postponed."""
    return x.ndim > 3 and is_dense(x)


def fused_norm_lif(
    current: NormalisedCurrent, neuron: Neuron, detach_membrane: bool, *, only_bits: bool = False
) -> tuple[Tensor | SpikesInBits, PackedSpikes]:
    """`lif` of normalised currents; see `fused_lif`."""
    residual = current.residual
    tensors = current.x, current.weight, current.bias, residual.like if isinstance(residual, SpikesInBits) else residual
    path = path_for(current.x, neuron)
    only_bits = only_bits and may_write_only_bits(current.x, len(current.x), path)
    spikes, bits = _NormLIF.apply(*tensors, current, neuron, detach_membrane, path, only_bits)
    packed = PackedSpikes(len(spikes), bits)
    return SpikesInBits(spikes, packed) if only_bits else spikes, packed


def fused_norm_lif_step(current: NormalisedCurrent, state: Tensor | None, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """`lif_step` of normalised currents `[1, B, C, ...]`, without graph."""
    x, (scale, shift) = current.x, current.scale_and_shift()
    stored = as_stored(x, x)
    residual = None if current.residual is None else as_stored(_value(current.residual), x)
    if state is None:
        membrane = neuron.initial_membrane(stored.to(scale.dtype))
    else:
        membrane = as_stored(state.unsqueeze(0), x).to(scale.dtype)
    path = path_for(x, times=paths.MIN_ELEMENTS)  # `can_wait` has checked that there are enough currents
    if path.kernels is not None:
        spikes, _, one = path.kernels.fire(None, stored, scale, shift, residual, membrane[0], neuron)
        after = one.unsqueeze(0)
    else:
        spikes, after = on_path(path, fire_once)(stored, scale, shift, residual, membrane, neuron)
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
        neuron: Neuron,
        detach_membrane: bool,
        path: Path,
        only_bits: bool,
    ) -> tuple[Tensor, Tensor]:
        scale, shift = current.scale_and_shift()
        for_gradient = any(ctx.needs_input_grad)
        given = as_stored(x, x), scale, shift, stored_residual(current, path), neuron, path
        spikes, bits, starts = fire_sequence(*given, for_gradient=for_gradient, only_bits=only_bits)
        bits = as_shown(bits, x)
        ctx.mark_non_differentiable(bits)
        ctx.set_materialize_grads(False)  # of zeros, for the bits
        if for_gradient:
            packed = current.residual_spikes
            kept = residual if packed is None else packed.bits
            precise = None if weight is None else weight.to(scale.dtype)
            ctx.again = current.again
            ctx.save_for_backward(
                x if current.again is None else None,
                precise,
                current.mean.to(scale.dtype),
                current.inv_std.to(scale.dtype),
                scale,
                shift,
                kept,
                *starts,
            )
            ctx.neuron, ctx.detach_membrane = neuron, detach_membrane
            ctx.eps, ctx.affine = current.eps, bias is not None
        return carrier(x, len(x)) if spikes is None else as_shown(spikes, x), bits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return (None,) * 9
        x, weight, mean, inv_std, scale, shift, kept, *starts = ctx.saved_tensors
        if ctx.again is not None:
            x = ctx.again()
        stored, grad = as_stored(x, x), as_stored(grads[0], x)
        more = None if kept is None else as_stored(kept, x)
        residual = PackedSpikes(len(x), more) if more is not None and more.dtype == torch.uint8 else more
        for_residual = ctx.needs_input_grad[3]
        path = path_for(x, ctx.neuron)  # again, because a dispatch mode may be active now
        if not starts and path.kernels is not None:
            to_x, to_residual, to_weight, to_bias = path.kernels.gradient_through_norm(
                grad, stored, scale, shift, more, mean, inv_std, ctx.neuron, ctx.detach_membrane,
                to_residual=for_residual,
            )  # fmt: skip
            to_residual = None if to_residual is None else as_shown(to_residual, x)
            to_weight, to_bias = None if weight is None else to_weight, to_bias if ctx.affine else None
            return as_shown(to_x, x), to_weight, to_bias, to_residual, *(None,) * 5
        given = grad, stored, scale, shift, residual, starts, ctx.neuron, ctx.detach_membrane, path
        to_current = as_shown(gradient_through_time(*given), x)
        needed = ctx.needs_input_grad[0], ctx.affine
        to_residual = to_current if for_residual else None
        to_parameters = gradient_of_norm(to_current, x, weight, mean, inv_std, ctx.eps, *needed)
        return *to_parameters, to_residual, *(None,) * 5
