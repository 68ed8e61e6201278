"""Neurons whose leak is learned for every timestep."""

import torch
from torch import Tensor, nn

from ..errors import UserError
from .registry import register_neuron
from .spiking_neuron import SpikingNeuron
from .surrogate import resolve_surrogate, spike


@register_neuron("timestep-leak")
class TimestepLeak(SpikingNeuron):
    """LIF whose decay is learned for every timestep and channel: u_t = d_t u_{t-1} + x_t (FEEL-SNN, Xu et al., NeurIPS 2024).

    A neuron fires where u_t reaches the threshold, and its membrane is then `v_reset`. FEEL learns a decay for every neuron; one
    for every channel also serves images of other sizes. After the last of `timesteps` the last decay stays.

    Args:
        channels: of the currents `[B, channels, ...]`.
        timesteps: T, of decays.
        decay: at which all begin; 1 in FEEL.
        threshold: of a spike.
        v_reset: the membrane after a spike.
        surrogate: a name, as in `LIF`.

    Raises:
        UserError: for no timestep, or neurons that would fire without any input.
    """

    def __init__(
        self,
        channels: int,
        timesteps: int = 8,
        decay: float = 1.0,
        threshold: float = 1.0,
        v_reset: float = 0.0,
        surrogate: str = "triangular",
    ) -> None:
        super().__init__()
        if timesteps < 1:
            raise UserError(f"timesteps is {timesteps}, expected the T of training, 1 or more")
        if max(decay * v_reset, v_reset) >= threshold:
            raise UserError(
                f"v_reset is {v_reset}: a neuron that has fired would fire for ever at threshold {threshold}"
            )
        resolve_surrogate(surrogate)
        self.threshold, self.v_reset, self.surrogate = threshold, v_reset, surrogate
        self.decay = nn.Parameter(torch.full((timesteps, channels), float(decay)))

    def step(self, current: Tensor, state: dict[str, Tensor] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Advance by one timestep; the state holds the membrane and how many timesteps each sample has run."""
        if state is None:
            begun = torch.zeros(current.shape[0], dtype=torch.long, device=current.device)
            state = {"v": torch.zeros_like(current), "t": begun}
        t = state["t"].clamp(max=len(self.decay) - 1)
        decay = self.decay[t].view(*current.shape[:2], *[1] * (current.ndim - 2))
        u = decay * state["v"] + current
        spikes = spike(u - self.threshold, self.surrogate)
        return spikes, {"v": u + spikes * (self.v_reset - u), "t": state["t"] + 1}
