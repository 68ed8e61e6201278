"""The baselines of the papers, as data, if they are objectives; docs/methods/baselines.md names the others.

The symbols are those of `catalogue`; F_l is the student's mean rate at layer l, A_l the teacher's activation there.
"""

from . import distillation, features, joint, selective_alignment, surrogate_modules, task, teacher_classifier, timesteps
from .checks import check_share, check_weights
from .composition import Objective, Term
from .registry import register_objective

# Task losses


@register_objective
def tet(mse_weight: float = 0.05) -> Objective:
    """Cross-entropy of every timestep with all logits held near 1: mean_t [(1-l) CE(z_t, y) + l MSE(z_t, 1)].

    Deng et al.: Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting (ICLR 2022). With l=0 this is
    `twce`. l is 0.05, as also in SLTT's code; TET's script for event frames has 0.001.
    Published: no number that we could check.
    """
    check_share("mse_weight", mse_weight)
    return Objective("tet", [Term("twce", 1 - mse_weight, task.twce), Term("logit_mse", mse_weight, task.logit_mse)])


@register_objective(weights=["mse_weight"])
def sltt_k(k: int = 2, mse_weight: float = 0.05) -> Objective:
    """The loss of `tet` over k timesteps drawn for each batch; the other timesteps are ignored. With `--gradient sltt`: SLTT-K.

    The loss is a mean over the k timesteps; the code divides their sum by T.
    Its k is 2, and 4 on DVS-Gesture.
    Meng et al.: Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural Networks (ICCV 2023).
    Published: no number that we could check.
    """
    return Objective("sltt-k", [Term("tet_of_some", 1.0, task.tet_of_some, {"k": k, "mse_weight": mse_weight})])


# The timesteps teach each other


@register_objective
def etc(weight: float = 1.0, temperature: float = 4.0) -> Objective:
    """Every timestep learns from every other: CE(mean_t z_t, y) + weight · mean over ordered pairs i≠j of KD(z_i <- z_j).

    Zhao et al.: Improving Stability and Performance of Spiking Neural Networks through Enhancing Temporal Consistency (2023).
    Published: no number that we could check.
    """
    check_weights(weight=weight)
    pairs = Term("all_pairs", weight, timesteps.all_pairs, {"temperature": temperature})
    return Objective("etc", [Term("sce", 1.0, task.sce), pairs])


@register_objective
def tks(alpha: float = 0.7, temperature: float = 3.0) -> Objective:
    """Timesteps learn from the sum of the right ones, with a growing weight: a CE(mean_t z_t, y) + (1-a) mean_t tau² CE(z_t, q).

    q = softmax(Σ z_s / tau) over the timesteps s that are right, not detached, and z_t is not softened. a falls in a straight
    line from 1 in the first epoch towards 1 - alpha: a = 1 - alpha e/E in epoch e = 0, 1, ... of E, as the code counts.
    Dong et al.: Temporal Knowledge Sharing Enable Spiking Neural Network Learning from Past and Future (TKS, 2023).
    Published: 79.89 on CIFAR-100, ResNet-19, T=4 (disputed).
    """
    check_share("alpha", alpha)
    soft = Term("right_sum", 0.0, timesteps.right_sum, {"temperature": temperature}, end_weight=alpha)
    return Objective("tks", [Term("sce", 1.0, task.sce, end_weight=1 - alpha), soft])


@register_objective
def mps_guidance(weight: float = 1.0, temperature: float = 1.0) -> Objective:
    """Every timestep learns from the one before, which is one half of MPS: CE(mean_t z_t, y) + weight mean_t KD(z_t <- z_{t-1}).

    The other half, smoothing membrane potentials over time, changes the neuron: `smoothed-lif`, which the method `mps-unofficial`
    adds. Alone this is not MPS. Weight, temperature and the mean over the S-1 pairs are inferred.
    Ding et al.: Rethinking Spiking Neural Networks from an Ensemble Learning Perspective (ICLR 2025).
    Published: no number that we could check.
    """
    check_weights(weight=weight)
    pairs = Term("adjacent", weight, timesteps.adjacent, {"temperature": temperature})
    return Objective("mps-guidance", [Term("sce", 1.0, task.sce), pairs])


