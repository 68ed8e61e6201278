"""Weight decay that is strong at the first timestep and fades over the others."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError
from .checks import check_logits, check_weights

# exp(80) is a finite float32, and what it divides is 0 beside the first timestep
HIGHEST_EXPONENT = 80.0


def fading_decay(logits: Tensor, *, weights: Sequence[Tensor], delta: float = 0.25, epsilon: float = 1e-5) -> Tensor:
    """Squared weights, which count less at later timesteps: mean_t Σ_w w² / (1 + (e^(delta t) - 1)(|w| + epsilon)), t = 0..S-1.

    Only the number of logits matters, not their values, so it is a penalty on the weights that is the same for every batch.
    Gradients also flow through |w|.

    Args:
        logits: `[S, B, C]`, of which S is used.
        weights: the weights w, tensors of any shape.
        delta: how fast it fades; with 0 it is plain weight decay, Σ_w w².
        epsilon: added to |w|.

    Raises:
        UserError: for weights that are no floating-point tensors, and for a negative number.

    Zhang et al.: Temporal Regularization Training: Unleashing the Potential of Spiking Neural Networks (TRT, 2025).
    """
    S = len(check_logits(logits))
    check_weights(delta=delta, epsilon=epsilon)
    if not weights or not all(isinstance(weight, Tensor) and weight.is_floating_point() for weight in weights):
        raise UserError(
            f"weights must be floating-point tensors, 1 or more; got {weights!r:.60}: pass a list of the network's parameters"
        )
    growth = [math.expm1(min(delta * t, HIGHEST_EXPONENT)) for t in range(S)]
    return torch.stack([_of(weight, growth, epsilon) for weight in weights]).sum()


def _of(weight: Tensor, growth: Sequence[float], epsilon: float) -> Tensor:
    """The penalty on one tensor."""
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    size = weight.abs() + epsilon
    shares = torch.zeros_like(size)
    for each in growth:
        shares = shares + (1 + each * size).reciprocal()
    return (weight.square() * shares).sum() / len(growth)
