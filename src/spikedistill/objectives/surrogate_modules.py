"""Auxiliary heads that learn the labels and learn from each other, as surrogate modules do.

Deng et al.: Surrogate Module Learning: Reduce the Gradient Error Accumulation in Training Spiking Neural Networks (ICML 2023).

Shapes: logits [S, B, C] of S heads, N = S - 1 auxiliary ones z_1..z_N and last the network's own, z_f; target int64 [B]; every loss
is a scalar, a mean over B. All raise UserError for inputs of another type or shape.
"""

from torch import Tensor

from .checks import check_logits, check_share, check_temperature
from .divergences import kl
from .submodels import Average, compares_submodels
from .task import heads_ce


def weighted_heads_ce(
    logits: Tensor,
    target: Tensor,
    *,
    branch_weight: float = 0.5,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    average: Average | None = None,
) -> Tensor:
    """Cross-entropy of the heads, a mean with weights: (CE(z_f, y) + w Σ_i CE(z_i, y)) / (1 + N w), w from 0 to 1."""
    logits, weight = check_logits(logits), check_share("branch_weight", branch_weight)
    heads = len(logits)
    mean = heads_ce(
        logits,
        target,
        branch_weight=weight,
        ignore_index=ignore_index,
        class_weights=class_weights,
        average=average,
    )
    return mean * heads / (1 + (heads - 1) * weight)


@compares_submodels
def mutual(logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """The network's own head and the auxiliary ones teach each other: Σ_i [KL(z_i <- z_f) + KL(z_f <- z_i)] / (2 N).

    KL(s <- q) = KL(softmax(q / tau) || softmax(s / tau)), q detached, without the factor tau². Auxiliary heads do not teach each
    other; if there are none, the loss is 0.
    """
    logits, temperature = check_logits(logits), check_temperature(temperature)
    own, others = logits[-1:].expand_as(logits[:-1]), logits[:-1]
    both = kl(others, own, temperature=temperature) + kl(own, others, temperature=temperature)
    return both.sum(0).mean() / max(2 * len(others), 1)
