"""The objectives once more, from the papers' equations: numpy float64, one row of logits at a time, gradients by hand.

Every loss takes logits [S, B, C] and returns (value, gradient [S, B, C]). Nothing here is shared with the package.
"""

import numpy as np


def softmax(row, tau=1.0):
    e = np.exp((row - row.max()) / tau)
    return e / e.sum()


def log_softmax(row, tau=1.0):
    shifted = (row - row.max()) / tau
    return shifted - np.log(np.exp(shifted).sum())


def ce_row(row, label, smoothing=0.0):
    """Cross-entropy against (1-ε) one-hot + ε/C; its gradient is softmax - target."""
    C = len(row)
    wanted = np.full(C, smoothing / C)
    wanted[label] += 1 - smoothing
    return -(wanted * log_softmax(row)).sum(), softmax(row) - wanted


def kl_row(student, teacher, tau):
    """KL(softmax(teacher/τ) || softmax(student/τ)); its gradient in the student is (p_s - p_q)/τ."""
    p_q, value = softmax(teacher, tau), 0.0
    for c in range(len(student)):
        if p_q[c] > 0:
            value += p_q[c] * (log_softmax(teacher, tau)[c] - log_softmax(student, tau)[c])
    return value, (softmax(student, tau) - p_q) / tau


def entropy_row(row):
    """H(softmax(z)); its gradient is -p (log p + H)."""
    p, log_p = softmax(row), log_softmax(row)
    H = -(p * log_p).sum()
    return H, -p * (log_p + H)


def average(Z, row_loss):
    """Mean over every row of Z of row_loss(s, b)."""
    S, B, _ = Z.shape
    value, gradient = 0.0, np.zeros_like(Z)
    for s in range(S):
        for b in range(B):
            v, g = row_loss(s, b)
            value += v / (S * B)
            gradient[s, b] += g / (S * B)
    return value, gradient


def of_mean(Z, row_loss):
    """Mean over the batch of row_loss(mean row, b), with the gradient spread over the timesteps."""
    S, B, _ = Z.shape
    value, gradient = 0.0, np.zeros_like(Z)
    for b in range(B):
        v, g = row_loss(Z[:, b].mean(0), b)
        value += v / B
        gradient[:, b] += g / (S * B)
    return value, gradient


def of_prefixes(Z, row_loss):
    """Mean over k of `of_mean` of the first k timesteps; row_loss also gets k."""
    S = len(Z)
    value, gradient = 0.0, np.zeros_like(Z)
    for k in range(1, S + 1):
        v, g = of_mean(Z[:k], lambda row, b, k=k: row_loss(row, b, k))
        value += v / S
        gradient[:k] += g / S
    return value, gradient


def sce(Z, y, smoothing=0.0):
    return of_mean(Z, lambda row, b: ce_row(row, y[b], smoothing))


def twce(Z, y, smoothing=0.0):
    return average(Z, lambda s, b: ce_row(Z[s, b], y[b], smoothing))


def prefix_ce(Z, y, smoothing=0.0):
    return of_prefixes(Z, lambda row, b, k: ce_row(row, y[b], smoothing))


def entropy(Z):
    return average(Z, lambda s, b: entropy_row(Z[s, b]))


def kd_row(student, teacher, tau):
    value, gradient = kl_row(student, teacher, tau)
    return tau * tau * value, tau * tau * gradient


def logit_kd(Z, A, tau=3.0):
    return of_mean(Z, lambda row, b: kd_row(row, A[b] if A.ndim == 2 else A[:, b].mean(0), tau))


def twkl(Z, A, tau=3.0):
    return average(Z, lambda s, b: kd_row(Z[s, b], A[b] if A.ndim == 2 else A[s, b], tau))


def prefix_kd(Z, A, tau=3.0):
    return of_prefixes(Z, lambda row, b, k: kd_row(row, A[b] if A.ndim == 2 else A[:k, b].mean(0), tau))


def right_rows(Z, y, b):
    return [row for row in Z[:, b] if int(np.argmax(row)) == y[b]]