# A trained network teaches


@register_objective
def seal_unofficial(alpha: float = 0.6, beta: float = 0.15, temperature: float = 3.0) -> Objective:
    """Distils wrong timesteps with their two competing logits made equal, and all timesteps from a mixture of the others.

    mean_t [CE(z_t, y) + alpha KD(z'_t <- A'_t) + beta KD(z_t <- Σ_{s≠t} w_ts z_s)]; `aligned_kd` and `selective` explain z', A' and
    w. Form and weights are those of the code of the paper's anonymous submission; that the published numbers have this form is
    inferred.
    Sun et al.: Not All Timesteps Matter Equally: Selective Alignment Knowledge Distillation for SNNs (2026).
    Published: no number that we could check.
    """
    check_weights(alpha=alpha, beta=beta)
    aligned = Term("aligned_kd", alpha, selective_alignment.aligned_kd, {"temperature": temperature})
    mixture = Term("selective", beta, selective_alignment.selective, {"temperature": temperature})
    return Objective("seal-unofficial", [Term("twce", 1.0, task.twce), aligned, mixture])


@register_objective
def lasnn_unofficial(alpha: float = 7e-5, layers: str = "stages") -> Objective:
    """Mean rates learn from an ANN's activations, layer by layer: CE(mean_t z_t, y) + alpha Σ_l ||F_l - A_l||² / B.

    Form and weight are those of the LaSNN baseline in BKDSNN's code; of LaSNN's own paper we know only that it compares attention
    maps instead. Inferred: N in this code is B. It has four layers, the ends of the stages. Hong et al.: LaSNN: Layer-wise
    ANN-to-SNN Distillation for Effective and Efficient Training in Deep SNNs (2023).
    Published: no number that we could check.
    """
    check_weights(alpha=alpha)
    near = Term("feature_distance", alpha, features.feature_distance)
    return Objective("lasnn-unofficial", [Term("sce", 1.0, task.sce), near], layers=_names(layers))


@register_objective
def kdsnn(alpha: float = 0.2, beta: float = 7e-5, temperature: float = 3.0, layers: str = "stages") -> Objective:
    """An ANN teaches logits and mean rates: CE(mean_t z_t, y) + alpha KD(mean_t z_t <- A) + beta Σ_l ||F_l - A_l||² / B.

    Xu et al.: Constructing Deep Spiking Neural Networks from Artificial Neural Networks with Knowledge Distillation (CVPR 2023).
    beta is that of BKDSNN's code, which repeats the method and aligns layers of different widths with 1x1 convolutions; here the
    widths must be the same. Inferred: alpha and temperature, those of `skd`.
    Published: 93.41 on CIFAR-10, ResNet-18, T=4 (disputed).
    """
    check_weights(alpha=alpha, beta=beta)
    soft = Term("logit_kd", alpha, distillation.logit_kd, {"temperature": temperature})
    near = Term("feature_distance", beta, features.feature_distance)
    return Objective("kdsnn", [Term("sce", 1.0, task.sce), soft, near], layers=_names(layers))


@register_objective
def sakd(alpha: float = 100.0, layers: str = "stages") -> Objective:
    """Transformed mean rates learn from an ANN's activations: CE(mean_t z_t, y) + alpha Σ_l MSE(h_l(F_l), A_l).

    h_l is a 3x3 convolution without bias and a batch-norm, trained alongside and dropped afterwards. From the released code,
    whose default has no distillation of the logits, four layers (the ends of the stages) and an ANN of the student's layout. Qiu
    et al.: Self-Architectural Knowledge Distillation for Spiking Neural Networks (Neural Networks, 2024).
    Published: no number that we could check.
    """
    check_weights(alpha=alpha)
    near = Term("feature_mse", alpha, features.feature_mse)
    return Objective("sakd", [Term("sce", 1.0, task.sce), near], layers=_names(layers), transform="conv_norm")


