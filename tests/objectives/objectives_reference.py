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


def wsld(Z, y, A, tau=2.0):
    """KD of the mean row, each sample times w = 1 - exp(-CE(mean row) / CE(A)), which is a constant."""
    teacher = A if A.ndim == 2 else A.mean(0)

    def row_loss(row, b):
        value, gradient = kd_row(row, teacher[b], tau)
        w = 1 - np.exp(-ce_row(row, y[b])[0] / ce_row(teacher[b], y[b])[0])
        return w * value, w * gradient

    return of_mean(Z, row_loss)


def head_tail_kd(Z, A, tau=3.0, head=0.5):
    """w KL(q || p) + (1 - w) KL(p || q), times tau²; w is a constant."""
    teacher = A if A.ndim == 2 else A.mean(0)

    def row_loss(row, b):
        p, q = softmax(row, tau), softmax(teacher[b], tau)
        of_head, so_far = [], 0.0
        for c in sorted(range(len(q)), key=lambda c: -q[c]):
            so_far += q[c]
            if so_far <= head or not of_head:
                of_head.append(c)
        w = sum(abs(p[c] - q[c]) for c in of_head) / abs(p - q).sum()
        log_ratio = log_softmax(row, tau) - log_softmax(teacher[b], tau)
        reverse = (p * log_ratio).sum()
        value, gradient = kl_row(row, teacher[b], tau)
        of_reverse = p * (log_ratio - reverse) / tau
        return tau**2 * (w * value + (1 - w) * reverse), tau**2 * (w * gradient + (1 - w) * of_reverse)

    return of_mean(Z, row_loss)


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


def logit_mse(Z, level=1.0):
    return ((Z - level) ** 2).mean(), 2 * (Z - level) / Z.size


def label_mse(Z, y):
    distance = Z - np.eye(Z.shape[-1])[y]
    return (distance**2).mean(), 2 * distance / Z.size


def fading_decay(W, S, delta=0.25, epsilon=1e-5):
    """Mean over t = 0..S-1 of Σ_w w² / (1 + k (|w| + ε)), k = e^(δt) - 1; its gradient in w is w (2 D - k |w|) / D²."""
    value, gradients = 0.0, [np.zeros_like(w) for w in W]
    for t in range(S):
        k = np.exp(delta * t) - 1
        for w, gradient in zip(W, gradients, strict=True):
            D = 1 + k * (np.abs(w) + epsilon)
            value += (w**2 / D).sum() / S
            gradient += w * (2 * D - k * np.abs(w)) / D**2 / S
    return value, gradients


def tet_of_some(Z, y, drawn, mse_weight=0.05):
    """(1-l) CE + l MSE over the drawn timesteps alone."""
    some = Z[drawn]
    (hard, hard_gradient), (level, level_gradient) = twce(some, y), logit_mse(some)
    gradient = np.zeros_like(Z)
    gradient[drawn] = (1 - mse_weight) * hard_gradient + mse_weight * level_gradient
    return (1 - mse_weight) * hard + mse_weight * level, gradient


def of_pairs(Z, pairs, tau):
    """Mean over (student, teacher) pairs of timesteps and over the batch of KD."""
    value, gradient = 0.0, np.zeros_like(Z)
    for student, teacher in pairs:
        for b in range(Z.shape[1]):
            v, g = kd_row(Z[student, b], Z[teacher, b], tau)
            value += v / (len(pairs) * Z.shape[1])
            gradient[student, b] += g / (len(pairs) * Z.shape[1])
    return value, gradient


def all_pairs(Z, tau=4.0):
    return of_pairs(Z, [(i, j) for i in range(len(Z)) for j in range(len(Z)) if i != j], tau)


def adjacent(Z, tau=1.0):
    return of_pairs(Z, [(t, t - 1) for t in range(1, len(Z))], tau)


def right_sum(Z, y, tau=3.0):
    """tau² mean of -Σ_c p_c log softmax(z_t)_c, p = softmax(q / tau), q the sum of the right rows; also through q.

    In z_t the gradient is softmax(z_t) - p; in q, with L_c = Σ_t log softmax(z_t)_c, it is -p_c (L_c - Σ_k p_k L_k) / tau.
    """
    S, B, C = Z.shape
    value, gradient = 0.0, np.zeros_like(Z)
    for b in range(B):
        right = [t for t in range(S) if int(np.argmax(Z[t, b])) == y[b]]
        q = sum((Z[t, b] for t in right), np.zeros(C))
        p = softmax(q, tau)
        logs = [log_softmax(Z[t, b]) for t in range(S)]
        for t in range(S):
            value -= tau * tau * (p * logs[t]).sum() / (S * B)
            gradient[t, b] += tau * tau * (softmax(Z[t, b]) - p) / (S * B)
        total = sum(logs)
        for t in right:
            gradient[t, b] -= tau * tau * p * (total - (p * total).sum()) / tau / (S * B)
    return value, gradient


