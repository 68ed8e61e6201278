"""A trained network as attacks see it: a copy, frozen, at k timesteps, with a surrogate of the attack's choice."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..neurons import LIF, SURROGATES, SpikingNeuron, Surrogate, TimestepLeak
from ..through_time import Bptt, Rate, Temporal
from .surrogates import AdaptiveSharpness, MembraneWide, adaptive

TRAINED, RATE, MEMBRANE, ADAPTIVE = "trained", "rate", "pdsg", "assg"
VIEWS = (TRAINED, "arctan", MEMBRANE, ADAPTIVE, RATE)
"""What an attack may see gradients through: the network's own surrogates, others, and mean rates."""


def views_of(network: nn.Module) -> tuple[str, ...]:
    """Those of `VIEWS` that a network's neurons have."""
    layers = [layer for layer in network.modules() if isinstance(layer, SpikingNeuron)]
    if not layers:
        return (TRAINED,)
    if all(isinstance(layer, LIF) and not layer.runs_by_step for layer in layers):
        return VIEWS
    return VIEWS[: VIEWS.index(RATE)] if all(_has_surrogate(layer) for layer in layers) else (TRAINED,)


def _has_surrogate(layer: SpikingNeuron) -> bool:
    return isinstance(layer, TimestepLeak) or (isinstance(layer, LIF) and not layer.runs_by_step)


class View:
    """A network as an attack sees it. The network itself is not changed.

    Args:
        network: the network; it is copied.
        timesteps: how many the attack sees.
        through: one of `VIEWS`, or the name of any surrogate.
        events: samples are event frames `[B, T, ...]`, of which the first are taken; otherwise images `[B, ...]`.

    Raises:
        UserError: for an unknown name, or neurons that have no surrogate to swap.
    """

    def __init__(self, network: Temporal, timesteps: int, through: str = TRAINED, *, events: bool = False) -> None:
        if timesteps < 1:
            raise UserError(f"timesteps is {timesteps}, expected 1 or more")
        rule = Rate() if through == RATE else Bptt()
        self.network = Temporal(copy.deepcopy(network.module), rule, network.sample_axes).eval().requires_grad_(False)
        self.timesteps = timesteps
        self.through = through
        self.events = events
        if through not in (TRAINED, RATE):
            self._swap()

    def _swap(self) -> None:
        makes: dict[str, Callable[[], Surrogate]] = {
            MEMBRANE: MembraneWide,
            ADAPTIVE: AdaptiveSharpness,
        }
        if not any(isinstance(layer, SpikingNeuron) for layer in self.network.module.modules()):
            raise UserError(
                f"the network has no spiking neurons, so there is no surrogate to swap: attack through {TRAINED!r}"
            )
        make = makes[self.through] if self.through in makes else lambda: SURROGATES[self.through]
        for path, layer in self.network.module.named_modules():
            if not isinstance(layer, SpikingNeuron):
                continue
            if _has_surrogate(layer):
                setattr(layer, "surrogate", make())  # noqa: B010
            else:
                raise UserError(
                    f"the neurons {path!r} have a step of their own, whose surrogate an attack cannot swap: attack through "
                    f"{TRAINED!r}"
                )

    def begin(self) -> None:
        """Begin the attack of a batch."""
        for surrogate in adaptive(self.network.module):
            surrogate.begin()

    def keep(self, left: Tensor) -> None:
        """Go on with some of the samples of the attack, bool `[B]`."""
        for surrogate in adaptive(self.network.module):
            surrogate.keep(left)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits `[k, B, C]` of samples `[B, ...]`."""
        if torch.is_grad_enabled():
            for surrogate in adaptive(self.network.module):
                surrogate.again()
        shown = (x[:, : self.timesteps].transpose(0, 1),) if self.events else (x, self.timesteps)
        logits: Tensor = self.network(*shown)
        return logits