@register_objective
def bkdsnn_unofficial(
    alpha: float = 1.0,
    beta: float = 7e-5,
    mask: float = 0.15,
    temperature: float = 2.0,
    layers: str = "last",
    max_grad: bool = False,
) -> Objective:
    """An ANN teaches logits, and features generated from mean rates of which some channels are zeroed (blurred distillation).

    CE(z, y) + alpha mean_b w_b KD(z_b <- A_b) + beta Σ_l ||G_l(M_l F_l) - A'_l||² / B, z = mean_t z_t, with weights
    w_b = 1 - exp(-CE(z_b, y) / CE(A_b, y)), a random mask M_l of channels, and A'_l = A_l max F_l / max A_l. G_l, a ReLU between
    two 3x3 convolutions, is trained alongside and dropped afterwards. `wsld` and `blurred_distance` explain the terms. The
    weights are those of the released code for ImageNet; that the paper's numbers have both terms and the rescaling is inferred.
    There gradients also flow through max F_l, as with max_grad=True: the larger part of the gradient of its term. Xu et al.:
    BKDSNN: Enhancing the Performance of Learning-based Spiking Neural Networks Training with Blurred Knowledge Distillation (ECCV
    2024).
    Published: 74.95 on CIFAR-100, ResNet-19, T=4 (disputed).
    """
    check_weights(alpha=alpha, beta=beta)
    soft = Term("wsld", alpha, distillation.wsld, {"temperature": temperature})
    near = Term("blurred_distance", beta, features.blurred_distance, {"mask": mask, "max_grad": max_grad})
    terms = [Term("sce", 1.0, task.sce), soft, near]
    return Objective("bkdsnn-unofficial", terms, layers=_names(layers), transform="generator")


@register_objective
def ckdsnn_unofficial(alpha: float = 1.0, beta: float = 1.0, noise: float = 0.1, temperature: float = 2.0) -> Objective:
    """An ANN teaches a prediction mixed with noise, and which positions should be active (CAM-based distillation).

    CE(z, y) + alpha noisy KD(z <- A) + beta KL(M(C_F) <- M(C_A)) with z = mean_t z_t, C_F the spikes at each position of the last
    stage and C_A the ANN's class activation map there; `noisy_kd` and `activation_map_kl` explain the terms. Defaults and form are
    those of the released code, whose ANN stays in training mode, and whose settings name weights that it does not use; ours is in
    evaluation mode. Inferred: the paper's numbers have this form.
    A Closer Look at Knowledge Distillation in Spiking Neural Network Training (CKDSNN).
    Published: no number that we could check.
    """
    check_weights(alpha=alpha, beta=beta)
    soft = Term("noisy_kd", alpha, distillation.noisy_kd, {"noise": noise, "temperature": temperature})
    maps = Term("activation_map_kl", beta, teacher_classifier.activation_map_kl, {"temperature": temperature})
    return Objective("ckdsnn-unofficial", [Term("sce", 1.0, task.sce), soft, maps], layers=("last",))


@register_objective
def enof_laf(alpha: float = 0.2, temperature: float = 3.0) -> Objective:
    """An ANN teaches what its classifier predicts from mean rates, one half of EnOF: CE(mean_t z_t, y) + alpha KD(c(F) <- A).

    F is what the last stage returns and c the ANN's classifier. The other half of EnOF, a ReLU in place of the last neurons,
    changes the network and is not here: this is not EnOF. Inferred: alpha and temperature, those of `skd`.
    Guo et al.: EnOF-SNN: Training Accurate Spiking Neural Networks via Enhancing the Output Feature Representation (NeurIPS 2024).
    Published: no number that we could check.
    """
    check_weights(alpha=alpha)
    soft = Term("classified_kd", alpha, teacher_classifier.classified_kd, {"temperature": temperature})
    return Objective("enof-laf", [Term("sce", 1.0, task.sce), soft], layers=("last",))


