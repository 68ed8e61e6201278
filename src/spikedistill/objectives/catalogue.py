"""The published objectives as data. For a new paper, add an entry here and a test.

z_t: logits of submodel t (a timestep or a head) of S; A: logits of a trained network; y: labels;
CE: cross-entropy; KL(s <- q) = KL(softmax(q / tau) || softmax(s / tau)), q detached; KD = tau² KL; H: entropy.
"""

from . import distillation, strong_weak, task
from .checks import check_share, check_weights
from .composition import Objective, Term
from .registry import register_objective

# Task losses and regularisers


@register_objective
def sce() -> Objective:
    """Cross-entropy of the mean logits, the usual way to train: CE(mean_t z_t, y).

    Published: 76.33 on CIFAR-100, MS-ResNet-18, T=4 (disputed).
    """
    return Objective("sce", [Term("sce", 1.0, task.sce)])


@register_objective
def twce() -> Objective:
    """Cross-entropy of every timestep: mean_t CE(z_t, y).

    Deng et al.: Temporal Efficient Training (ICLR 2022), without its regulariser; the task loss of TWKD and TSER.
    Published: 78.58 on CIFAR-100, ResNet-18, T=4 (disputed).
    """
    return Objective("twce", [Term("twce", 1.0, task.twce)])


@register_objective
def prefix() -> Objective:
    """Cross-entropy of the prediction after k timesteps, for every k: mean_k CE(mean(z_1..z_k), y).

    Published: in no paper.
    """
    return Objective("prefix", [Term("prefix_ce", 1.0, task.prefix_ce)])


@register_objective(weights=["epsilon"])
def label_smoothing(epsilon: float = 0.1) -> Objective:
    """Cross-entropy of the mean logits against smoothed labels: CE(mean_t z_t, (1-epsilon) y + epsilon/C).

    A control for methods that soften predictions. Szegedy et al.: Rethinking the Inception Architecture (CVPR 2016).
    Published: no number that we could check.
    """
    check_share("epsilon", epsilon)
    return Objective("label-smoothing", [Term("sce", 1.0, task.sce, {"label_smoothing": epsilon})])


@register_objective
def entropy_regularisation(gamma: float = 0.1) -> Objective:
    """Cross-entropy of the mean logits with every timestep's entropy rewarded: CE(mean_t z_t, y) - gamma mean_t H(z_t).

    A control for methods that soften predictions. Pereyra et al.: Penalizing Confident Output Distributions (2017).
    Published: no number that we could check.
    """
    check_weights(gamma=gamma)
    return Objective("entropy-regularisation", [Term("sce", 1.0, task.sce), Term("entropy", -gamma, task.entropy)])


# A trained network teaches


@register_objective
def skd(alpha: float = 0.2, temperature: float = 3.0) -> Objective:
    """Standard logit distillation, of the mean logits: CE(mean_t z_t, y) + alpha KD(mean_t z_t <- A).

    Hinton et al.: Distilling the Knowledge in a Neural Network (2015); the baseline of TWKD.
    Published: 78.32 on CIFAR-100, ResNet-18, T=4 (disputed).
    """
    check_weights(alpha=alpha)
    soft = Term("logit_kd", alpha, distillation.logit_kd, {"temperature": temperature})
    return Objective("skd", [Term("sce", 1.0, task.sce), soft])


@register_objective
def prefix_kd(alpha: float = 0.2, temperature: float = 3.0) -> Objective:
    """Distillation of the prediction after k timesteps: mean_k [CE(m_k, y) + alpha KD(m_k <- A)].

    m_k = mean(z_1..z_k), for every k = 1..S.
    Published: in no paper.
    """
    check_weights(alpha=alpha)
    soft = Term("prefix_kd", alpha, distillation.prefix_kd, {"temperature": temperature})
    return Objective("prefix-kd", [Term("prefix_ce", 1.0, task.prefix_ce), soft])


@register_objective
def sce_twkl(alpha: float = 0.2, temperature: float = 3.0) -> Objective:
    """Cross-entropy of the mean logits, distillation of every timestep: CE(mean_t z_t, y) + alpha mean_t KD(z_t <- A).

    Yu et al.: Efficient Logit-based Knowledge Distillation (ICML 2025), an ablation: only the soft term is decoupled over time.
    Published: 78.60 on CIFAR-100, ResNet-18, T=4 (disputed).
    """
    check_weights(alpha=alpha)
    soft = Term("twkl", alpha, distillation.twkl, {"temperature": temperature})
    return Objective("sce-twkl", [Term("sce", 1.0, task.sce), soft])


