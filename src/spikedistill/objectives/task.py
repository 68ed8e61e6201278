"""Losses of the submodels against the labels, and the entropy of their predictions.

Shapes: logits [S, B, C], target int64 [B]; every loss is a scalar, a mean over S and B. z_t = logits[t].
All raise UserError for logits or a target of another type or shape, for a single class, and for a label smoothing outside 0..1.
On a CPU they also raise it for a label outside 0..C-1, or of a class that the logits mask. On a GPU, PyTorch's cross-entropy
asserts that labels are in 0..C-1.

Samples whose label is `ignore_index` are left out: the loss is the mean over the others, and 0 with zero gradient where there are
none. Where several processes share a batch, each takes the mean over its own samples. A class that is masked with -inf adds nothing
to a loss, as if it were not there.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .checks import (
    check_choice,
    check_count,
    check_label_kept,
    check_label_smoothing,
    check_logits,
    check_share,
    check_target,
    check_weights,
    is_masked,
)
from .divergences import log_probabilities
from .submodels import REDUCTIONS, prefix_means

# No label of any data: PyTorch would take -100 for "ignore" where nobody has said so.
_NO_LABEL = -(2**62)


class Labels(NamedTuple):
    """The labels of a batch, and how they are taken.

    Attributes:
        target: class indices, int64 [B].
        smoothing: the share of a label that is spread over all classes that the logits keep.
        ignore_index: the label of samples that are left out.
    """

    target: Tensor
    smoothing: float = 0.0
    ignore_index: int | None = None


def sce(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, ignore_index: int | None = None) -> Tensor:
    """Standard cross-entropy, that of the mean logits: CE(mean_t z_t, y)."""
    logits = check_logits(logits)
    return mean_cross_entropy(logits.mean(0, keepdim=True), Labels(target, label_smoothing, ignore_index))


def twce(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, ignore_index: int | None = None) -> Tensor:
    """Timestep-wise cross-entropy: mean_t CE(z_t, y). For heads, the mean of the heads' cross-entropies.

    Deng et al.: Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting (ICLR 2022), without
    its regulariser.
    """
    return mean_cross_entropy(check_logits(logits), Labels(target, label_smoothing, ignore_index))


def heads_ce(
    logits: Tensor,
    target: Tensor,
    *,
    branch_weight: float = 1.0,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Tensor:
    """Cross-entropy of every head, of which the last is the network's own: (w Σ_{s<S} CE(z_s, y) + CE(z_S, y)) / S.

    `reduction` "sum" leaves out the division by S.

    Zhao et al.: Enhanced Self-Distillation Framework for Efficient SNN Training (NeurIPS 2025), there a sum over the heads.
    """
    logits = check_logits(logits)
    check_weights(branch_weight=branch_weight)
    check_choice("reduction", reduction, REDUCTIONS)
    each = cross_entropy_of_each(logits, Labels(target, label_smoothing, ignore_index))
    total = branch_weight * each[:-1].sum() + each[-1]
    return total if reduction == "sum" else total / len(logits)


def prefix_ce(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, ignore_index: int | None = None
) -> Tensor:
    """Cross-entropy of what deployment at k timesteps scores, for every k: mean_k CE(mean(z_1..z_k), y)."""
    return mean_cross_entropy(prefix_means(check_logits(logits)), Labels(target, label_smoothing, ignore_index))


def logit_mse(logits: Tensor, *, level: float = 1.0) -> Tensor:
    """Mean squared distance of all logits from one level: mean over t, samples and unmasked classes of (z_t - level)².

    Deng et al.: Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting (ICLR 2022), its regulariser.
    """
    logits = check_logits(logits)
    if not abs(level) < math.inf:
        raise UserError(f"level must be a finite number; got {level!r}")
    masked = is_masked(logits)
    return ((logits - level).masked_fill(masked, 0.0).square().sum(-1) / (~masked).sum(-1)).mean()


def tet_of_some(logits: Tensor, target: Tensor, *, k: int = 2, mse_weight: float = 0.05) -> Tensor:
    """The loss of TET over k timesteps drawn for this batch: mean over them of (1-l) CE(z_t, y) + l MSE(z_t, 1).

    Drawn without replacement from torch's global generator; all where there are no more than k.

    Meng et al.: Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural Networks (ICCV 2023), SLTT-K,
    whose other half is the gradient rule "sltt".
    """
    logits = check_logits(logits)
    drawn = torch.randperm(len(logits), device=logits.device)[: check_count("k", k)]
    weight = check_share("mse_weight", mse_weight)
    some = logits.index_select(0, drawn)
    return (1 - weight) * twce(some, target) + weight * logit_mse(some)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the submodels' predictions in nats, to be rewarded: mean_t H(softmax(z_t)).

    Pereyra et al.: Regularizing Neural Networks by Penalizing Confident Output Distributions (2017), there of a
    network's one prediction.
    """
    log_p = log_probabilities(check_logits(logits))
    return -(log_p.exp() * log_p).sum(-1).mean()


def mean_cross_entropy(logits: Tensor, labels: Labels) -> Tensor:
    """The mean of `cross_entropies` over submodels and samples that are not ignored."""
    if labels.ignore_index is not None:
        return cross_entropy_of_each(logits, labels).mean()
    return cross_entropies(logits, labels).mean()


def cross_entropy_of_each(logits: Tensor, labels: Labels) -> Tensor:
    """The mean of `cross_entropies` over the samples that are not ignored, of every submodel, [S]."""
    each = cross_entropies(logits, labels)
    if labels.ignore_index is None:
        return each.mean(1)
    return each.sum(1) / (labels.target != labels.ignore_index).sum().clamp(min=1)


def cross_entropies(logits: Tensor, labels: Labels) -> Tensor:
    """The cross-entropy of every submodel on every sample, [S, B], 0 for those that are ignored.

    Smoothed labels are spread over the classes that the logits keep.
    """
    target, ignore_index = labels.target, labels.ignore_index
    smoothing = check_label_smoothing(labels.smoothing)
    check_label_kept(logits, check_target(target, logits, ignore_index), ignore_index)
    S, B, _ = logits.shape
    flat, targets = logits.flatten(0, 1), target.expand(S, B).flatten()
    ignored = _NO_LABEL if ignore_index is None else ignore_index
    hard = F.cross_entropy(flat, targets, reduction="none", ignore_index=ignored).view(S, B)
    if not smoothing:
        return hard
    masked = is_masked(logits)
    soft = -log_probabilities(logits).masked_fill(masked, 0.0).sum(-1) / (~masked).sum(-1)
    return (1 - smoothing) * hard + smoothing * soft * (target != ignored)
