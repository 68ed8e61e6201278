"""Losses of the submodels against the labels, and the entropy of their predictions.

Shapes: logits [S, B, C], target int64 [B]; every loss is a scalar, a mean over S and B. z_t = logits[t].
All raise UserError for logits or a target of another type or shape, for a single class, and for a label smoothing outside 0..1.
On a CPU they also raise it for a label outside 0..C-1, or of a class that the logits mask. On a GPU, PyTorch's cross-entropy
asserts that labels are in 0..C-1.

Samples whose label is `ignore_index` do not count: the loss is the mean over the others, and 0 with zero gradient if there are
none. If several processes share a batch, each takes the mean over its own samples. A class that is masked with -inf adds nothing
to a loss, as if it were not there.

`class_weights` [C] weigh the samples by their class: with w_b = class_weights[y_b] the mean over the batch is
Σ_b w_b CE_b / Σ_b w_b, as `torch.nn.functional.cross_entropy(weight=...)` computes it, and 0 with zero gradient if all w_b are 0.
With `average`, the mean of a tensor over the processes that share a batch, Σ_b w_b is the sum over the whole batch.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .checks import (
    check_choice,
    check_class_weights,
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
from .submodels import REDUCTIONS, Average, prefix_means

# A label that no data has. PyTorch's default would ignore the label -100 unasked.
_NO_LABEL = -(2**62)


class Labels(NamedTuple):
    """The labels of a batch, and the weights of its samples.

    Attributes:
        target: class indices, int64 [B].
        smoothing: the share of a label that is spread over all classes that the logits keep.
        ignore_index: the label of samples that do not count.
        class_weights: the weight of the samples of each class, [C]; None if all have the same.
        average: the mean of a tensor over the processes that share the batch; None for one process.
    """

    target: Tensor
    smoothing: float = 0.0
    ignore_index: int | None = None
    class_weights: Tensor | None = None
    average: Average | None = None


def sce(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    average: Average | None = None,
) -> Tensor:
    """Standard cross-entropy, that of the mean logits: CE(mean_t z_t, y)."""
    logits = check_logits(logits)
    labels = Labels(target, label_smoothing, ignore_index, class_weights, average)
    return mean_cross_entropy(logits.mean(0, keepdim=True), labels)


def twce(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    average: Average | None = None,
) -> Tensor:
    """Timestep-wise cross-entropy: mean_t CE(z_t, y). For heads, the mean of the heads' cross-entropies.

    Deng et al.: Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting (ICLR 2022), without
    its regulariser.
    """
    labels = Labels(target, label_smoothing, ignore_index, class_weights, average)
    return mean_cross_entropy(check_logits(logits), labels)


def heads_ce(
    logits: Tensor,
    target: Tensor,
    *,
    branch_weight: float = 1.0,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    average: Average | None = None,
) -> Tensor:
    """Cross-entropy of every head, of which the last is the network's own: (w Σ_{s<S} CE(z_s, y) + CE(z_S, y)) / S.

    `reduction` "sum" omits the division by S.

    Zhao et al.: Enhanced Self-Distillation Framework for Efficient SNN Training (NeurIPS 2025), there a sum over the heads.
    """
    logits = check_logits(logits)
    check_weights(branch_weight=branch_weight)
    check_choice("reduction", reduction, REDUCTIONS)
    each = cross_entropy_of_each(logits, Labels(target, label_smoothing, ignore_index, class_weights, average))
    total = branch_weight * each[:-1].sum() + each[-1]
    return total if reduction == "sum" else total / len(logits)


def prefix_ce(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    average: Average | None = None,
) -> Tensor:
    """Cross-entropy of the prediction after k timesteps, for every k: mean_k CE(mean(z_1..z_k), y)."""
    labels = Labels(target, label_smoothing, ignore_index, class_weights, average)
    return mean_cross_entropy(prefix_means(check_logits(logits)), labels)


def logit_mse(logits: Tensor, *, level: float = 1.0) -> Tensor:
    """Mean squared distance of all logits from one level: mean over t, samples and unmasked classes of (z_t - level)².

    Deng et al.: Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting (ICLR 2022), its regulariser.
    """
    logits = check_logits(logits)
    if not abs(level) < math.inf:
        raise UserError(f"level must be a finite number; got {level!r}")
    masked = is_masked(logits)
    return ((logits - level).masked_fill(masked, 0.0).square().sum(-1) / (~masked).sum(-1)).mean()


def label_mse(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of all logits from the labels: mean over t, samples and unmasked classes of (z_t - onehot(y))²."""
    logits = check_logits(logits)
    check_label_kept(logits, check_target(target, logits))
    masked = is_masked(logits)
    distance = logits - F.one_hot(target, logits.shape[-1]).to(logits.dtype)
    return (distance.masked_fill(masked, 0.0).square().sum(-1) / (~masked).sum(-1)).mean()


