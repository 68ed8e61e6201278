"""Distillation into the submodels, from a trained network or from the submodels themselves.

Shapes: logits [S, B, C], teacher logits [B, C] or [S, B, C], target int64 [B]; every loss is a scalar, a mean over S
and B. z_t = logits[t], A = teacher logits, KD(s <- q) = tau² · KL(softmax(q / tau) || softmax(s / tau)), and the teacher q is
detached unless `teacher_grad`. All raise UserError for inputs of another type or shape, and for tau outside 0.001..1e6; those that
take a target raise it for labels as the task losses do.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .checks import (
    check_choice,
    check_logits,
    check_share,
    check_target,
    check_teacher,
    check_temperature,
    is_masked,
)
from .divergences import among_kept, centred, kd, kl_of_logs, log_probabilities
from .submodels import REDUCTIONS, Average, compares_submodels, mean_of, prefix_means, right_submodels
from .task import Labels, cross_entropies


def logit_kd(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0, teacher_grad: bool = False) -> Tensor:
    """Standard logit distillation (SKL), of the mean logits: KD(mean_t z_t <- A); a teacher [S, B, C] is averaged."""
    logits = check_logits(logits)
    teacher = check_teacher(teacher_logits, logits)
    teacher = teacher.mean(0) if teacher.ndim == 3 else teacher
    return kd(logits.mean(0), teacher, temperature=check_temperature(temperature), teacher_grad=teacher_grad).mean()


def wsld(logits: Tensor, target: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Logit distillation with weighted soft labels: mean over the samples of w KD(z <- A), z = mean_t z_t.

    w = 1 - exp(-CE(z, y) / CE(A, y)), detached and without temperature: the weight grows with the student's loss relative to
    the teacher's. A teacher [S, B, C] is averaged. BKDSNN's released code has the soft cross-entropy in place of KL: the
    gradient is the same, the value higher by the entropy of the softened teacher, times tau² and w.

    Zhou et al.: Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective (ICLR 2021).
    """
    logits = check_logits(logits)
    teacher = check_teacher(teacher_logits, logits)
    teacher = teacher.mean(0) if teacher.ndim == 3 else teacher
    both = torch.stack([logits.mean(0), among_kept(logits.mean(0), teacher)]).detach()
    of_student, of_teacher = cross_entropies(both, Labels(check_target(target, logits)))
    # a teacher may be so sure of a label that its cross-entropy is 0
    weight = -torch.expm1(-of_student / of_teacher.clamp(min=1e-7))
    return (weight * kd(logits.mean(0), teacher, temperature=check_temperature(temperature))).mean()


def head_tail_kd(logits: Tensor, teacher_logits: Tensor, *, head: float = 0.5, temperature: float = 3.0) -> Tensor:
    """Logit distillation in both directions: tau² [w KL(q || p) + (1 - w) KL(p || q)], p of z = mean_t z_t and q of A, at tau.

    The head is the teacher's most probable classes, as many as together have a probability of at most `head`, and at least one; the
    others are the tail. w = Σ_head |p - q| / Σ |p - q|, detached: forward KL weighs as much as the head is off, reverse KL as much
    as the tail is. A teacher [S, B, C] is averaged. Classes that one of the two masks are left out.

    Wu et al.: Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models (AKL, COLING 2025).
    """
    logits, head, temperature = check_logits(logits), check_share("head", head), check_temperature(temperature)
    teacher = check_teacher(teacher_logits, logits).detach()
    student, teacher = logits.mean(0), (teacher.mean(0) if teacher.ndim == 3 else teacher)
    both = among_kept(teacher, student), among_kept(student, teacher)
    log_p, log_q = (log_probabilities(part, temperature) for part in both)
    q, classes = log_q.exp().sort(dim=-1, descending=True, stable=True)
    apart = (log_p.detach().exp().gather(-1, classes) - q).abs()
    within = q.cumsum(-1) <= (head if head < 1 else math.inf)  # a sum of all may be larger than 1 by rounding
    of_head = within.index_fill(-1, torch.zeros(1, dtype=torch.int64, device=q.device), True)
    of_head_share = (apart * of_head).sum(-1) / apart.sum(-1).clamp(min=torch.finfo(apart.dtype).tiny)
    forward, reverse = kl_of_logs(log_p, log_q), kl_of_logs(log_q, log_p)
    return temperature**2 * (of_head_share * forward + (1 - of_head_share) * reverse).mean()


