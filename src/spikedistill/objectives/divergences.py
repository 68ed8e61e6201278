"""How far a student's prediction is from a teacher's: the one softened KL of the field, and two alternatives.

Shapes: student and teacher [..., C], broadcast against each other; results [...], one value per sample.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature), kept finite: a class masked with -inf has probability 0 and adds nothing."""
    log_p = F.log_softmax(logits / temperature, dim=-1)
    return log_p.clamp(min=torch.finfo(log_p.dtype).min)


def kl(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, teacher_grad: bool = False) -> Tensor:
    """Forward KL(softmax(teacher / tau) || softmax(student / tau)), summed over classes; the teacher is detached."""
    log_q = log_probabilities(teacher if teacher_grad else teacher.detach(), temperature)
    log_p = log_probabilities(student, temperature)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def kd(student: Tensor, teacher: Tensor, *, temperature: float = 3.0, teacher_grad: bool = False) -> Tensor:
    """tau² · KL(teacher || student): the factor keeps the gradient's size when tau changes.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (2015).
    """
    return temperature**2 * kl(student, teacher, temperature=temperature, teacher_grad=teacher_grad)


def mse(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, teacher_grad: bool = False) -> Tensor:
    """Mean over classes of the squared difference of the logits; a temperature has no meaning here and is not used."""
    return (student - (teacher if teacher_grad else teacher.detach())).square().mean(-1)


def standardized_kl(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0, teacher_grad: bool = False
) -> Tensor:
    """KL between logits that were first brought to mean 0 and variance 1 over the classes (var + 1e-5 under the root).

    Sun et al.: Logit Standardization in Knowledge Distillation (CVPR 2024).
    """
    student, teacher = (F.layer_norm(logits, logits.shape[-1:]) for logits in (student, teacher))
    return kl(student, teacher, temperature=temperature, teacher_grad=teacher_grad)


DIVERGENCES = {"kl": kl, "mse": mse, "standardized": standardized_kl}
