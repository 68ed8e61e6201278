"""Membranes that begin where they usually end, for a network whose weights come from an ordinary one."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..errors import UserError
from ..neurons import LIF, lif_step
from ..neurons.dynamics import membrane_precision
from ..through_time import Temporal
from ..through_time.steps import evaluating
from .recorder import record

_HIGHEST = 0.99  # of where neurons fire without input


@torch.no_grad()
def start_membranes(
    network: Temporal, batches: Iterable[Tensor], timesteps: int, *, momentum: float = 0.1
) -> dict[str, float]:
    """Start the membranes of every layer at a running mean of where they end (MP-Init).

    With m_b the mean membrane after the last timestep, over the neurons of a layer that fired in batch b, a layer starts after n
    batches at m, where M = 0 at first and

        M <- (1 - momentum) M + momentum max(m_b, 0),    m = M / (1 - (1 - momentum)^n)

    so that a few batches give their mean and not a part of it. Every batch starts at the m of those before it. All channels of a
    layer start at the same value, and none above 0.99 θ / λ, with the threshold θ and the decay λ: from θ / λ on neurons would fire
    without input. A layer in which no neuron fires stays where it is.

    Kook et al.: Membrane Potential Initialization and Threshold-robust Surrogate Gradient (MP-Init, WACV 2026), which updates M
    all through training, so that its start does not matter; here training, which learns the initial membranes of each channel,
    begins with m.

    Args:
        network: the network, whose initial membranes are learned (`v_init="learned"`); these are changed.
        batches: training samples: images `[B, ...]`, or event frames `[T, B, ...]`.
        timesteps: T.
        momentum: the share of a new batch.

    Returns:
        m of every layer, by its path.

    Raises:
        UserError: for a network without learned initial membranes, or no batch.
    """
    layers = {
        path: layer
        for path, layer in network.module.named_modules()
        if isinstance(layer, LIF) and isinstance(layer.v_init, Tensor)
    }
    if not layers:
        raise UserError(
            "the network has no LIF layer whose initial membranes are learned: make it with v_init='learned', on the command line "
            "--model.lif.v-init learned"
        )
    found: dict[str, float] = {}
    sums, counts = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)
    with evaluating(network):
        for x in batches:
            with record(network) as recording:
                network(x[:timesteps]) if x.ndim == 5 else network(x, timesteps)
            for path, layer in layers.items():
                ended = _mean_at_the_end(layer, recording.currents[path])
                if ended is None:
                    continue
                counts[path] += 1
                sums[path] = (1 - momentum) * sums[path] + momentum * max(ended, 0.0)
                mean = sums[path] / (1 - (1 - momentum) ** counts[path])
                dynamics = layer.dynamics(recording.currents[path].ndim - 1)
                fires = torch.as_tensor(dynamics.threshold) / torch.as_tensor(dynamics.decay)
                found[path] = min(mean, _HIGHEST * float(fires.min()))
                assert isinstance(layer.v_init, Tensor)
                layer.v_init.fill_(found[path])
    if not found:
        raise UserError("no neuron fired in any batch of training samples: initial membranes cannot be found from them")
    return found


def _mean_at_the_end(layer: LIF, currents: Tensor) -> float | None:
    """The mean membrane after the last timestep over the neurons that fired, from currents `[T, B, ...]`; None if none did."""
    currents = membrane_precision(currents)
    dynamics = layer.dynamics(currents.ndim - 1)
    membrane = dynamics.initial_membrane(currents[0])
    fired = torch.zeros_like(membrane, dtype=torch.bool)
    for current in currents.unbind(0):
        spikes, membrane = lif_step(current, membrane, dynamics)
        fired |= spikes != 0
    return float(membrane[fired].double().mean()) if bool(fired.any()) else None
