"""What an attack raises: a loss of each sample, from the logits `[T, B, C]` of all timesteps it sees.

Shapes: T timesteps, B samples, C classes. m_t is the mean of the first t logits, the prediction after t timesteps; m = m_T.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..objectives.submodels import prefix_means

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits `[T, B, C]` and labels `[B]` to a value for each sample, `[B]`, which the attack raises."""


def ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of m."""
    return F.cross_entropy(logits.mean(0), target, reduction="none")


def dlr(logits: Tensor, target: Tensor) -> Tensor:
    """Difference of logits ratio: -(m_y - max_{i != y} m_i) / (m_(1) - m_(3)), with m sorted (Croce and Hein, ICML 2020).

    It does not change if logits are scaled or shifted. It needs three classes.
    """
    z = logits.mean(0)
    if z.shape[1] < 3:
        raise UserError(f"the loss dlr compares the three largest of all logits, and there are {z.shape[1]}: use ce")
    top = z.topk(3, dim=1).values
    own = z.gather(1, target[:, None])[:, 0]
    other = torch.where(z.argmax(1) == target, top[:, 1], top[:, 0])
    return -(own - other) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_to(logits: Tensor, target: Tensor) -> Tensor:
    """`dlr` for a class to reach: -(max_{i != t} m_i - m_t) / (m_(1) - (m_(3) + m_(4)) / 2), which rises towards it.

    AutoAttack's targeted form with the largest other class in place of the label. It needs four classes.
    """
    z = logits.mean(0)
    if z.shape[1] < 4:
        raise UserError(
            f"the loss dlr towards a class compares the four largest of all logits, and there are {z.shape[1]}: use ce"
        )
    top = z.topk(4, dim=1).values
    return margin(logits, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def prefix_ce(logits: Tensor, target: Tensor) -> Tensor:
    """The mean cross-entropy of m_1 .. m_T, for a network that may stop at any of them."""
    T, B = logits.shape[:2]
    each = F.cross_entropy(prefix_means(logits).flatten(0, 1), target.repeat(T), reduction="none")
    return each.view(T, B).mean(0)


def latency(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over t of the entropy of softmax(m_t): at high entropy an early-exit network runs all timesteps."""
    log_p = prefix_means(logits).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean(0)


LOSSES: dict[str, Loss] = {"ce": ce, "dlr": dlr, "prefix_ce": prefix_ce, "latency": latency}
"""Losses of attacks by name."""


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """m_y - max_{i != y} m_i, `[B]`: negative where the prediction is wrong."""
    z = logits.mean(0)
    own = F.one_hot(target, z.shape[1]).bool()
    return z[own] - z.masked_fill(own, -torch.inf).amax(1)
