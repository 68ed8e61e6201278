"""Timesteps teach each other: all pairs, neighbours, and those that are right.

Shapes: logits [S, B, C], target int64 [B]; every loss is a scalar, a mean over B. z_t = logits[t], and KD(s <- q) = tau² ·
KL(softmax(q / tau) || softmax(s / tau)) with q detached unless `teacher_grad`. All raise UserError for inputs of another type or
shape, and for tau outside 0.001..1e6. With one timestep there is no pair, and `all_pairs` and `adjacent` are 0.
"""

import torch
from torch import Tensor

from .checks import check_logits, check_target, check_temperature
from .divergences import among_kept, kd, log_probabilities
from .submodels import compares_submodels, right_submodels


@compares_submodels
def all_pairs(logits: Tensor, *, temperature: float = 4.0, teacher_grad: bool = False) -> Tensor:
    """Every timestep learns from every other: mean over the S(S-1) ordered pairs i != j of KD(z_i <- z_j).

    Zhao et al.: Improving Stability and Performance of Spiking Neural Networks through Enhancing Temporal Consistency (2023).
    """
    logits = check_logits(logits)
    students, teachers = logits.unsqueeze(1), logits.unsqueeze(0)
    # the pair of a timestep with itself adds 0, with zero gradient
    each = kd(students, teachers, temperature=check_temperature(temperature), teacher_grad=teacher_grad)
    return each.mean(-1).sum() / max(len(logits) * (len(logits) - 1), 1)


@compares_submodels
def adjacent(logits: Tensor, *, temperature: float = 1.0, teacher_grad: bool = False) -> Tensor:
    """Every timestep learns from the one before: mean over t = 2..S of KD(z_t <- z_{t-1})."""
    logits = check_logits(logits)
    temperature = check_temperature(temperature)
    each = kd(logits[1:], logits[:-1], temperature=temperature, teacher_grad=teacher_grad)
    return each.sum(0).mean() / max(len(logits) - 1, 1)


@compares_submodels
def right_sum(logits: Tensor, target: Tensor, *, temperature: float = 3.0, teacher_grad: bool = True) -> Tensor:
    """Every timestep learns from the sum of those that are right: mean_t tau² CE(z_t, softmax(q / tau)).

    q is the sum (not the mean) of the logits of the timesteps that classify the sample correctly; if none does, the target
    is uniform. The student is not softened, and gradients flow through q.

    Dong et al.: Temporal Knowledge Sharing Enable Spiking Neural Network Learning from Past and Future (TKS, 2023).
    """
    logits = check_logits(logits)
    right = right_submodels(logits, check_target(target, logits))
    q = torch.where(right.unsqueeze(-1), logits, 0.0).sum(0)
    q = among_kept(logits, q if teacher_grad else q.detach())
    p = log_probabilities(q, check_temperature(temperature)).exp()
    return -(temperature**2) * (p * log_probabilities(logits)).sum(-1).mean()
