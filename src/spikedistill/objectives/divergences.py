"""How far a student's prediction is from a teacher's: the softened KL that all methods use, and two alternatives.

Shapes: student and teacher [..., C], broadcast against each other; results [...], one value per sample.

If the student masks classes with -inf, a divergence is over the classes that it keeps, as if the others did not exist, and so is
the teacher's distribution. A class that only the teacher masks has probability 0 there. A row that masks all classes gives NaN,
and so does one that holds NaN.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import MASKED, is_masked


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature), kept finite: a masked class has probability 0 and adds nothing."""
    return F.log_softmax(logits / temperature, dim=-1).clamp(min=MASKED)


def among_kept(student: Tensor, teacher: Tensor) -> Tensor:
    """The teacher's logits without the classes that the student masks, broadcast against each other."""
    return torch.where(is_masked(student), -math.inf, teacher)


def kl(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, teacher_grad: bool = False) -> Tensor:
    """Forward KL(softmax(teacher / tau) || softmax(student / tau)), summed over classes; the teacher is detached."""
    teacher = among_kept(student, teacher if teacher_grad else teacher.detach())
    return kl_of_logs(log_probabilities(student, temperature), log_probabilities(teacher, temperature))


def kl_of_logs(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p) from logarithms of probabilities, summed over classes."""
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def kd(student: Tensor, teacher: Tensor, *, temperature: float = 3.0, teacher_grad: bool = False) -> Tensor:
    """tau² · KL(teacher || student): the factor keeps the gradient's size when tau changes.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (2015).
    """
    return temperature**2 * kl(student, teacher, temperature=temperature, teacher_grad=teacher_grad)


def mse(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, teacher_grad: bool = False) -> Tensor:
    """Mean squared difference of the logits over the classes that neither masks; no temperature is used."""
    kept = ~(is_masked(student) | is_masked(teacher))
    difference = student - (teacher if teacher_grad else teacher.detach())
    return torch.where(kept, difference, 0.0).square().sum(-1) / kept.sum(-1)


def standardized_kl(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0, teacher_grad: bool = False
) -> Tensor:
    """KL between logits that were first brought to mean 0 and variance 1 over the classes (var + 1e-5 under the root).

    Sun et al.: Logit Standardization in Knowledge Distillation (CVPR 2024).
    """
    student, teacher = (_standardized(logits) for logits in (student, among_kept(student, teacher)))
    return kl(student, teacher, temperature=temperature, teacher_grad=teacher_grad)


def centred(logits: Tensor) -> Tensor:
    """The logits less their mean over the classes that are not masked; 0 for those that are."""
    masked = is_masked(logits)
    mean = logits.masked_fill(masked, 0.0).sum(-1, keepdim=True) / (~masked).sum(-1, keepdim=True)
    return (logits - mean).masked_fill(masked, 0.0)


def _standardized(logits: Tensor) -> Tensor:
    masked, values = is_masked(logits), centred(logits)
    variance = values.square().sum(-1, keepdim=True) / (~masked).sum(-1, keepdim=True)
    return (values / (variance + 1e-5).sqrt()).masked_fill(masked, -math.inf)


DIVERGENCES = {"kl": kl, "mse": mse, "standardized": standardized_kl}
