"""Losses that pass the student's last features through the teacher's classifier.

Shapes: features and teacher features are lists of one tensor [B, c, ...], what the last stages return; logits [S, B, C], from
which B is taken. The classifier is the teacher's, a function from features [B, c, ...] to logits [B, C]. Every loss is a scalar,
a mean over B; the teacher is detached. All raise UserError for inputs that do not fit each other.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .checks import check_features, check_logits, check_teacher, check_temperature
from .divergences import kd, kl

Classifier = Callable[[Tensor], Tensor]


def classified_kd(
    logits: Tensor,
    teacher_logits: Tensor,
    features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    classifier: Classifier,
    *,
    temperature: float = 3.0,
) -> Tensor:
    """Distillation of the logits that the teacher's classifier computes from the student's features: KD(c(F) <- A).

    F are the student's mean rates at the last layer, c the teacher's classifier and A its logits. The student's own classifier
    is not used: the student learns features that the teacher's classifier can use. A teacher [S, B, C] is averaged.

    Guo et al.: EnOF-SNN: Training Accurate Spiking Neural Networks via Enhancing the Output Feature Representation (NeurIPS 2024).
    """
    logits, temperature = check_logits(logits), check_temperature(temperature)
    teacher = check_teacher(teacher_logits, logits)
    student, _ = _last(logits, features, teacher_features)
    teacher = teacher.mean(0) if teacher.ndim == 3 else teacher
    return kd(classifier(student).to(teacher.dtype), teacher, temperature=temperature).mean()


def activation_map_kl(
    logits: Tensor,
    features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    classifier: Classifier,
    *,
    temperature: float = 2.0,
) -> Tensor:
    """Distance of the student's active positions from those behind the teacher's prediction: KL(M(C_A) || M(C_F)), no tau².

    C_F [B, P] counts the student's spikes at each position, over channels and timesteps; C_A [B, P] is the teacher's class
    activation map, what each position adds to the logit a of the predicted class, cut at 0:
    C_A = max(0, P Σ_c A_c ∂a/∂A_c). M rescales the values of the batch to 0..1, (C - min C) / (max (C - min C) + 1e-3), and is a
    softmax over the P positions at the temperature. Gradients flow through the student's smallest and largest value. If
    several processes share a batch, each has its own.

    A Closer Look at Knowledge Distillation in Spiking Neural Network Training (CKDSNN), from its released code.
    """
    logits, temperature = check_logits(logits), check_temperature(temperature)
    student, teacher = _last(logits, features, teacher_features)
    spikes = len(logits) * _positions(student).sum(1)
    seen = class_activation_map(teacher, classifier)
    return kl(_in_unit(spikes), _in_unit(seen), temperature=temperature).mean()


def class_activation_map(features: Tensor, classifier: Classifier) -> Tensor:
    """What each of P positions adds to the logit of the predicted class, cut at 0, [B, P], detached.

    P Σ_c F_c ∂a/∂F_c for features F [B, c, ...]. Behind global average pooling and a linear layer with weights w this is
    Σ_c w_c F_c for the predicted class, the map of Zhou et al.: Learning Deep Features for Discriminative Localization (CVPR 2016).
    """
    with torch.enable_grad():
        value = features.detach().requires_grad_()
        answers = classifier(value).amax(-1).sum()
        (slope,) = torch.autograd.grad(answers, value)
    parts = _positions(value.detach() * slope).sum(1)
    return parts.shape[1] * parts.clamp(min=0)


def _last(logits: Tensor, features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Student's and teacher's features of the last layer."""
    return check_features(features, teacher_features, logits, same_shape=True)[-1]


def _positions(features: Tensor) -> Tensor:
    """`[B, c, ...] -> [B, c, P]`."""
    return features.reshape(*features.shape[:2], -1)


def _in_unit(values: Tensor) -> Tensor:
    above = values - values.amin()
    return above / (above.amax() + 1e-3)
