"""Losses of the submodels against the labels, and the entropy of their predictions.

Shapes: logits [S, B, C], target int64 [B]; every loss is a scalar, a mean over S and B. z_t = logits[t].
All raise ValueError for logits or a target of another type or shape, and for a label smoothing outside 0..1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_count, check_label_smoothing, check_logits, check_share, check_target
from .divergences import log_probabilities
from .submodels import prefix_means


def sce(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Standard cross-entropy, that of the mean logits: CE(mean_t z_t, y)."""
    logits = check_logits(logits)
    return cross_entropies(logits.mean(0, keepdim=True), check_target(target, logits), label_smoothing).mean()


def twce(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Timestep-wise cross-entropy: mean_t CE(z_t, y). For heads, the mean of the heads' cross-entropies.

    Deng et al.: Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting (ICLR 2022), without
    its regulariser.
    """
    logits = check_logits(logits)
    return cross_entropies(logits, check_target(target, logits), label_smoothing).mean()


def heads_ce(logits: Tensor, target: Tensor, *, branch_weight: float = 1.0, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every head, of which the last is the network's own: (w Σ_{s<S} CE(z_s, y) + CE(z_S, y)) / S.

    Zhao et al.: Enhanced Self-Distillation Framework for Efficient SNN Training (NeurIPS 2025), there a sum over the heads.
    """
    logits = check_logits(logits)
    each = cross_entropies(logits, check_target(target, logits), label_smoothing).mean(1)
    return (branch_weight * each[:-1].sum() + each[-1]) / len(logits)


def prefix_ce(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of what deployment at k timesteps scores, for every k: mean_k CE(mean(z_1..z_k), y)."""
    logits = check_logits(logits)
    return cross_entropies(prefix_means(logits), check_target(target, logits), label_smoothing).mean()


def logit_mse(logits: Tensor, *, level: float = 1.0) -> Tensor:
    """Mean squared distance of all logits from one level: mean over t, samples and classes of (z_t - level)².

    Deng et al.: Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting (ICLR 2022), its regulariser.
    """
    return (check_logits(logits) - level).square().mean()


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


def cross_entropies(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The cross-entropy of every submodel on every sample, [S, B]."""
    S, B, _ = logits.shape
    targets = target.expand(S, B).flatten()
    smoothing = check_label_smoothing(label_smoothing)
    return F.cross_entropy(logits.flatten(0, 1), targets, reduction="none", label_smoothing=smoothing).view(S, B)