def aligned_kd(Z, y, A, tau=3.0):
    """Of a wrong row the answer's place holds the label's logit, and both places of its teacher hold the smaller of the two."""

    def row_loss(s, b):
        answer, label = int(np.argmax(Z[s, b])), y[b]
        student, teacher = Z[s, b].copy(), (A[b] if A.ndim == 2 else A[s, b]).copy()
        student[answer] = student[label]
        if answer != label:
            teacher[answer] = teacher[label] = min(teacher[answer], teacher[label])
        value, gradient = kd_row(student, teacher, tau)
        if answer != label:
            gradient[label] += gradient[answer]
            gradient[answer] = 0
        return value, gradient

    return average(Z, row_loss)


def selective(Z, tau=3.0):
    def teacher(t, b):
        others = [s for s in range(len(Z)) if s != t]
        weights = []
        for s in others:
            confidence = 1 - entropy_row(Z[s, b])[0] / np.log(Z.shape[2])
            cosine = Z[s, b] @ Z[t, b] / np.sqrt((Z[s, b] @ Z[s, b]) * (Z[t, b] @ Z[t, b]))
            weights.append(np.exp(confidence * cosine))
        return sum(w * Z[s, b] for w, s in zip(weights, others, strict=True)) / sum(weights)

    return average(Z, lambda t, b: kd_row(Z[t, b], teacher(t, b), tau))


def feature_distance(features, teacher_features):
    """Value, and the gradient in each layer's features."""
    batch = len(features[0])
    gaps = [f - a for f, a in zip(features, teacher_features, strict=True)]
    return sum((gap**2).sum() for gap in gaps) / batch, [2 * gap / batch for gap in gaps]


def feature_mse(features, teacher_features):
    gaps = [f - a for f, a in zip(features, teacher_features, strict=True)]
    return sum((gap**2).mean() for gap in gaps), [2 * gap / gap.size for gap in gaps]


def similarity(features, teacher_features):
    """Σ ||G - H||² / B², where row i of G is m_i / |m_i| and M = F Fᵀ.

    In m_i the gradient is (g_i - G_i (G_i · g_i)) / |m_i| with g = 2 (G - H) / B²; in F it is (M' + M'ᵀ) F.
    """
    value, gradients = 0.0, []
    for student, teacher in zip(features, teacher_features, strict=True):
        batch = len(student)
        F, A = student.reshape(batch, -1), teacher.reshape(batch, -1)
        M, N = F @ F.T, A @ A.T
        G = np.array([row / np.sqrt((row**2).sum()) for row in M])
        H = np.array([row / np.sqrt((row**2).sum()) for row in N])
        value += ((G - H) ** 2).sum() / batch**2
        g = 2 * (G - H) / batch**2
        dM = np.array([(g[i] - G[i] * (G[i] @ g[i])) / np.sqrt((M[i] ** 2).sum()) for i in range(batch)])
        gradients.append(((dM + dM.T) @ F).reshape(student.shape))
    return value, gradients


def blurred_distance(features, teacher_features, kept):
    """Σ ||kept F - A max F / max A||² / B, the second summand a constant, with nothing generated: G is the identity."""
    value, gradients = 0.0, []
    for student, teacher, channels in zip(features, teacher_features, kept, strict=True):
        out = channels[:, :, None, None]
        gap = out * student - teacher * (student.max() / teacher.max())
        value += (gap**2).sum() / len(student)
        gradients.append(2 * out * gap / len(student))
    return value, gradients


def noisy_kd(Z, A, drawn, noise=0.1, tau=2.0):
    """τ² KL(softmax(A/τ) || (1-noise) softmax(z/τ) + noise softmax(n/τ)), n = mean z + drawn · variance of z; by the chain rule."""
    teacher = A if A.ndim == 2 else A.mean(0)

    def row_loss(row, b):
        C, centred = len(row), row - row.mean()
        n = row.mean() + drawn[b] * (centred**2).sum() / (C - 1)
        p, r, q = softmax(row, tau), softmax(n, tau), softmax(teacher[b], tau)
        mixed = (1 - noise) * p + noise * r
        value = (q * np.log(q / mixed)).sum()
        slope = -q / mixed
        of_row = (1 - noise) * (np.diag(p) - np.outer(p, p)) @ slope / tau
        of_noise = noise * (np.diag(r) - np.outer(r, r)) @ slope / tau
        # dn_j / dz_k = 1/C + drawn_j · 2 centred_k / (C - 1)
        of_row += of_noise.sum() / C + (of_noise @ drawn[b]) * 2 * centred / (C - 1)
        return tau**2 * value, tau**2 * of_row

    return of_mean(Z, row_loss)