def twsd(Z, y, teacher, tau=3.0):
    if teacher == "correct_masked":
        return reliable(Z, y, tau)
    targets = []
    for b in range(Z.shape[1]):
        rows = list(Z[:, b]) if teacher == "ensemble" else right_rows(Z, y, b)
        targets.append(np.mean(rows, axis=0) if rows else np.zeros(Z.shape[2]))
    return average(Z, lambda s, b: kd_row(Z[s, b], targets[b], tau))


def reliable(Z, y, tau=3.0, teachers="reliable"):
    S, B, _ = Z.shape

    def rows(b):
        right = [np.argmax(Z[s, b]) == y[b] for s in range(S)]
        chosen = {"reliable": right, "unreliable": [not r for r in right], "all": [True] * S}[teachers]
        return [Z[s, b] for s in range(S) if chosen[s]]

    kept = [b for b in range(B) if rows(b)]
    value, gradient = 0.0, np.zeros_like(Z)
    for b in kept:
        target = np.mean(rows(b), axis=0)
        for s in range(S):
            v, g = kd_row(Z[s, b], target, tau)
            value += v / (S * len(kept))
            gradient[s, b] += g / (S * len(kept))
    return value, gradient


def scores(Z, y, measure):
    result = []
    for s in range(len(Z)):
        rows = [(Z[s, b], y[b]) for b in range(Z.shape[1])]
        one = {
            "confidence": lambda row, label: softmax(row).max(),
            "entropy": lambda row, label: -entropy_row(row)[0],
            "margin": lambda row, label: np.sort(softmax(row))[-1] - np.sort(softmax(row))[-2],
            "accuracy": lambda row, label: float(np.argmax(row) == label),
            "loss": lambda row, label: -ce_row(row, label)[0],
        }[measure]
        result.append(np.mean([one(row, label) for row, label in rows]))
    return result


def standardise(row):
    """z-scores with variance + 1e-5 under the root, and their Jacobian."""
    C = len(row)
    centred = row - row.mean()
    sigma = np.sqrt((centred**2).mean() + 1e-5)
    z = centred / sigma
    return z, (np.eye(C) - 1 / C - np.outer(z, z) / C) / sigma


def divergence_row(student, teacher, tau, divergence):
    if divergence == "kl":
        return kl_row(student, teacher, tau)
    if divergence == "mse":
        return ((student - teacher) ** 2).mean(), 2 * (student - teacher) / len(student)
    (s, jacobian), (t, _) = standardise(student), standardise(teacher)
    value, gradient = kl_row(s, t, tau)
    return value, jacobian.T @ gradient


def strong_weak(Z, strength, direction, variant, tau=2.0, divergence="kl"):
    """S2W and W2S for a given strength of each timestep: a list of (teacher row set, student) pairs, averaged."""
    S, B, _ = Z.shape
    if S == 1:
        return 0.0, np.zeros_like(Z)
    order = sorted(range(S), key=lambda s: -strength[s])  # stable: the earlier of equals is the stronger
    strongest = min(s for s in range(S) if strength[s] == max(strength))
    weakest = min(s for s in range(S) if strength[s] == min(strength))
    leader, learner = (strongest, weakest) if direction == "s2w" else (weakest, strongest)
    pairs = {
        "pair": [([leader], learner)],
        "ensemble_teacher": [([s for s in range(S) if s != learner], learner)],
        "ensemble_student": [([leader], s) for s in range(S) if s != leader],
        "cascade": [
            ([order[i]], order[i + 1]) if direction == "s2w" else ([order[i + 1]], order[i]) for i in range(S - 1)
        ],
    }[variant]
    value, gradient = 0.0, np.zeros_like(Z)
    for teachers, student in pairs:
        for b in range(B):
            target = np.mean([Z[t, b] for t in teachers], axis=0)
            v, g = divergence_row(Z[student, b], target, tau, divergence)
            value += v / (B * len(pairs))
            gradient[student, b] += g / (B * len(pairs))
    return value, gradient