@register_objective
def supersnn_similarity(weight: float = 3000.0, layers: str = "stages") -> Objective:
    """Similarities of samples in mean rates learn from those in an ANN: CE(mean_t z_t, y) + weight Σ_l ||G(F_l) - G(A_l)||² / B².

    G holds the inner products of all pairs of samples of the batch, each row divided by its length. Of SuperSNN we know one
    sentence, that it matches such matrices; their form is that of Tung and Mori: Similarity-Preserving Knowledge Distillation
    (ICCV 2019). Inferred: this form, the layers, and a weight of the size that is usual for this form.
    Published: no number that we could check.
    """
    check_weights(weight=weight)
    alike = Term("similarity", weight, features.similarity)
    return Objective("supersnn-similarity", [Term("sce", 1.0, task.sce), alike], layers=_names(layers))


# Auxiliary heads, of which the network's own is the last


@register_objective(weights=["alpha", "beta"])
def sm_unofficial(alpha: float = 0.5, beta: float = 0.9, temperature: float = 3.0) -> Objective:
    """The network's own head and N auxiliary ones learn the labels, and from each other, on the branches of `esd`.

    (1-beta) (CE(z_f, y) + alpha Σ_i CE(z_i, y)) / (1 + N alpha) + beta Σ_i [KL(z_i <- z_f) + KL(z_f <- z_i)] / (2 N), where z_f is
    the network's own and KL has no tau². Form and weights are those of the released code, whose surrogate modules differ from our
    branches in layout and place: two stacks of convolutions with LeakyReLU, behind the third and the sixth block of ResNet-18.
    Deng et al.: Surrogate Module Learning: Reduce the Gradient Error Accumulation in Training Spiking Neural Networks (ICML 2023).
    Published: no number that we could check.
    """
    check_share("alpha", alpha)
    check_share("beta", beta)
    labels = Term("weighted_heads_ce", 1 - beta, surrogate_modules.weighted_heads_ce, {"branch_weight": alpha})
    teaching = Term("mutual", beta, surrogate_modules.mutual, {"temperature": temperature})
    return Objective("sm-unofficial", [labels, teaching], submodels="heads")


# An ANN and the spiking network, trained together


@register_objective
def joint_asnn_unofficial(beta: float = 0.1, temperature: float = 3.0) -> Objective:
    """An ANN is trained alongside and teaches exit by exit: (1-beta) Σ_i [CE(a_i, y) + CE(z_i, y)] + beta Σ KD.

    Σ KD = Σ_{i<n} KD(a_i <- a_n) + Σ_i KD(z_i <- a_i) over the n exits a_i of the ANN and z_i of the network, of which the n-th are
    their own heads. The weights are those of the released code, and so are the exits and the convolutions with shared singular
    vectors (`spikedistill.models.Joint`). Not here: its distance of the exits' features, whose weight there is 1e-6. Inferred: an
    exit's logits are a mean over the timesteps, as in one version of the code; another version has their sum. Guo et al.: Joint
    A-SNN: Joint Training of Artificial and Spiking Neural Networks via Self-Distillation and Weight Factorization (Pattern
    Recognition, 2023).
    Published: no number that we could check.
    """
    check_share("beta", beta)
    labels = Term("exits_ce", 1 - beta, joint.exits_ce)
    teaching = Term("exits_kd", beta, joint.exits_kd, {"temperature": temperature})
    return Objective("joint-asnn-unofficial", [labels, teaching], submodels="pair")


def _names(layers: str) -> tuple[str, ...]:
    """Names of layers separated by commas, "last" among them; none for "stages", the ends of all stages."""
    return () if layers == "stages" else tuple(name.strip() for name in layers.split(","))
