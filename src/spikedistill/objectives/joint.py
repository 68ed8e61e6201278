"""An ANN and a spiking network that are trained together, with exits on the way.

Guo et al.: Joint A-SNN: Joint Training of Artificial and Spiking Neural Networks via Self-Distillation and Weight Factorization
(Pattern Recognition, 2023).

Shapes: logits [2n, B, C] of n exits of the ANN a_1..a_n, of which a_n is its own head, and of n of the spiking network, z_1..z_n,
in the same order; target int64 [B]; every loss is a scalar, a mean over B and a sum over exits. All raise UserError for inputs of
another type or shape.
"""

from torch import Tensor

from .checks import check_logits, check_pair, check_temperature
from .divergences import kd
from .submodels import Average
from .task import Labels, cross_entropy_of_each


def exits_ce(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    average: Average | None = None,
) -> Tensor:
    """Cross-entropy of all exits of both networks: Σ_i [CE(a_i, y) + CE(z_i, y)]."""
    logits = check_pair(check_logits(logits))
    labels = Labels(target, ignore_index=ignore_index, class_weights=class_weights, average=average)
    return cross_entropy_of_each(logits, labels).sum()


def exits_kd(logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Distillation from the ANN's head to its exits, and from each to its twin: Σ_{i<n} KD(a_i <- a_n) + Σ_i KD(z_i <- a_i)."""
    logits = check_pair(check_logits(logits))
    ann, snn = logits.chunk(2)
    teachers, students = ann[-1:].expand_as(ann[:-1]), ann[:-1]
    check_temperature(temperature)
    within, across = (kd(s, t, temperature=temperature).mean(1).sum() for s, t in ((students, teachers), (snn, ann)))
    return within + across
