"""Distillation that treats the timesteps of a sample differently, as selective alignment does.

Sun et al.: Not All Timesteps Matter Equally: Selective Alignment Knowledge Distillation for Spiking Neural Networks (2026), as the
code of its anonymous submission has it.

Shapes: logits [S, B, C], teacher logits [B, C] or [S, B, C], target int64 [B]; every loss is a scalar, a mean over S and B.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_label_kept, check_logits, check_target, check_teacher, check_temperature, is_masked
from .divergences import kd, log_probabilities
from .submodels import compares_submodels


def aligned_kd(logits: Tensor, target: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Timestep-wise distillation in which a wrong timestep's two competing logits are made equal: mean_t KD(z'_t <- A'_t).

    If timestep t predicts c instead of y, z'_t is z_t with its logit of c replaced by its logit of y, and A'_t is the teacher with
    both logits replaced by the smaller one. So both entries train the logit of y, and the logit of c is not trained. If a timestep
    is right, neither its logits nor its teacher change.
    """
    logits = check_logits(logits)
    teacher = check_teacher(teacher_logits, logits).expand_as(logits)
    for each in (logits, teacher):
        check_label_kept(each, check_target(target, logits))
    labels = target.expand(logits.shape[:2]).unsqueeze(-1)
    answers = logits.argmax(-1, keepdim=True)
    student = logits.scatter(-1, answers, logits.gather(-1, labels) + _broken(logits))
    least = torch.minimum(teacher.gather(-1, labels), teacher.gather(-1, answers)) + _broken(teacher)
    teacher = teacher.scatter(-1, labels, least).scatter(-1, answers, least)
    return kd(student, teacher, temperature=check_temperature(temperature)).mean()


def _broken(logits: Tensor) -> Tensor:
    """0 for each row of logits, or NaN if it holds NaN or inf: replacing a logit must not hide these."""
    return 0 * logits.detach().amax(-1, keepdim=True)


@compares_submodels
def selective(logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Every timestep learns from a mixture of the others: mean_t KD(z_t <- Σ_{s≠t} w_ts z_s).

    w_ts is the softmax over s≠t of confidence(s) · cosine(z_s, z_t) for each sample, with confidence 1 - H(softmax(z_s)) / log C,
    C being the classes that z_s keeps.
    Everything in the teacher is detached, and neither the softmax over s nor H has a temperature. With one timestep the loss is 0.
    """
    logits = check_logits(logits)
    check_temperature(temperature)
    if len(logits) == 1:  # a zero that still has a graph
        return kd(logits, logits, temperature=temperature).mean()
    log_p, masked = log_probabilities(logits.detach()), is_masked(logits)
    confidence = 1 + (log_p.exp() * log_p).sum(-1) / (~masked).sum(-1).clamp(min=2).to(log_p.dtype).log()
    z = logits.detach().masked_fill(masked, 0.0)
    direction = F.normalize(z, dim=-1)
    cosine = (direction.unsqueeze(1) * direction.unsqueeze(0)).sum(-1)  # [t, s, B]
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device).unsqueeze(-1)
    mixture = (confidence * cosine).masked_fill(itself, -math.inf).softmax(1)
    teacher = (mixture.unsqueeze(-1) * z).sum(1).masked_fill(masked.any(0), -math.inf)
    return kd(logits, teacher, temperature=temperature).mean()
