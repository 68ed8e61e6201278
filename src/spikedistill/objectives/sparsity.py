"""Fewer spikes: a penalty on the firing rates of the layers of neurons."""

import torch
from torch import Tensor

from ..errors import UserError
from .checks import check_logits, check_share


def firing(logits: Tensor, *, firing_rates: Tensor, target_rate: float = 0.0) -> Tensor:
    """How far the layers fire above a target: (1/L) Σ_l max(0, r_l - target).

    A layer's gradient does not depend on how far it is above the target, and is 0 below it.

    Args:
        logits: `[S, B, C]`, which are not used.
        firing_rates: r_l `[L]`, the share of a layer's neurons that fire at a timestep, with their graph.
        target_rate: the rate that costs nothing, 0 to 1.

    Raises:
        UserError: for rates of another shape, or a target outside 0..1.
    """
    check_logits(logits)
    check_share("target_rate", target_rate)
    if not isinstance(firing_rates, Tensor) or firing_rates.ndim != 1 or not len(firing_rates):
        raise UserError(
            f"firing_rates must be a tensor [L] with a rate for each layer of neurons; got {firing_rates!r:.60}: "
            "pass torch.stack of the layers' mean spikes"
        )
    return torch.relu(firing_rates - target_rate).mean().to(torch.promote_types(firing_rates.dtype, torch.float32))
