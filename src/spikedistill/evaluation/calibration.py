"""Calibration: reliability diagrams, calibration error, and one temperature.

Shapes: N samples, C classes. Everything is computed by NumPy in float64 on one thread, so that the same logits give
bitwise equal results for any number of threads.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserError
from ..objectives.checks import check_labels

Array = NDArray[Any]
BINS = 15
_INNER_EDGES = np.arange(1, BINS) / BINS
_SHARPEST, _SOFTEST = 0.01, 100.0  # range of the temperatures, in units of the spread of the logits


def reliability(logits: Tensor, target: Tensor) -> list[dict[str, float]]:
    """Count, accuracy and mean confidence of the samples in each of 15 equal-width bins of confidence.

    Args:
        logits: `[N, C]`, any floating dtype.
        target: `[N]`, class indices.

    Returns:
        15 entries `{count, accuracy, confidence}`, bin m holding the confidences in ((m-1)/15, m/15]; accuracy and
        confidence are fractions, 0 in an empty bin.

    Raises:
        UserError: for shapes, dtypes or classes that do not fit, or logits that are not finite.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    scores, labels = as_arrays(logits, target, "[N, C]")
    return reliability_bins(*top_label(scores, labels))


def fit_temperature(logits: Tensor, target: Tensor) -> float:
    """The temperature that minimises the cross-entropy of `softmax(logits / temperature)`, fitted on held-out samples.

    The cross-entropy is convex in b = 1/temperature, with slope mean_n(sum_c p_c z_c - z_y), so bisection finds its
    only minimum. The search spans s/100 to 100 s, where s is the spread of the logits (root mean square, each sample
    centred). Logits that are worse than uniform ones give the upper end. If the cross-entropy still falls at the lower
    end, for example because every sample is right by a margin, there is no minimum, and the temperature stays 1.

    Args:
        logits: `[N, C]`, any floating dtype.
        target: `[N]`, class indices.

    Raises:
        UserError: as `reliability`.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    return best_temperature(*as_arrays(logits, target, "[N, C]"))


def calibration_error(bins: list[dict[str, float]]) -> float:
    """Expected top-label calibration error: sum over the bins of count/N · |accuracy - confidence|, in [0, 1]."""
    total = sum(entry["count"] for entry in bins)
    return sum(entry["count"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins) / total


def best_temperature(scores: Array, labels: Array) -> float:
    """`fit_temperature` of arrays: logits `[N, C]` in float64 and labels `[N]`."""
    scores = scores - scores.mean(axis=1, keepdims=True)
    spread = float(np.sqrt((scores**2).mean()))
    if spread == 0.0:
        return 1.0
    scores = scores / spread
    of_label = scores[np.arange(len(labels)), labels]

    def slope(temperature: float) -> float:
        probability = np.exp(log_softmax(scores / temperature))
        return float(((probability * scores).sum(axis=1) - of_label).mean())

    sharp, soft = _SHARPEST, _SOFTEST
    if slope(sharp) <= 0.0:
        return 1.0
    if slope(soft) >= 0.0:
        return soft * spread
    for _ in range(40):  # each halves the bracket of the logarithm: from four decades to a relative width of 1e-11
        middle = float(np.sqrt(sharp * soft))
        if slope(middle) > 0.0:
            sharp = middle
        else:
            soft = middle
    return float(np.sqrt(sharp * soft)) * spread


def reliability_bins(confidence: Array, right: Array) -> list[dict[str, float]]:
    """`reliability` of confidences `[N]` and of whether each sample is right `[N]`."""
    # A value on an edge falls into the bin below it, so that a confidence that rounds to 1 shares the last bin.
    # torchmetrics 1.9 rounds to float32 and puts a confidence of exactly 1 into a sixteenth bin: another error for
    # confident networks.
    index = np.searchsorted(_INNER_EDGES, confidence, side="left")
    count = np.bincount(index, minlength=BINS)
    divisor = np.maximum(count, 1)
    accuracy = np.bincount(index, weights=right, minlength=BINS) / divisor
    mean_confidence = np.bincount(index, weights=confidence, minlength=BINS) / divisor
    return [
        {"count": int(n), "accuracy": float(a), "confidence": float(c)}
        for n, a, c in zip(count, accuracy, mean_confidence, strict=True)
    ]


def top_label(scores: Array, labels: Array) -> tuple[Array, Array]:
    """Confidence (largest softmax), and whether the first of the largest logits is the label's, both `[N]`."""
    confidence = 1.0 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    return confidence, scores.argmax(axis=1) == labels


def log_softmax(scores: Array) -> Array:
    """Log-softmax over the last axis."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def as_arrays(logits: Tensor, target: Tensor, layout: str) -> tuple[Array, Array]:
    """Checked logits (float64) and target (int64) as arrays; `layout` is "[N, C]" or "[T, N, C]"."""
    shape = list(logits.shape)
    if len(shape) != layout.count(",") + 1 or 0 in shape or not logits.is_floating_point():
        raise UserError(f"expected floating-point logits {layout}, not empty, got {logits.dtype} {shape}")
    if list(target.shape) != shape[-2:-1] or target.is_floating_point() or target.is_complex():
        raise UserError(
            f"expected integer target [{shape[-2]}] for logits {shape}, got {target.dtype} {list(target.shape)}"
        )
    if shape[-1] < 2:
        raise UserError(
            f"one class has nothing to tell apart: expected logits {layout} of 2 classes or more, got {shape}"
        )
    labels = target.cpu().long()
    check_labels(labels, shape[-1])
    scores = logits.detach().cpu().double().numpy()
    broken = int((~np.isfinite(scores)).sum())
    if broken:
        raise UserError(
            f"expected finite logits, got {broken} of {scores.size} that are not: the training diverged, "
            "repeat it with a lower learning rate"
        )
    return scores, labels.numpy()