@register_objective
def twce_skl(alpha: float = 0.2, temperature: float = 3.0) -> Objective:
    """Cross-entropy of every timestep, distillation of the mean logits: mean_t CE(z_t, y) + alpha KD(mean_t z_t <- A).

    Yu et al.: Efficient Logit-based Knowledge Distillation (ICML 2025), an ablation: only the hard term is decoupled over time.
    Published: 78.74 on CIFAR-100, ResNet-18, T=4 (disputed).
    """
    check_weights(alpha=alpha)
    soft = Term("logit_kd", alpha, distillation.logit_kd, {"temperature": temperature})
    return Objective("twce-skl", [Term("twce", 1.0, task.twce), soft])


@register_objective
def twce_twkl(alpha: float = 0.2, temperature: float = 3.0) -> Objective:
    """Cross-entropy and distillation of every timestep: mean_t [CE(z_t, y) + alpha KD(z_t <- A)].

    Yu et al.: Efficient Logit-based Knowledge Distillation (ICML 2025), its ablation without self-distillation.
    Published: 79.05 on CIFAR-100, ResNet-18, T=4 (disputed).
    """
    check_weights(alpha=alpha)
    soft = Term("twkl", alpha, distillation.twkl, {"temperature": temperature})
    return Objective("twce-twkl", [Term("twce", 1.0, task.twce), soft])


@register_objective
def twce_twsd(beta: float = 0.5, temperature: float = 3.0, teacher: str = "ensemble") -> Objective:
    """Cross-entropy of every timestep, which also learns from the ensemble: mean_t [CE(z_t, y) + beta KD(z_t <- q)].

    q is the mean of all timesteps ("ensemble") or of those that are right ("correct", "correct_masked").
    Yu et al.: Efficient Logit-based Knowledge Distillation (ICML 2025), its ablation without a trained network.
    Published: 78.94 on CIFAR-100, ResNet-18, T=4 (disputed).
    """
    check_weights(beta=beta)
    self_distillation = Term("twsd", beta, distillation.twsd, {"temperature": temperature, "teacher": teacher})
    return Objective("twce-twsd", [Term("twce", 1.0, task.twce), self_distillation])


@register_objective
def twkd(alpha: float = 0.2, beta: float = 0.5, temperature: float = 3.0, teacher: str = "ensemble") -> Objective:
    """Timestep-wise distillation, from a trained network and the ensemble: TWCE + alpha TWKL + beta TWSD.

    mean_t [CE(z_t, y) + alpha KD(z_t <- A) + beta KD(z_t <- q)], q as in twce-twsd; the released ImageNet code has temperature 1.
    Yu et al.: Efficient Logit-based Knowledge Distillation of Deep Spiking Neural Networks (ICML 2025).
    Published: 79.10 on CIFAR-100, ResNet-18, T=4 (disputed).
    """
    check_weights(alpha=alpha, beta=beta)
    soft = Term("twkl", alpha, distillation.twkl, {"temperature": temperature})
    self_distillation = Term("twsd", beta, distillation.twsd, {"temperature": temperature, "teacher": teacher})
    return Objective("twkd", [Term("twce", 1.0, task.twce), soft, self_distillation])


@register_objective
def tser_unofficial(alpha: float = 0.5, gamma: float = 0.1, temperature: float = 3.0) -> Objective:
    """Temporal separation with entropy rewarded. The paper's weights are not public; these are a third party's.

    mean_t [(1-alpha) CE(z_t, y) + alpha KD(z_t <- A) - gamma H(z_t)].
    Yu et al.: Temporal Separation with Entropy Regularization for Knowledge Distillation in SNNs (CVPR 2025).
    Published: 78.30 on CIFAR-100, ResNet-18, T unknown (disputed).
    """
    check_share("alpha", alpha)
    check_weights(gamma=gamma)
    hard, reward = Term("twce", 1 - alpha, task.twce), Term("entropy", -gamma, task.entropy)
    soft = Term("twkl", alpha, distillation.twkl, {"temperature": temperature})
    return Objective("tser-unofficial", [hard, soft, reward])


# The submodels teach each other