def noisy_kd(logits: Tensor, teacher_logits: Tensor, *, noise: float = 0.1, temperature: float = 2.0) -> Tensor:
    """Logit distillation of a student whose prediction is mixed with noise: tau² KL(softmax(A / tau) || p).

    p = (1 - noise) softmax(z / tau) + noise softmax(n / tau) with z = mean_t z_t, and n normally distributed: its mean is the
    mean of z over the classes, its standard deviation the variance of z over them. It is drawn from torch's global generator in
    every call; gradients flow through both. A teacher [S, B, C] is averaged.

    A Closer Look at Knowledge Distillation in Spiking Neural Network Training (CKDSNN), from its released code.
    """
    logits, noise, temperature = check_logits(logits), check_share("noise", noise), check_temperature(temperature)
    teacher = check_teacher(teacher_logits, logits)
    teacher, mean = (teacher.mean(0) if teacher.ndim == 3 else teacher), logits.mean(0)
    # the mean of the noise would shift all logits by the same value, which softmax ignores
    masked = is_masked(mean)
    variance = centred(mean).square().sum(-1, keepdim=True) / ((~masked).sum(-1, keepdim=True) - 1).clamp(min=1)
    drawn = (torch.randn_like(mean) * variance).masked_fill(masked, -math.inf)
    parts = [
        log_probabilities(part, temperature) + (math.log(share) if share else -math.inf)
        for part, share in ((mean, 1 - noise), (drawn, noise))
    ]
    log_q = log_probabilities(among_kept(mean, teacher.detach()), temperature)
    return temperature**2 * kl_of_logs(torch.logaddexp(*parts), log_q).mean()


def twkl(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0, teacher_grad: bool = False) -> Tensor:
    """Timestep-wise distillation: mean_t KD(z_t <- A); with a teacher [S, B, C], timestep t learns from A_t.

    Yu et al.: Efficient Logit-based Knowledge Distillation of Deep Spiking Neural Networks for Full-Range Timestep
    Deployment (ICML 2025).
    """
    logits = check_logits(logits)
    teacher = check_teacher(teacher_logits, logits)
    return kd(logits, teacher, temperature=check_temperature(temperature), teacher_grad=teacher_grad).mean()


def prefix_kd(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0, teacher_grad: bool = False
) -> Tensor:
    """Logit distillation of the prediction after k timesteps, for every k: mean_k KD(mean(z_1..z_k) <- A).

    With a teacher [S, B, C], the mean of the first k timesteps learns from the mean of the teacher's first k.
    """
    logits = check_logits(logits)
    teacher = check_teacher(teacher_logits, logits)
    teacher = prefix_means(teacher) if teacher.ndim == 3 else teacher
    temperature = check_temperature(temperature)
    return kd(prefix_means(logits), teacher, temperature=temperature, teacher_grad=teacher_grad).mean()


@compares_submodels
def twsd(
    logits: Tensor,
    target: Tensor | None = None,
    *,
    teacher: str = "ensemble",
    temperature: float = 3.0,
    average: Average | None = None,
    teacher_grad: bool = False,
) -> Tensor:
    """Timestep-wise self-distillation: mean_t KD(z_t <- q), where `teacher` names q.

    "ensemble": the mean of all timesteps (the paper). "correct": the mean of the timesteps that are right; if none
    is, the target is uniform (the released code). "correct_masked": the same, but samples with no right timestep do
    not count, as in `reliable`. The last two need the target. For "ensemble" `teacher_grad` changes nothing: the mean
    logits minimise this loss over q, so its gradient with respect to q is 0.

    Yu et al.: Efficient Logit-based Knowledge Distillation of Deep Spiking Neural Networks for Full-Range Timestep
    Deployment (ICML 2025).
    """
    logits = check_logits(logits)
    check_choice("teacher", teacher, ("ensemble", "correct", "correct_masked"))
    if teacher == "correct_masked":
        return reliable(logits, target, temperature=temperature, average=average, teacher_grad=teacher_grad)
    q = logits.mean(0)
    if teacher == "correct":
        q = mean_of(logits, right_submodels(logits, check_target(target, logits)))[0]
    return kd(logits, q, temperature=check_temperature(temperature), teacher_grad=teacher_grad).mean()


@compares_submodels
def reliable(
    logits: Tensor,
    target: Tensor | None,
    *,
    teachers: str = "reliable",
    temperature: float = 3.0,
    reduction: str = "mean",
    average: Average | None = None,
    teacher_grad: bool = False,
) -> Tensor:
    """Distillation from the reliable submodels, those that are right: mean over S and V of KD(z_s[b] <- q[b]).

    q[b] is the mean logits of the submodels that classify sample b correctly, and V holds the samples for which at
    least one does; if V is empty, the loss is 0 with zero gradient. `average`, the mean of a tensor over the processes that share
    the batch, makes V cover the whole batch: then the mean of the processes' gradients is the gradient of one process.

    teachers: "reliable" as above, or the paper's controls: "unreliable", those that are wrong, and "all".
    reduction: "mean" over the S submodels, or their "sum", as in the paper.

    Zhao et al.: Enhanced Self-Distillation Framework for Efficient Spiking Neural Network Training (NeurIPS 2025).
    """
    logits = check_logits(logits)
    check_choice("teachers", teachers, TEACHERS)
    check_choice("reduction", reduction, REDUCTIONS)
    teacher, taught = mean_of(logits, TEACHERS[teachers](right_submodels(logits, check_target(target, logits))))
    loss = kd(logits, teacher, temperature=check_temperature(temperature), teacher_grad=teacher_grad)
    count = taught.sum().to(loss.dtype)
    count = count.clamp(min=1) if average is None else average(count).clamp(min=1e-6)
    total = (loss * taught).sum() / count
    return total if reduction == "sum" else total / len(logits)


TEACHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "reliable": lambda right: right,
    "unreliable": lambda right: ~right,
    "all": torch.ones_like,
}
