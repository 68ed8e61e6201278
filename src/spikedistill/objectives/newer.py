"""Methods that are newer than the four papers, as data; docs/methods/newer.md explains them.

The symbols are those of `catalogue`.
"""

from . import distillation, task
from .checks import check_share, check_weights
from .composition import Objective, Term
from .registry import register_objective
from .weight_decay import fading_decay


@register_objective
def trt(eta: float = 0.05, lam: float = 1e-5, delta: float = 0.25) -> Objective:
    """Cross-entropy of every timestep, logits held near the labels, and weight decay that fades over the timesteps.

    mean_t [(1-eta) CE(z_t, y) + eta MSE(z_t, onehot(y)) + lam Σ_w w² / (1 + (e^(delta t) - 1)(|w| + 1e-5))] with t = 0, 1, ...
    and w the parameters that are no biases; `fading_decay` explains the last term. Defaults are those of the released code for
    CIFAR-10 and T=6; for event frames it has eta=0.001, lam=5e-5, delta=0.5.
    Zhang et al.: Temporal Regularization Training: Unleashing the Potential of Spiking Neural Networks (2025).
    Published: no number that we could check.
    """
    check_share("eta", eta)
    check_weights(lam=lam)
    near = Term("label_mse", eta, task.label_mse)
    small = Term("fading_decay", lam, fading_decay, {"delta": delta})
    return Objective("trt", [Term("twce", 1 - eta, task.twce), near, small])


@register_objective
def akl(alpha: float = 1.0, temperature: float = 1.0, head: float = 0.5) -> Objective:
    """Distillation of the mean logits by forward and reverse KL: CE(mean_t z_t, y) + alpha tau² [w KL(q || p) + (1-w) KL(p || q)].

    w is the share of the distance between student and teacher that lies in the teacher's head, its most probable classes;
    `head_tail_kd` explains it. Wu et al.: Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language
    Models (AKL, COLING 2025); HTA-KL, for spiking networks, is described by the same parts. Inferred: the cross-entropy, and alpha.
    Published: no number that we could check.
    """
    check_weights(alpha=alpha)
    soft = Term("head_tail_kd", alpha, distillation.head_tail_kd, {"temperature": temperature, "head": head})
    return Objective("akl", [Term("sce", 1.0, task.sce), soft])
