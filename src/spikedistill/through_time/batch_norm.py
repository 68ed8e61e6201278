"""Batch-norm over time: statistics over T and B jointly, one set of affine parameters, running statistics updated once per call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import UserError
from ..neurons import NormaliseBatch, batch_moments, normalise
from ..sparse import Norm
from .mapping import fold_time


class BatchNormCall(NamedTuple):
    """The arguments of `torch.nn.functional.batch_norm` after its input."""

    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5


def batch_norm(value: Tensor, timesteps: int, call: BatchNormCall) -> Tensor:
    """Normalise `[T or 1, B, C, ...]` as one batch of T*B samples.

    A value that is constant in time is normalised once. Its mean and biased variance are those of the repeated value, but the
    running variance is unbiased and counts T*B samples.
    """
    if not call.training:
        _running(call)
    if value.shape[0] == timesteps or not call.training:
        return fold_time(F.batch_norm, value, *call)
    count = value.numel() // value.shape[2]
    if count == 1:
        return fold_time(F.batch_norm, value.expand(timesteps, *value.shape[1:]), *call)[:1]
    if call.running_mean is None or call.running_var is None:
        return fold_time(F.batch_norm, value, *call)
    # the kernel gets copies, because autograd saves its inputs, which must not change afterwards
    mean, var = call.running_mean.clone(), call.running_var.clone()
    out = fold_time(F.batch_norm, value, *call._replace(running_mean=mean, running_var=var))
    correction = (timesteps * (count - 1)) / (timesteps * count - 1)
    with torch.no_grad():
        call.running_mean.copy_(mean)
        # var = (1 - momentum) * before + momentum * unbiased, of which only the second part is to be corrected
        call.running_var.mul_((1 - call.momentum) * (1 - correction)).add_(var, alpha=correction)
    return out


def batch_norm_where(value: Tensor, present: Tensor, call: BatchNormCall) -> Tensor:
    """Normalise `[T, B, C, ...]` by the statistics of the samples and timesteps that are there, bool `[T, B]`; others become 0."""
    found = F.batch_norm(value[present], *call)
    return found.new_zeros(value.shape).index_put((present,), found)


@torch.no_grad()
def batch_statistics(value: Tensor, call: BatchNormCall) -> tuple[Tensor, Tensor]:
    """Mean and 1 / std `[C]` of `[T, B, C, ...]`; also updates the running statistics."""
    _check_channels(value, call)
    by_kernel = batch_moments(value, call.eps, call.running_mean, call.running_var, call.momentum)
    if by_kernel is not None:
        return by_kernel
    folded = value.flatten(0, 1)
    plain = folded.device.type == "cpu" and folded.is_contiguous() and not torch.compiler.is_compiling()
    found = _fast_moments(folded) if plain else None
    precision = torch.promote_types(value.dtype, torch.float32)
    if found is None and call.running_mean is not None and call.running_mean.dtype == precision:
        mean, var = torch.batch_norm_update_stats(folded, call.running_mean, call.running_var, call.momentum)
        return mean, (var + call.eps).rsqrt()
    # the kernel returns statistics in the precision of its input
    mean, var = found or torch.batch_norm_update_stats(folded.to(precision), None, None, 0.0)
    count = folded.numel() // folded.shape[1]
    follow(call.running_mean, call.running_var, mean, var * (count / max(count - 1, 1)), call.momentum)
    return mean.to(precision), (var + call.eps).rsqrt().to(precision)


@torch.no_grad()
def follow(
    running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor, unbiased: Tensor, momentum: float
) -> None:
    """Update running statistics, if there are any, by those of a batch: running + momentum * (batch - running).

    PyTorch's batch-norm and the loops in C++ and Triton do this themselves. All other code that computes statistics calls this.

    Args:
        unbiased: the variance, divided by the number of values minus one.
    """
    for running, batch in ((running_mean, mean), (running_var, unbiased)):
        if running is not None:
            running.lerp_(batch.to(running.dtype), momentum)


def _check_channels(value: Tensor, call: BatchNormCall) -> None:
    channels = value.shape[2]
    for part in (call.running_mean, call.running_var, call.weight, call.bias):
        if part is not None and part.shape[0] != channels:
            raise UserError(f"a batch-norm of {len(part)} channels got {channels}, in {list(value.shape)}")


def _fast_moments(folded: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and biased variance `[C]` of `[N, C, ...]` in float64, ten times faster than torch's own on a CPU.

    It uses sums and sums of squares of each sample's channel. It returns None if the mean is so much larger than the deviations
    that the difference of squares would lose more than four of float32's seven digits.
    """
    rows = folded.unsqueeze(2) if folded.ndim == 2 else folded.flatten(2)
    precision = torch.promote_types(folded.dtype, torch.float32)
    count = rows.shape[0] * rows.shape[2]
    mean = rows.sum(2, dtype=precision).double().sum(0) / count
    square = torch.linalg.vector_norm(rows, dim=2, dtype=precision).double().square().sum(0) / count
    var = square - mean.square()
    return (mean, var) if bool((var * 1e3 >= square).all()) else None