def tet_of_some(
    logits: Tensor,
    target: Tensor,
    *,
    k: int = 2,
    mse_weight: float = 0.05,
    class_weights: Tensor | None = None,
    average: Average | None = None,
) -> Tensor:
    """The loss of TET over k timesteps drawn for this batch: mean over them of (1-l) CE(z_t, y) + l MSE(z_t, 1).

    Drawn without replacement from torch's global generator; all timesteps if there are no more than k.

    Meng et al.: Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural Networks (ICCV 2023): the loss of
    SLTT-K, which also uses the gradient rule "sltt".
    """
    logits = check_logits(logits)
    drawn = torch.randperm(len(logits), device=logits.device)[: check_count("k", k)]
    weight = check_share("mse_weight", mse_weight)
    some = logits.index_select(0, drawn)
    hard = twce(some, target, class_weights=class_weights, average=average)
    return (1 - weight) * hard + weight * logit_mse(some)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the submodels' predictions in nats, to be rewarded: mean_t H(softmax(z_t)).

    Pereyra et al.: Regularizing Neural Networks by Penalizing Confident Output Distributions (2017), there for the single
    prediction of a network.
    """
    log_p = log_probabilities(check_logits(logits))
    return -(log_p.exp() * log_p).sum(-1).mean()


def mean_cross_entropy(logits: Tensor, labels: Labels) -> Tensor:
    """The mean of `cross_entropies` over submodels and samples, weighted as the labels say."""
    if labels.ignore_index is not None or labels.class_weights is not None:
        return cross_entropy_of_each(logits, labels).mean()
    return cross_entropies(logits, labels).mean()


def cross_entropy_of_each(logits: Tensor, labels: Labels) -> Tensor:
    """The mean of `cross_entropies` over the samples, weighted as the labels say, of every submodel, [S]."""
    each = cross_entropies(logits, labels)
    target, ignore_index, class_weights, average = labels.target, labels.ignore_index, *labels[3:]
    if class_weights is None:
        return each.mean(1) if ignore_index is None else each.sum(1) / (target != ignore_index).sum().clamp(min=1)
    total = _weights_of_samples(labels, each.dtype).sum()
    total = total if average is None else average(total)
    return each.sum(1) / torch.where(total > 0, total, 1.0)


def cross_entropies(logits: Tensor, labels: Labels) -> Tensor:
    """The cross-entropy of every submodel on every sample times the weight of its class, [S, B], 0 for those that are ignored.

    Smoothed labels are spread over the classes that the logits keep; there, as in PyTorch, each class has its own weight.
    """
    target, ignore_index, class_weights = labels.target, labels.ignore_index, labels.class_weights
    smoothing = check_label_smoothing(labels.smoothing)
    check_label_kept(logits, check_target(target, logits, ignore_index), ignore_index)
    S, B, _ = logits.shape
    flat, targets = logits.flatten(0, 1), target.expand(S, B).flatten()
    ignored = _NO_LABEL if ignore_index is None else ignore_index
    hard = F.cross_entropy(flat, targets, reduction="none", ignore_index=ignored).view(S, B)
    if class_weights is not None:
        check_class_weights(class_weights, logits)
        hard = hard * _weights_of_samples(labels, hard.dtype)
    if not smoothing:
        return hard
    masked = is_masked(logits)
    log_p = log_probabilities(logits).masked_fill(masked, 0.0)
    soft = -(log_p if class_weights is None else log_p * class_weights.to(log_p.dtype)).sum(-1) / (~masked).sum(-1)
    return (1 - smoothing) * hard + smoothing * soft * (target != ignored)


def _weights_of_samples(labels: Labels, dtype: torch.dtype) -> Tensor:
    """The weight of each sample's class, [B], 0 for those that are ignored."""
    assert labels.class_weights is not None
    weights, target = labels.class_weights.to(dtype), labels.target
    if labels.ignore_index is None:
        return weights[target]
    return weights[target.clamp(0, len(weights) - 1)] * (target != labels.ignore_index)
