"""Rate-based gradients in the form of the papers, two passes: the yardstick for the one-pass form of the library.

The first pass runs the spiking network on `[T*B, ...]` without a graph. Each layer of neurons stores its mean rate and its
eligibility, each batch-norm the statistics of its input. The second pass sends the mean input through the same modules once, with a
graph: neurons return the stored rate with the eligibility as its derivative, batch-norm normalises by the stored statistics while
gradients flow through those of the rates (Yu et al., RateBP, NeurIPS 2024). Convolutions are therefore evaluated T + 1 times at
batch B, where the one-pass form evaluates them T times.

Written for speed within that form: one kernel for each batch-norm and direction, stored values dropped once they are used.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikedistill import LIF
from spikedistill.neurons.loops import compiled
from spikedistill.neurons.surrogate import Surrogate, resolve_surrogate

from .workloads import replace_modules

Dynamics = Callable[..., tuple[Tensor, ...]]


class TwoPass(nn.Module):
    """A network of `LIF` and `BatchNorm2d` layers, trained by two passes.

    Max-pooling in the second pass pools the mean rates, so a network that has it gives another value there than its mean logits.

    Args:
        network: the plain network; its neurons and batch-norms are replaced, its parameters kept.
        fused: run the dynamics under `torch.compile`.
    """

    def __init__(self, network: nn.Module, *, fused: bool = False) -> None:
        super().__init__()
        self.spiking_timesteps: int | None = None  # None: the pass over rates
        dynamics = compiled_dynamics if fused else spiking_dynamics
        network = replace_modules(network, LIF, partial(_Neurons, self._timesteps, dynamics))
        self.network = replace_modules(network, nn.BatchNorm2d, partial(_BatchNorm, self._timesteps))

    def _timesteps(self) -> int | None:
        return self.spiking_timesteps

    def forward(self, images: Tensor, timesteps: int) -> Tensor:
        """Mean logits `[B, C]` of images `[B, ...]` shown for T timesteps."""
        with torch.no_grad():
            self.spiking_timesteps = timesteps
            self.network(images.expand(timesteps, *images.shape).flatten(0, 1))
            self.spiking_timesteps = None
        return self.network(images)


class _Neurons(nn.Module):
    def __init__(self, timesteps: Callable[[], int | None], dynamics: Dynamics, neuron: LIF) -> None:
        super().__init__()
        if neuron.v_reset is not None or not neuron.dynamics(4).has_numbers_only or neuron.v_init != 0:
            raise ValueError(
                f"two passes are written for soft reset, nothing learned and v_init=0; got LIF({neuron.extra_repr()})"
            )
        self.timesteps = timesteps
        self.dynamics = dynamics
        self.options = (neuron.decay, neuron.threshold, neuron.detach_reset, resolve_surrogate(neuron.surrogate))
        self.stored: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        timesteps = self.timesteps()
        if timesteps is not None:
            spikes, rate, eligibility = self.dynamics(x.unflatten(0, (timesteps, -1)), *self.options)
            self.stored = rate, eligibility
            return spikes.flatten(0, 1)
        assert self.stored is not None, "the spiking pass comes first"
        (rate, eligibility), self.stored = self.stored, None
        return _GivenRate.apply(x, rate, eligibility)


def spiking_dynamics(
    currents: Tensor, decay: float, threshold: float, detach_reset: bool, derivative: Surrogate
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes of currents `[T, B, ...]`, their mean over time, and its derivative with respect to a lasting change of the current.

    With g_t the surrogate's derivative at u_t: elig = mean_t g_t e_t, e_1 = 1, e_{t+1} = 1 + decay * (1 - threshold * g_t) * e_t,
    and without the bracket where the reset is detached.
    """
    membrane = torch.zeros_like(currents[0], dtype=torch.promote_types(currents.dtype, torch.float32))
    eligibility = torch.zeros_like(membrane)
    trace: float | Tensor = 1.0
    spikes = []
    for current in currents.unbind(0):
        u = torch.add(current, membrane, alpha=decay)
        distance = u - threshold
        slope = derivative(distance)
        fired = (distance >= 0).to(u.dtype)
        membrane = torch.sub(u, fired, alpha=threshold)
        eligibility += trace * slope
        trace = 1 + decay * trace * (1.0 if detach_reset else 1 - threshold * slope)
        spikes.append(fired.to(currents.dtype))
    stacked = torch.stack(spikes)
    return stacked, stacked.mean(0), (eligibility / len(currents)).to(currents.dtype)


def compiled_dynamics(currents: Tensor, *options: Any) -> tuple[Tensor, ...]:
    """The same, compiled once for all layers."""
    flat = currents.reshape(len(currents), -1)
    spikes, rate, eligibility = compiled(spiking_dynamics)(flat, *options)
    sample = currents.shape[1:]
    return spikes.view(currents.shape), rate.view(sample), eligibility.view(sample)


class _GivenRate(torch.autograd.Function):
    """Value: the rate; derivative: the eligibility."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: Tensor, eligibility: Tensor) -> Tensor:
        ctx.save_for_backward(eligibility)
        return rate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (eligibility,) = ctx.saved_tensors
        return grads[0] * eligibility, None, None


class _BatchNorm(nn.Module):
    def __init__(self, timesteps: Callable[[], int | None], norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.norm = norm
        self.stored: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if self.timesteps() is not None:
            # F.batch_norm does not hand out its statistics
            out, mean, inv_std = torch.native_batch_norm(
                x, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum or 0.0, norm.eps
            )
            self.stored = mean, inv_std
            return out
        assert self.stored is not None, "the spiking pass comes first"
        (mean, inv_std), self.stored = self.stored, None
        return _RateBatchNorm.apply(x, norm.weight, norm.bias, mean, inv_std, norm.eps)


class _RateBatchNorm(torch.autograd.Function):
    """Value: normalised by given statistics; derivative: as if they were those of x.

    The mean of the rates is that of the spiking pass, so this is batch-norm's own backward pass at the given deviation.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inv_std: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, mean, inv_std)
        ctx.eps = eps
        return F.batch_norm(x, mean, inv_std**-2 - eps, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inv_std = ctx.saved_tensors
        to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            grads[0], x, weight, None, None, mean, inv_std, True, ctx.eps, [True, True, True]
        )
        return to_x, to_weight, to_bias, None, None, None
