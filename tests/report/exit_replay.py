"""Exit policies once more, in numpy and float64, for tests to compare with."""

import math

import numpy as np


def scores_and_answers(logits, policy):
    """`[T, N]` each, by the formulas alone."""
    logits = logits.astype(np.float64)
    T, N, C = logits.shape
    sums = np.stack([logits[: t + 1].sum(0) for t in range(T)])
    means = sums / np.arange(1, T + 1)[:, None, None]
    judged = sums if policy == "sum_confidence" else means
    p = np.exp(judged - judged.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    answers = means.argmax(-1)
    ranked = np.sort(p, axis=-1)
    if policy in ("confidence", "sum_confidence"):
        scores = ranked[..., -1]
    elif policy == "gap":
        ordered = np.sort(sums, axis=-1)
        scores = ordered[..., -1] - ordered[..., -2]
    elif policy == "margin":
        scores = ranked[..., -1] - ranked[..., -2]
    elif policy == "entropy":
        scores = 1 + (p * np.log(np.where(p > 0, p, 1))).sum(-1) / math.log(C)
    else:
        scores = np.ones((T, N))
        for t in range(1, T):
            scores[t] = np.where(answers[t] == answers[t - 1], scores[t - 1] + 1, 1)
    return scores, answers


def replay(logits, targets, policy, threshold):
    """Exit times, accuracy, mean exit time and shares that leave, one sample after the other."""
    scores, answers = scores_and_answers(logits, policy)
    T, N = scores.shape
    threshold = math.inf if threshold is None else threshold
    times = [next((t for t in range(1, T) if scores[t - 1, n] >= threshold), T) for n in range(N)]
    accuracy = sum(answers[t - 1, n] == targets[n] for n, t in enumerate(times)) / N
    return times, accuracy, sum(times) / N, [times.count(t) / N for t in range(1, T + 1)]
