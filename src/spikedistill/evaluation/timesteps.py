"""Accuracy and calibration of one network after every number of timesteps, from the logits of one forward pass.

Shapes: T timesteps, N samples, C classes; z_k are the logits of timestep k. "ensemble" scores the first k timesteps
together, softmax(mean(z_1..z_k)), the output of a device that stops after k steps; "single" scores only timestep k,
softmax(z_k).
"""

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..objectives.submodels import held_after, prefix_means
from .calibration import (
    Array,
    as_arrays,
    best_temperature,
    calibration_error,
    log_softmax,
    reliability_bins,
    top_label,
)
from .exits import check_lengths

# Classes that a label may be among to count for the top-5 accuracy.
TOP = 5


def timestep_metrics(
    logits: Tensor, target: Tensor, lengths: Tensor | None = None
) -> dict[str, list[dict[str, float]]]:
    """Accuracy, NLL, calibration error, confidence, entropy and Brier score at every k = 1..T.

    - accuracy: the fraction of samples whose largest logit is the label's; of equal logits the first class counts.
    - top5_accuracy, for more than 5 classes: the fraction whose label is among the 5 largest logits; of equal logits the first
      classes count.
    - balanced_accuracy, for unbalanced classes (`is_unbalanced`): the mean over the classes of the fraction of their samples
      that is right, so that a rare class counts as much as a frequent one.
    - nll: the mean cross-entropy, in nats.
    - ece: the top-label calibration error over 15 equal-width bins.
    - confidence: the mean largest softmax.
    - entropy: the mean of -sum_c p_c log p_c, in nats.
    - brier: mean_n sum_c (p_c - 1[c = y])², from 0 to 2.

    Args:
        logits: `[T, N, C]`, any floating dtype.
        target: `[N]`, class indices.
        lengths: the timesteps of each sample, `[N]`, if they differ. The ensemble keeps a sample's answer after its end; a single
            timestep is scored on the samples that have it.

    Returns:
        `{"ensemble": [...], "single": [...]}`, each T entries `{k, accuracy, nll, ece, confidence, entropy, brier}`, some of them
        also with `top5_accuracy` and `balanced_accuracy`.

    Raises:
        UserError: for shapes, dtypes or classes that do not fit, or logits that are not finite.
    """
    single, labels = as_arrays(logits, target, "[T, N, C]")
    there = [np.arange(len(labels))] * len(single)
    if lengths is not None:
        lengths = check_lengths(lengths, logits).cpu()
        single = held_after(torch.from_numpy(single), lengths).numpy()
        have = [np.flatnonzero(lengths.numpy() >= k) for k in range(1, len(single) + 1)]
        there = [some if len(some) else everyone for some, everyone in zip(have, there, strict=True)]
    return {
        "ensemble": [{"k": k, **metrics(z, labels)} for k, z in enumerate(_ensembles(single), 1)],
        "single": [{"k": k, **metrics(single[k - 1][rows], labels[rows])} for k, rows in enumerate(there, 1)],
    }


def calibrated_metrics(
    logits: Tensor, target: Tensor, heldout_logits: Tensor, heldout_target: Tensor
) -> list[dict[str, float]]:
    """Scores of the ensemble at every k after temperature scaling, with one temperature per k fitted on held-out
    samples.

    Args:
        logits: `[T, N, C]`, the samples to score. A temperature changes no prediction, so the accuracy stays the same.
        target: `[N]`, class indices.
        heldout_logits: `[T, M, C]`, of samples neither trained on nor scored.
        heldout_target: `[M]`, class indices.

    Returns:
        T entries `{k, temperature, nll, ece, confidence, entropy, brier}`.

    Raises:
        UserError: for what `timestep_metrics` refuses, or held-out logits of other timesteps or classes.
    """
    steps, labels = as_arrays(logits, target, "[T, N, C]")
    heldout, heldout_labels = as_arrays(heldout_logits, heldout_target, "[T, N, C]")
    if heldout.shape[::2] != steps.shape[::2]:
        raise UserError(
            f"expected held-out logits of the same timesteps and classes as {list(steps.shape)}, "
            f"got {list(heldout.shape)}"
        )
    entries = []
    for k, (z, held) in enumerate(zip(_ensembles(steps), _ensembles(heldout), strict=True), 1):
        temperature = best_temperature(held, heldout_labels)
        scores = metrics(z / temperature, labels)
        for unchanged in ("accuracy", "top5_accuracy", "balanced_accuracy"):
            scores.pop(unchanged, None)
        entries.append({"k": k, "temperature": temperature, **scores})
    return entries


def timestep_reliability(logits: Tensor, target: Tensor) -> dict[str, list[dict[str, float]]]:
    """The 15 bins of `calibration.reliability` for the ensemble at every k, by the keys "1" to "T"."""
    steps, labels = as_arrays(logits, target, "[T, N, C]")
    return {str(k): reliability_bins(*top_label(z, labels)) for k, z in enumerate(_ensembles(steps), 1)}


def metrics(scores: Array, labels: Array) -> dict[str, float]:
    """The figures of `timestep_metrics` for one set of logits `[N, C]` in float64."""
    rows = np.arange(len(labels))
    log_p = log_softmax(scores)
    p = np.exp(log_p)
    error = p.copy()
    error[rows, labels] -= 1.0
    confidence, right = top_label(scores, labels)
    accuracies = {"accuracy": float(right.mean())}
    if scores.shape[1] > TOP:
        accuracies["top5_accuracy"] = float((_ranks(scores, labels) < TOP).mean())
    if is_unbalanced(labels):
        accuracies["balanced_accuracy"] = float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))
    return {
        **accuracies,
        "nll": 0.0 - float(log_p[rows, labels].mean()),  # 0; a unary minus would give -0
        "ece": calibration_error(reliability_bins(confidence, right)),
        "confidence": float(confidence.mean()),
        "entropy": 0.0 - float((p * log_p).sum(axis=1).mean()),
        "brier": float((error**2).sum(axis=1).mean()),
    }


def is_unbalanced(labels: Array) -> bool:
    """Whether the most frequent class has more than 1.5 times the samples of the rarest; classes without samples do not count."""
    counts = np.unique(labels, return_counts=True)[1]
    return bool(counts.max() > 1.5 * counts.min())


def _ranks(scores: Array, labels: Array) -> Array:
    """How many classes come before the label's, `[N]`: those of larger logits, and of equal logits those with smaller indices."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    comes_first = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & comes_first)).sum(axis=1)


def _ensembles(steps: Array) -> Array:
    return prefix_means(torch.from_numpy(steps)).numpy()