@register_objective
def s2w(
    weight: float = 1.0,
    temperature: float = 2.0,
    variant: str = "pair",
    measure: str = "confidence",
    divergence: str = "kl",
    teacher_grad: bool = False,
) -> Objective:
    """The strongest timestep of the batch teaches the weakest: CE(mean_t z_t, y) + weight KL(weak <- strong), no tau².

    Ding et al.: Synergy Between the Strong and the Weak (NeurIPS 2025); `strong2weak` explains variants and measures.
    Published: 78.25 on CIFAR-100, MS-ResNet-18, T=4 (disputed).
    """
    check_weights(weight=weight)
    options = {"variant": variant, "measure": measure, "divergence": divergence, "teacher_grad": teacher_grad}
    pair = Term("strong2weak", weight, strong_weak.strong2weak, {"temperature": temperature, **options})
    return Objective("s2w", [Term("sce", 1.0, task.sce), pair])


@register_objective
def w2s(
    weight: float = 1.0,
    temperature: float = 2.0,
    variant: str = "pair",
    measure: str = "confidence",
    divergence: str = "kl",
    teacher_grad: bool = False,
) -> Objective:
    """The weakest timestep of the batch teaches the strongest: CE(mean_t z_t, y) + weight KL(strong <- weak), no tau².

    Ding et al.: Synergy Between the Strong and the Weak (NeurIPS 2025); `strong2weak` explains variants and measures.
    Published: 77.98 on CIFAR-100, MS-ResNet-18, T=4 (disputed).
    """
    check_weights(weight=weight)
    options = {"variant": variant, "measure": measure, "divergence": divergence, "teacher_grad": teacher_grad}
    pair = Term("weak2strong", weight, strong_weak.weak2strong, {"temperature": temperature, **options})
    return Objective("w2s", [Term("sce", 1.0, task.sce), pair])


@register_objective
def s2w_w2s(
    s2w_weight: float = 1.0,
    w2s_weight: float = 1.0,
    temperature: float = 2.0,
    variant: str = "pair",
    measure: str = "confidence",
    divergence: str = "kl",
    teacher_grad: bool = False,
) -> Objective:
    """Strongest and weakest teach each other: CE(mean_t z_t, y) + KL(weak <- strong) + KL(strong <- weak), weighted.

    Ding et al.: Synergy Between the Strong and the Weak (NeurIPS 2025), its simultaneous variant.
    Published: 79.17 on CIFAR10-DVS, VGG-9, T=5 (disputed).
    """
    check_weights(s2w_weight=s2w_weight, w2s_weight=w2s_weight)
    options = {"variant": variant, "measure": measure, "divergence": divergence, "teacher_grad": teacher_grad}
    strong = Term("strong2weak", s2w_weight, strong_weak.strong2weak, {"temperature": temperature, **options})
    weak = Term("weak2strong", w2s_weight, strong_weak.weak2strong, {"temperature": temperature, **options})
    return Objective("s2w-w2s", [Term("sce", 1.0, task.sce), strong, weak])


# Auxiliary heads, of which the network's own is the last


@register_objective(weights=["alpha", "beta"])
def esd(
    alpha: float = 1.0,
    beta: float = 0.3,
    temperature: float = 3.0,
    teachers: str = "reliable",
    factor: float = 1.0,
    reduction: str = "mean",
) -> Objective:
    """Every head learns from the labels and from the heads that are right: factor · mean_s [CE(z_s, y) + beta KD(z_s <- q)].

    q is the mean of the heads that are right; samples with none do not count in the second term. alpha weighs the
    cross-entropy of the branches, all heads but the last. The paper's loss is a sum over the heads: reduction="sum", however many
    there are, or factor=S for S of them. Its code also divides the gradient by T: `--gradient-scale 1/T`. beta is 0.3 on CIFAR
    and ImageNet, 0.1 for event frames; alpha is 0.7 on ImageNet. Its controls: beta=0, and teachers "all" or "unreliable".
    Zhao et al.: Enhanced Self-Distillation Framework for Efficient SNN Training (NeurIPS 2025).
    Published: 80.20 on CIFAR-100, ResNet-18, T=6 (disputed).
    """
    check_weights(alpha=alpha, beta=beta, factor=factor)
    suffix = "_sum" if reduction == "sum" else ""
    labels = Term(f"heads_ce{suffix}", factor, task.heads_ce, {"branch_weight": alpha, "reduction": reduction})
    options = {"temperature": temperature, "teachers": teachers, "reduction": reduction}
    teaching = Term(f"reliable{suffix}", factor * beta, distillation.reliable, options)
    return Objective("esd", [labels, teaching], submodels="heads")
