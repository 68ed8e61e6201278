"""Distillation of what layers inside the networks return: a student's mean rates learn from a teacher's activations.

Shapes: features and teacher features are lists of tensors [B, ...], one per layer, in the same order; logits [S, B, C] say what B
is. Every loss is a scalar. The teacher's features are detached. All raise ValueError for lists that do not fit each other.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_features, check_logits


def feature_distance(logits: Tensor, features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Squared distance of the features, a sum over layers, channels and positions: Σ_l ||F_l - A_l||² / B.

    The layers of student and teacher must have the same shapes.
    """
    pairs = check_features(features, teacher_features, check_logits(logits), same_shape=True)
    return torch.stack([(s - t.detach()).square().sum() / len(s) for s, t in pairs]).sum()


def feature_mse(logits: Tensor, features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Squared difference of the features, a mean in each layer and a sum over layers: Σ_l MSE(F_l, A_l).

    The layers of student and teacher must have the same shapes.
    """
    pairs = check_features(features, teacher_features, check_logits(logits), same_shape=True)
    return torch.stack([(s - t.detach()).square().mean() for s, t in pairs]).sum()


def similarity(logits: Tensor, features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """How differently the networks find samples alike: Σ_l ||G(F_l) - G(A_l)||² / B².

    G(F) [B, B] holds the inner products of the samples' flattened features, each row divided by its length. The layers of
    student and teacher may have any shapes. Where several processes share a batch, each compares its own samples.

    Tung and Mori: Similarity-Preserving Knowledge Distillation (ICCV 2019).
    """
    pairs = check_features(features, teacher_features, check_logits(logits), same_shape=False)
    return torch.stack([(_alike(s) - _alike(t.detach())).square().mean() for s, t in pairs]).sum()


def _alike(features: Tensor) -> Tensor:
    flat = features.flatten(1)
    with torch.autocast(flat.device.type, enabled=False):
        return F.normalize(flat @ flat.T, dim=1)
