"""Feature distillation: a student's mean rates, layer by layer, learn from a teacher's activations.

Shapes: features and teacher features are lists of tensors [B, ...], one per layer, in the same order; logits [S, B, C], from
which B is taken. Transforms are trained layers that are applied to the student's features first, in the same order; without them
the features are compared as they are. Every loss is a scalar. The teacher's features are detached. All raise UserError for lists
that do not fit each other.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .checks import check_features, check_logits, check_share

Transforms = Sequence[Callable[[Tensor], Tensor]]


def feature_distance(logits: Tensor, features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Squared distance of the features, a sum over layers, channels and positions: Σ_l ||F_l - A_l||² / B.

    The layers of student and teacher must have the same shapes.
    """
    pairs = check_features(features, teacher_features, check_logits(logits), same_shape=True)
    return _distance([(s, t.detach()) for s, t in pairs])


def feature_mse(
    logits: Tensor,
    features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    transforms: Transforms | None = None,
) -> Tensor:
    """Squared difference of the features, a mean in each layer and a sum over layers: Σ_l MSE(h_l(F_l), A_l).

    h_l are the transforms. The layers of student and teacher must have the same shapes.
    """
    passed = _transformed(features, transforms)
    pairs = check_features(passed, teacher_features, check_logits(logits), same_shape=True)
    return torch.stack([(s - t.detach()).square().mean() for s, t in pairs]).sum()


def blurred_distance(
    logits: Tensor,
    features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    transforms: Transforms | None = None,
    *,
    mask: float = 0.15,
    max_grad: bool = False,
) -> Tensor:
    """Squared distance of the teacher's features and those generated from the student's without some channels, drawn anew.

    Σ_l ||G_l(M_l F_l) - A'_l||² / B, where M_l [B, c] sets every channel of every sample to 0 with probability `mask`, and does not
    scale up the others; G_l are the transforms, and A'_l = A_l · max F_l / max A_l, with the largest values of the batch.
    A'_l is detached, or with `max_grad` only A_l is: then gradients flow through max F_l, in equal parts to all values that are the
    largest. A teacher without a value above 0 is not rescaled. The layers of student and teacher must have the same shapes, [B,
    c, ...]. The mask is drawn from torch's global generator; if several processes share a batch, each has its own largest values.

    Xu et al.: BKDSNN: Enhancing the Performance of Learning-based Spiking Neural Networks Training with Blurred Knowledge
    Distillation (ECCV 2024). Its released code has the gradient through max F_l, the larger part of this term's.
    """
    logits, mask = check_logits(logits), check_share("mask", mask)
    pairs = check_features(features, teacher_features, logits, same_shape=True)
    generated = _transformed([_masked(each, mask) for each in features], transforms)
    wanted = [_rescaled(teacher.detach(), student if max_grad else student.detach()) for student, teacher in pairs]
    return _distance(check_features(generated, wanted, logits, same_shape=True))


def similarity(logits: Tensor, features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Squared difference of the similarities between samples in the two networks: Σ_l ||G(F_l) - G(A_l)||² / B².

    G(F) [B, B] holds the inner products of the samples' flattened features, each row divided by its length. The layers of
    student and teacher may have any shapes. If several processes share a batch, each compares its own samples.

    Tung and Mori: Similarity-Preserving Knowledge Distillation (ICCV 2019).
    """
    pairs = check_features(features, teacher_features, check_logits(logits), same_shape=False)
    return torch.stack([(_alike(s) - _alike(t.detach())).square().mean() for s, t in pairs]).sum()


def _distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Squared distances, a sum over layers, channels and positions, a mean over samples."""
    return torch.stack([(one - other).square().sum() / len(one) for one, other in pairs]).sum()


def _transformed(features: Sequence[Tensor], transforms: Transforms | None) -> Sequence[Tensor]:
    if transforms is None:
        return features
    if len(transforms) != len(features):
        raise UserError(
            f"transforms must be as many as the features' layers; got {len(transforms)} and {len(features)}: pass one per layer"
        )
    return [transform(each) for transform, each in zip(transforms, features, strict=True)]


def _masked(features: Tensor, share: float) -> Tensor:
    """The features with a share of the channels of every sample, on average, set to 0."""
    kept = torch.rand(features.shape[:2], device=features.device) >= share
    return features * kept.view(kept.shape + (1,) * (features.ndim - 2))


def _rescaled(teacher: Tensor, student: Tensor) -> Tensor:
    """The teacher's features, scaled to the student's largest value; unchanged if none is above 0."""
    largest = teacher.amax()
    # a division by 0 would give a gradient of NaN even if its value is not used
    return teacher * torch.where(largest > 0, student.amax() / torch.where(largest > 0, largest, 1.0), 1.0)


def _alike(features: Tensor) -> Tensor:
    flat = features.flatten(1)
    with torch.autocast(flat.device.type, enabled=False):
        return F.normalize(flat @ flat.T, dim=1)
