"""Batch-norm with statistics of each timestep."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..through_time.batch_norm import follow


class TimestepBatchNorm(nn.Module):
    """Batch-norm with statistics of each timestep, and one set of affine parameters for all timesteps.

        y_t = weight * (x_t - mean_t) / sqrt(var_t + eps) + bias

    In training, mean_t and var_t are the statistics of timestep t over batch and space, and row t of the running statistics
    follows them (unbiased variance). Evaluation uses row t. So training and evaluation normalise in the same way, as in BNTT (Kim
    and Panda, 2021), where each timestep also has its own affine parameters. Statistics over all timesteps in training would not
    fit running
    statistics of each timestep: evaluation would remove differences between timesteps that the network was trained with.

    Timesteps beyond the last row are evaluated with the last row, and training on them is refused. A value that is constant in
    time is normalised once in training. Rate-based gradients through var_t replace a timestep's deviations from its mean by those
    of its segment's mean rate, as RateBP (Yu et al., NeurIPS 2024) does for joint statistics. This is exact for segments of
    length one and for values that are constant in time, and memory does not grow with T.

    Args:
        channels: C.
        timesteps: rows of running statistics: T of training.
        momentum: weight of a batch in the running statistics.
        eps: added to the variance.

    Shape:
        A signal `[B, C, ...]`, or a tensor `[T, B, C, ...]`; the output has the same shape.

    Raises:
        UserError: for sizes that are not whole numbers of 1 or more, or samples with other channels.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, timesteps: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        for name, size in (("channels", channels), ("timesteps", timesteps)):
            if type(size) is not int or size < 1:
                raise UserError(f"{name} is {size!r}, expected a whole number of 1 or more")
        self.momentum = momentum
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(timesteps, channels))
        self.register_buffer("running_var", torch.ones(timesteps, channels))

    def forward(self, x: Any) -> Any:
        """The signal normalised, or the tensor `[T, B, C, ...]`."""
        sample = x.shape[1:] if isinstance(x, Tensor) else x.shape
        if len(sample) < 2 or sample[1] != len(self.weight):
            raise UserError(
                f"a batch-norm of {len(self.weight)} channels got samples {list(sample)}, expected [B, C, ...]"
            )
        return self.over_time(x, x.shape[0]) if isinstance(x, Tensor) else x.normalise(self)

    def over_time(self, values: Tensor, timesteps: int) -> Tensor:
        """Normalise `[T, B, C, ...]`, or `[1, B, C, ...]` that is constant over T timesteps.

        Raises:
            UserError: in training, for more timesteps than there are rows.
        """
        if not self.training:
            return self.at(values, torch.arange(timesteps, device=values.device).unsqueeze(1))
        return self._by_batch(values, timesteps, self.weight, self.bias)[0]

    def at(self, values: Tensor, timestep: Tensor) -> Tensor:
        """Normalise by the running statistics of given timesteps.

        Args:
            values: `[..., C, *space]`.
            timestep: integers; its dimensions are those of `values` before C, each of the same size or 1.
        """
        row = timestep.clamp(max=len(self.running_mean) - 1)
        scale = self.weight * (self.running_var[row] + self.eps).rsqrt()
        shift = self.bias - self.running_mean[row] * scale
        space = [1] * (values.ndim - scale.ndim)
        return (values * scale.view(*scale.shape, *space) + shift.view(*shift.shape, *space)).to(values.dtype)

    def over_segments(
        self, spikes: Tensor, rates: Tensor, lengths: tuple[int, ...], means: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Normalise a rate pair in training: spikes `[T, B, C, ...]` without graph, their means `[m, B, C, ...]` with one.

        Returns:
            Both normalised: the rates are the means of the spikes, as `means` takes them. With c the rates less their mean over
            the batch, their gradient is that of c * mean_t (var_t + var(c) - sg(var(c)) + eps)^(-1/2).
        """
        space = [1] * (rates.ndim - 3)
        weight, bias = self.weight.view(-1, *space), self.bias.view(-1, *space)
        with torch.no_grad():
            normalised, var = self._by_batch(spikes, sum(lengths))
            rates_of = means(normalised)
            normalised = (normalised * weight + bias).to(spikes.dtype)
            inverse = (var + self.eps).rsqrt().unflatten(1, (1, -1, *space))
            slope, cubed = means(inverse), means(inverse**3)
        over_batch = [d for d in range(rates.ndim) if d not in (0, 2)]
        precise = rates.to(slope.dtype)
        centred = precise - precise.mean(over_batch, keepdim=True)
        answer = centred * slope - centred.detach() * centred.square().mean(over_batch, keepdim=True) * cubed / 2
        return normalised, ((rates_of + (answer - answer.detach())) * weight + bias).to(rates.dtype)

    def _by_batch(
        self, values: Tensor, timesteps: int, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Each timestep normalised by its own batch, whose biased variance `[T, C]` is returned too."""
        if timesteps > len(self.running_mean):
            raise UserError(
                f"training on {timesteps} timesteps, but this batch-norm has statistics for {len(self.running_mean)}: make it with "
                f"{timesteps} timesteps"
            )
        normalised, means, variances = [], [], []
        for value in values.unbind(0):
            # with momentum 1 the running statistics are those of the batch
            mean, var = torch.zeros_like(self.running_mean[0]), torch.zeros_like(self.running_var[0])
            normalised.append(F.batch_norm(value, mean, var, weight, bias, True, 1.0, self.eps))
            means.append(mean)
            variances.append(var)
        unbiased = torch.stack(variances)
        running = self.running_mean[:timesteps], self.running_var[:timesteps]
        follow(*running, torch.stack(means), unbiased, self.momentum)
        count = values[0].numel() // values.shape[2]
        return torch.stack(normalised), unbiased * ((count - 1) / count)

    def extra_repr(self) -> str:
        timesteps, channels = self.running_mean.shape
        return f"channels={channels}, timesteps={timesteps}, momentum={self.momentum}, eps={self.eps}"
