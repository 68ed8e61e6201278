"""A spiking network is an ensemble of submodels that share weights: one per timestep, or one per head.

Shapes: logits [S, B, C] (S submodels, B samples, C classes), target [B].
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Tensor])
# How a loss may combine its values for the submodels.
REDUCTIONS = "mean", "sum"
# The mean of a tensor over the processes that share a batch.
Average = Callable[[Tensor], Tensor]


def prefix_means(logits: Tensor) -> Tensor:
    """The mean of the first k submodels for every k = 1..S, [S, B, C]: the logits of the prediction after k timesteps."""
    lengths = torch.arange(1, len(logits) + 1, dtype=logits.dtype, device=logits.device)
    return logits.cumsum(0) / lengths.view(-1, 1, 1)


def held_after(logits: Tensor, lengths: Tensor) -> Tensor:
    """Logits `[T, B, C]` with which a sample keeps the prediction that it had at its end.

    After the timesteps of a sample, `lengths` `[B]`, its logits are the mean of those before, and so is then their mean.
    """
    present = torch.arange(len(logits), device=logits.device)[:, None, None] < lengths[:, None]
    answer = torch.where(present, logits, 0.0).sum(0) / lengths[:, None]
    return torch.where(present, logits, answer)


def until(logits: Tensor, timesteps: int) -> Tensor:
    """Logits `[L, B, C]` of sequences that end after L timesteps as `[timesteps, B, C]`, with their mean after the end."""
    return torch.cat([logits, logits.mean(0, keepdim=True).expand(timesteps - len(logits), -1, -1)])


def right_submodels(logits: Tensor, target: Tensor) -> Tensor:
    """Which submodel classifies which sample correctly, bool [S, B]; if logits are equal, the first class is predicted."""
    return logits.argmax(-1) == target


def mean_of(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The mean logits [B, C] of the submodels chosen (bool [S, B]), zeros if none is; and whether one is, bool [B]."""
    total = torch.where(chosen.unsqueeze(-1), logits, 0.0).sum(0)
    return total / chosen.sum(0).clamp(min=1).unsqueeze(-1), chosen.any(0)


def compares_submodels(function: Function) -> Function:
    """Mark a loss in which submodels of one network are both teacher and student.

    If all submodels share their whole graph (rate-based gradients with one segment), such a loss has no gradient.
    """
    function.compares_submodels = True  # type: ignore[attr-defined]
    return function