@torch.no_grad()
def running_statistics(value: Tensor, call: BatchNormCall) -> tuple[Tensor, Tensor]:
    """The running mean and 1 / std `[C]`, used in evaluation, in float32 or better."""
    _check_channels(value, call)
    mean, var = _running(call)
    precision = torch.promote_types(value.dtype, torch.float32)
    return mean.to(precision), (var.to(precision) + call.eps).rsqrt()


def norm_of(like: Tensor, call: BatchNormCall) -> Norm:
    """The batch-norm of evaluation after a layer on spikes, in float32."""
    _check_channels(like, call)
    parts = *_running(call), call.weight, call.bias
    plain = [part if part is None or _is_plain(part) else part.detach().float().contiguous() for part in parts]
    return Norm(*plain, call.eps)  # type: ignore[arg-type, call-arg]


def _is_plain(part: Tensor) -> bool:
    return part.dtype == torch.float32 and part.is_contiguous()


def _running(call: BatchNormCall) -> tuple[Tensor, Tensor]:
    if call.running_mean is None or call.running_var is None:
        raise UserError(
            "batch_norm in evaluation has no running statistics: pass running_mean and running_var, or training=True"
        )
    return call.running_mean, call.running_var


class Normalise(torch.autograd.Function):
    """y = weight * (x - mean) * inv_std + bias with given statistics, and the gradient of statistics taken over x itself.

    `x` is `[m, B, C, ...]`, and `share[m]` is the weight of one element of segment m in the statistics: length / (T * B * H * W).
    If processes share their statistics, the denominator is summed over them, and `total` sums a tensor over the processes. The
    gradients of weight and bias are those of this process only, as for all other parameters.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        inv_std: Tensor,
        share: Tensor,
        total: Callable[[Tensor], Tensor],
    ) -> Tensor:
        shape = (1, 1, -1, *[1] * (x.ndim - 3))
        normalised = (x - mean.view(shape)).mul_(inv_std.view(shape))
        ctx.save_for_backward(normalised, weight, inv_std, share)
        ctx.affine = (weight is not None, bias is not None)
        ctx.total = total
        out = normalised if weight is None else normalised * weight.view(shape)
        return (out if bias is None else out + bias.view(shape)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        normalised, weight, inv_std, share = ctx.saved_tensors
        grad = grads[0].to(normalised.dtype)
        others = [d for d in range(grad.ndim) if d != 2]
        sums = torch.stack((grad.sum(others), (grad * normalised).sum(others)))
        scale = inv_std if weight is None else inv_std * weight
        shape, share = (1, 1, -1, *[1] * (grad.ndim - 3)), share.view(-1, *[1] * (grad.ndim - 1))
        by_mean, by_std = (share * part.view(shape) for part in ctx.total(sums) * scale)
        grad_x = (grad * scale.view(shape)).sub_(by_mean).addcmul_(normalised, by_std, value=-1).to(grads[0].dtype)
        with_weight, with_bias = ctx.affine
        grad_bias, grad_weight = sums
        return grad_x, grad_weight if with_weight else None, grad_bias if with_bias else None, None, None, None, None


def batch_norm_rates(
    spikes: Tensor, rates: Tensor, lengths: tuple[int, ...], call: BatchNormCall
) -> tuple[Tensor, Tensor]:
    """Batch-norm of a rate pair: statistics of all timesteps, gradient through the segment means.

    Args:
        spikes: values `[T, B, C, ...]`, without graph.
        rates: segment means `[m, B, C, ...]`, with graph.
        lengths: timesteps of each segment.

    Returns:
        Both normalised: the rates are exactly the segment means of the values.
    """
    if not call.training:
        _running(call)
        with torch.no_grad():
            normalised = fold_time(F.batch_norm, spikes, *call)
        return normalised, fold_time(F.batch_norm, rates, *call)
    mean, inv_std = batch_statistics(spikes, call)
    with torch.no_grad():
        normalised = normalise(spikes, call.weight, call.bias, mean, inv_std, call.eps)
    return normalised, normalise_rates(rates, lengths, mean, inv_std, spikes.numel() // spikes.shape[2], call)


def normalise_rates(
    rates: Tensor, lengths: tuple[int, ...], mean: Tensor, inv_std: Tensor, count: int, call: BatchNormCall
) -> Tensor:
    """Normalise segment means `[m, B, C, ...]` by statistics of `count` values per channel, with the gradient through the means."""
    if len(set(lengths)) == 1:
        # all means have the same share, as values of an ordinary batch do, so torch's kernels compute it
        return NormaliseBatch.apply(rates, call.weight, call.bias, mean, inv_std, call.eps)
    share = torch.stack([mean.new_full((), length / count) for length in lengths])
    return Normalise.apply(rates, call.weight, call.bias, mean, inv_std, share, lambda sums: sums)