def pooled_linear(features, weight, bias):
    """A classifier: the mean over positions, then a linear layer."""
    return features.mean((2, 3)) @ weight.T + bias


def classified_kd(features, A, weight, bias, tau=3.0):
    """KD of what a pooled linear classifier makes of the last features; the value, and the gradient in every layer's features."""
    student, (B, _, H, W) = pooled_linear(features[-1], weight, bias), features[-1].shape
    rows = [kd_row(student[b], A[b], tau) for b in range(B)]
    gradients = [np.zeros_like(f) for f in features]
    for b, (_, gradient) in enumerate(rows):
        gradients[-1][b] += (gradient @ weight / (B * H * W))[:, None, None]
    return sum(value for value, _ in rows) / B, gradients


def activation_map_kl(features, teacher_features, weight, bias, S, tau=2.0):
    """KL between maps of B·H·W values, brought to 0..1 over the batch; the gradient through smallest and largest value too."""
    B, _, H, W = features[-1].shape
    answers = pooled_linear(teacher_features[-1], weight, bias).argmax(1)
    seen = np.maximum(np.einsum("bc,bchw->bhw", weight[answers], teacher_features[-1]), 0).reshape(B, -1)
    spikes = S * features[-1].sum(1).reshape(B, -1)
    low, high, gap = spikes.argmin(), spikes.argmax(), spikes.max() - spikes.min() + 1e-3
    student, teacher = (spikes - spikes.min()) / gap, (seen - seen.min()) / (seen.max() - seen.min() + 1e-3)
    rows = [kl_row(student[b], teacher[b], tau) for b in range(B)]
    of_maps = np.stack([gradient for _, gradient in rows]) / B
    of_spikes = of_maps / gap
    of_spikes.flat[low] += (-of_maps / gap + of_maps * student / gap).sum()
    of_spikes.flat[high] -= (of_maps * student / gap).sum()
    gradients = [np.zeros_like(f) for f in features]
    gradients[-1] += S * of_spikes.reshape(B, 1, H, W)
    return sum(value for value, _ in rows) / B, gradients


def exits_ce(Z, y):
    value, gradient = twce(Z, y)
    return len(Z) * value, len(Z) * gradient


def exits_kd(Z, tau=3.0):
    """Exits a_1..a_n of an ANN, then z_1..z_n: a_i <- a_n for i < n, and z_i <- a_i for all."""
    n, B = len(Z) // 2, Z.shape[1]
    pairs = [(i, n - 1) for i in range(n - 1)] + [(n + i, i) for i in range(n)]
    value, gradient = 0.0, np.zeros_like(Z)
    for student, teacher in pairs:
        for b in range(B):
            v, g = kd_row(Z[student, b], Z[teacher, b], tau)
            value += v / B
            gradient[student, b] += g / B
    return value, gradient


def conv3x3(x, weight, bias):
    """out[b, o, i, j] = bias[o] + Σ_{c, k, l} weight[o, c, k, l] x[b, c, i + k - 1, j + l - 1], zeros around x."""
    B, _, H, W = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((B, len(weight), H, W))
    for i in range(H):
        for j in range(W):
            out[:, :, i, j] = bias + np.tensordot(padded[:, :, i : i + 3, j : j + 3], weight, ((1, 2, 3), (1, 2, 3)))
    return out


def weighted_heads_ce(Z, y, weight=0.5):
    """Row by row; the last head weighs 1, the others `weight`, and the weights are divided by their sum."""
    S, B, _ = Z.shape
    value, gradient = 0.0, np.zeros_like(Z)
    for s in range(S):
        share = (1 if s == S - 1 else weight) / (1 + (S - 1) * weight)
        for b in range(B):
            v, g = ce_row(Z[s, b], y[b])
            value += share * v / B
            gradient[s, b] += share * g / B
    return value, gradient


def mutual(Z, tau=3.0):
    """The last head teaches each other head and learns from each, as in `of_pairs` without tau²."""
    own = len(Z) - 1
    pairs = [pair for head in range(own) for pair in ((head, own), (own, head))]
    value, gradient = of_pairs(Z, pairs, tau)
    return value / tau**2, gradient / tau**2
