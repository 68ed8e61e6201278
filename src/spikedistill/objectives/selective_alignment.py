"""Distillation that treats the timesteps of a sample differently, as selective alignment does.

Sun et al.: Not All Timesteps Matter Equally: Selective Alignment Knowledge Distillation for Spiking Neural Networks (2026), as the
code of its anonymous submission has it.

Shapes: logits [S, B, C], teacher logits [B, C] or [S, B, C], target int64 [B]; every loss is a scalar, a mean over S and B.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_logits, check_target, check_teacher, check_temperature
from .divergences import kd, log_probabilities
from .submodels import compares_submodels


def aligned_kd(logits: Tensor, target: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Timestep-wise distillation in which a wrong timestep's two competing logits are made equal: mean_t KD(z'_t <- A'_t).

    Where timestep t answers c instead of y, z'_t is z_t with the logit of y in the place of that of c too, and A'_t is the teacher
    with the smaller of its two in both places: what is learned there is the label's logit, from both places, and all other
    classes. A timestep that is right stays as it is, and so does its teacher.
    """
    logits = check_logits(logits)
    teacher = check_teacher(teacher_logits, logits).expand_as(logits)
    labels = check_target(target, logits).expand(logits.shape[:2]).unsqueeze(-1)
    answers = logits.argmax(-1, keepdim=True)
    student = logits.scatter(-1, answers, logits.gather(-1, labels))
    least = torch.minimum(teacher.gather(-1, labels), teacher.gather(-1, answers))
    teacher = teacher.scatter(-1, labels, least).scatter(-1, answers, least)
    return kd(student, teacher, temperature=check_temperature(temperature)).mean()


@compares_submodels
def selective(logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Every timestep learns from a mixture of the others: mean_t KD(z_t <- Σ_{s≠t} w_ts z_s).

    w_ts is the softmax over s≠t of confidence(s) · cosine(z_s, z_t) for each sample, with confidence 1 - H(softmax(z_s)) / log C.
    Everything in the teacher is detached, and neither the softmax over s nor H has a temperature. With one timestep the loss is 0.
    """
    logits = check_logits(logits)
    check_temperature(temperature)
    if len(logits) == 1:  # a zero that still has a graph
        return kd(logits, logits, temperature=temperature).mean()
    z = logits.detach()
    log_p = log_probabilities(z)
    confidence = 1 + (log_p.exp() * log_p).sum(-1) / math.log(max(z.shape[-1], 2))
    direction = F.normalize(z, dim=-1)
    cosine = (direction.unsqueeze(1) * direction.unsqueeze(0)).sum(-1)  # [t, s, B]
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device).unsqueeze(-1)
    mixture = (confidence * cosine).masked_fill(itself, -math.inf).softmax(1)
    teacher = (mixture.unsqueeze(-1) * z).sum(1)
    return kd(logits, teacher, temperature=temperature).mean()
