"""Batch-norm with statistics over the samples of all processes."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError
from .batch_norm import Normalise, follow
from .mapping import fold_time
from .signal import Signal

Network = TypeVar("Network", bound=nn.Module)


class SyncBatchNorm(_BatchNorm):
    """Batch-norm with statistics over the samples, and timesteps, of all processes of the default group.

    Processes may have different batch sizes: with the count n, the mean and the biased variance of each,

        mean = sum_p n_p mean_p / sum_p n_p
        var = sum_p n_p (var_p + mean_p^2) / sum_p n_p - mean^2

    in float64. The network then learns as one process would on the joined batch: DistributedDataParallel averages the gradients of
    the parameters, and the gradient of the input includes the losses of all processes. In training, the processes exchange one sum
    in the forward pass and one in the backward pass, so every process must call the same layers in the same order. In evaluation,
    and with one process, this is torch's batch-norm without any exchange. It takes signals under every gradient rule and runs on
    every backend of `torch.distributed`, also on the CPU; `torch.nn.SyncBatchNorm` does neither.

    Arguments, parameters, buffers and the keys of the state dict are those of `torch.nn.BatchNorm2d`.

    Shape:
        A signal or a tensor `[B, C, ...]`; the output has the same shape.
    """

    def forward(self, input: Any) -> Any:
        """Normalise a signal or tensor."""
        if not self.training or _processes() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        if isinstance(input, Signal):
            return input.normalise(self)
        return self.over_time(input.unsqueeze(0), 1).squeeze(0)

    def over_time(self, values: Tensor, timesteps: int) -> Tensor:
        """Normalise `[T, B, C, ...]`, or `[1, B, C, ...]` that is constant over T timesteps, in training."""
        lengths = (1,) * timesteps if values.shape[0] == timesteps else (timesteps,)
        mean, var, share = self._statistics(values, lengths)
        return self._normalise(values, mean, var, share)

    def over_segments(
        self, spikes: Tensor, rates: Tensor, lengths: tuple[int, ...], means: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Normalise a rate pair in training: spikes `[T, B, C, ...]` without graph, their means `[m, B, C, ...]` with one.

        Returns:
            Both normalised by the statistics of the spikes, whose gradient goes through the means.
        """
        mean, var, share = self._statistics(spikes, lengths)
        with torch.no_grad():
            normalised = fold_time(F.batch_norm, spikes, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        return normalised, self._normalise(rates, mean, var, share)

    def _normalise(self, values: Tensor, mean: Tensor, var: Tensor, share: Tensor) -> Tensor:
        inv_std = (var + self.eps).rsqrt()
        return Normalise.apply(values, self.weight, self.bias, mean, inv_std, share, _sum_over_processes)

    @torch.no_grad()
    def _statistics(self, values: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and biased variance over all processes, and the `share` of `Normalise`; also updates the running statistics."""
        precise = values.flatten(0, 1).to(torch.promote_types(values.dtype, torch.float32))
        mean, var = (part.double() for part in torch.batch_norm_update_stats(precise, None, None, 0.0))
        count = sum(lengths) * (values[0].numel() // values.shape[2])
        sums = _sum_over_processes(torch.cat((mean, var + mean.square(), mean.new_ones(1))) * count)
        mean, square = (sums[:-1] / sums[-1]).chunk(2)
        # rounding may make a variance of zero negative
        var = (square - mean.square()).clamp(min=0)
        self._follow(mean, var * (sums[-1] / (sums[-1] - 1)))
        share = mean.new_tensor(lengths) / sums[-1]
        return mean.to(precise.dtype), var.to(precise.dtype), share.to(precise.dtype)

    def _follow(self, mean: Tensor, unbiased: Tensor) -> None:
        """Update the running statistics as torch's batch-norm does: cumulative if momentum is None."""
        if not self.track_running_stats or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        follow(self.running_mean, self.running_var, mean, unbiased, momentum)

    def _check_input_dim(self, input: Any) -> None:
        if input.dim() < 2:
            raise UserError(f"got an input {list(input.shape)}, expected samples [B, C, ...]")


def synchronise_batch_norm(network: Network) -> Network:
    """Turn every `torch.nn.BatchNorm1d`, `2d` and `3d` of a network into `SyncBatchNorm`, in place, and return the network.

    Parameters, running statistics, hooks and names stay the same, so a state dict fits the network before and after.

    Raises:
        UserError: for batch-norm of another kind, such as one with statistics per timestep; the network is then unchanged.
    """
    norms = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, _BatchNorm) or hasattr(module, "over_segments")
    }
    for path, norm in norms.items():
        if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, SyncBatchNorm):
            raise UserError(
                f"{path or 'the network'} is a {type(norm).__name__}, whose statistics cannot be taken over processes; expected "
                "torch.nn.BatchNorm1d, BatchNorm2d or BatchNorm3d"
            )
    for norm in norms.values():
        # both classes have the same state; torch's lazy layers change their class in the same way
        norm.__class__ = SyncBatchNorm
    return network


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _sum_over_processes(value: Tensor) -> Tensor:
    total = value.clone()
    if _processes() > 1:
        dist.all_reduce(total)
    return total
