"""Gradients of the spike representation: a neuron's weighted mean rate as a clamped function of its weighted mean current.

Meng et al.: Training High-Performance Low-Latency Spiking Neural Networks by Differentiation on Spike Representation (DSR, CVPR
2022). With soft reset the membrane is the sum of the currents minus θ per spike, both decaying with λ: u_T = Σ_t λ^(T-t) (I_t - θ
s_t). Take weights w_t ∝ λ^(T-t) that sum to 1. Except for the charge that remains in the membrane, the weighted mean rate is the
weighted mean current over θ, clamped to [0, 1]: Σ w_t s_t ≈ min(1, max(0, Σ w_t I_t / θ)). The slope of this clamp is the
gradient. Between 0 and θ it is 1/θ with respect to the mean current, and -Σ w_t I_t / θ² with respect to a learned threshold. In
the paper a spike has the height θ: the same clamp, with θ moved into the weights of the next layer.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..neurons import LIF, lif
from .call import Call
from .given import given
from .rates import Rates, answer, learns


class Representation(Rates):
    """Spikes `[T, B, ...]` without graph, and one weighted mean `[1, B, ...]` with graph.

    Args:
        spikes: exact values.
        rates: their weighted mean.
        weights: w_t of the T timesteps.
    """

    gradient = "dsr"

    def __init__(self, spikes: Any, rates: Tensor, weights: tuple[float, ...], call: Call) -> None:
        super().__init__(spikes, rates, (len(weights),), call)
        self._weights = weights

    def like(self, spikes: Any, rates: Tensor) -> Self:
        return type(self)(spikes, rates, self._weights, self.call)

    def _mean_over_time(self) -> Tensor:
        # the output is the plain mean, though its gradient is that of the weighted mean
        return self.over_time().mean(0)

    def fire(self, neuron: Any) -> Self:
        self.enter("LIF", neuron)
        dynamics = neuron.dynamics(self.ndim)
        with torch.no_grad():
            spikes = lif(self._spikes.expand(self.timesteps, *self.shape), dynamics)
            threshold = dynamics.threshold
            slope = ((self._rates > 0) & (self._rates < threshold)).to(self.dtype) / threshold
            to_threshold = -slope * self._rates / threshold
        rates = given(self._means(spikes), self._rates, slope)
        if learns(threshold):
            rates = rates + answer(threshold, to_threshold)
        return self.like(spikes, rates.to(self.dtype))

    def _average(self, values: Tensor) -> Tensor:
        return weighted_mean(values, self._weights)


def weighted_mean(value: Tensor, weights: tuple[float, ...]) -> Tensor:
    """`[T, B, ...] -> [1, B, ...]`, computed in float32 or better."""
    total = value[0].to(torch.promote_types(value.dtype, torch.float32)) * weights[0]
    for part, weight in zip(value[1:], weights[1:], strict=True):
        total = total.add(part, alpha=weight)
    return total.to(value.dtype).unsqueeze(0)


def fading_weights(decay: float, timesteps: int) -> tuple[float, ...]:
    """w_t = λ^(T-t) / Σ_s λ^(T-s) for t = 1..T."""
    powers = [decay ** (timesteps - t) for t in range(1, timesteps + 1)]
    return tuple(power / sum(powers) for power in powers)


def common_decay(module: nn.Module) -> float:
    """The decay that all neurons of a network share; 1 without neurons.

    Raises:
        UserError: for neurons with a hard reset, an initial membrane, a learned decay, or different decays.
    """
    neurons = {name: neuron for name, neuron in module.named_modules() if isinstance(neuron, LIF)}
    decay = next(iter(neurons.values())).decay if neurons else 1.0
    for name, neuron in neurons.items():
        starts = isinstance(neuron.v_init, Tensor) or neuron.v_init != 0
        if starts or neuron.v_reset is not None or neuron.decay_logit is not None or neuron.decay != decay:
            raise UserError(
                "gradient='dsr' needs neurons with soft reset, no initial membrane and one decay that is not learned; got "
                f"{neuron} as {name or 'the network'!r}: use gradient='rate'"
            )
    return decay
