"""Neurons whose membrane is smoothed from one timestep to the next."""

import torch
from torch import Tensor, nn

from ..errors import UserError
from .registry import register_neuron
from .spiking_neuron import SpikingNeuron
from .surrogate import resolve_surrogate, spike


@register_neuron("smoothed-lif")
class SmoothedLif(SpikingNeuron):
    """LIF that fires by a running mean of its membrane, whose coefficient the layer learns (membrane potential smoothing).

    With the decay lambda, the threshold theta, the current I and the coefficient alpha, the logistic of `smoothing_logit`:

        h_t  = lambda * v_{t-1} + I_t                   v_0 = 0
        h~_t = alpha * h~_{t-1} + (1 - alpha) * h_t     h~_0 = 0
        s_t  = 1 if h~_t >= theta else 0
        v_t  = h~_t - theta * s_t                       soft reset

    Ding et al.: Rethinking Spiking Neural Networks from an Ensemble Learning Perspective (MPS, ICLR 2025). Inferred: alpha at the
    start, h~_0 = 0, that h~_{t-1} is the value before the reset, and that the reset starts from h~_t.

    Args:
        decay: share of the membrane that survives a timestep, in [0, 1].
        threshold: of a spike.
        smoothing: alpha at the start, inside (0, 1).
        surrogate: a name, as in `LIF`.

    Raises:
        UserError: for a decay or coefficient outside its range, a threshold that is not positive, or an unknown surrogate.
    """

    def __init__(
        self, decay: float = 0.5, threshold: float = 1.0, smoothing: float = 0.5, surrogate: str = "sigmoid"
    ) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise UserError(f"decay is {decay}, expected 0 (no memory) to 1 (no leak)")
        if not 0 < threshold < float("inf"):
            raise UserError(f"threshold is {threshold}, expected a positive number")
        logit = torch.tensor(
            float(smoothing), device="cpu"
        ).logit()  # to be looked at, also in a network without memory
        if not logit.isfinite():  # in float32: 1 - 1e-9 is 1 there
            raise UserError(
                f"smoothing is {smoothing}, expected a number inside (0, 1): near 0 it is LIF without smoothing"
            )
        resolve_surrogate(surrogate)
        self.decay, self.threshold, self.surrogate = decay, threshold, surrogate
        self.smoothing_logit = nn.Parameter(torch.tensor(logit.item()))

    def step(self, current: Tensor, state: dict[str, Tensor] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Advance by one timestep; the state holds the membrane after the reset and the smoothed one before it."""
        if state is None:
            state = {"v": torch.zeros_like(current), "smoothed": torch.zeros_like(current)}
        share = self.smoothing_logit.sigmoid()
        smoothed = share * state["smoothed"] + (1 - share) * (self.decay * state["v"] + current)
        spikes = spike(smoothed - self.threshold, self.surrogate)
        return spikes, {"v": smoothed - self.threshold * spikes, "smoothed": smoothed}
