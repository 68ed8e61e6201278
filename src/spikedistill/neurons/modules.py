"""The neuron as a module, to be put between the layers of a network."""

from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError
from .dynamics import lif
from .neuron import Neuron
from .surrogate import Surrogate


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, one per element of their input; they hold parameters but never state.

    Inside a network under `spikedistill.temporal` the module takes the signal that flows there. Called with a plain tensor, it
    takes currents `[T, B, ...]` and returns spikes of the same shape (see `spikedistill.neurons.lif` for the equations).

    Args:
        decay: share of the membrane that survives a timestep, in [0, 1]; 1 is IF. With `learn_decay` the starting value, in
            (0, 1).
        threshold: a neuron fires where its membrane is at or above it.
        v_reset: None for soft reset, a number for hard reset to it.
        detach_reset: leave the reset out of the gradient.
        surrogate: "sigmoid", "rectangular", "triangular", "arctan", "dspike", or a callable `x = u - threshold -> ds/du`.
        v_init: membrane before the first timestep: a number, "half" (half the threshold), or "learned" (one value per channel,
            starting at 0).
        learn_decay: learn one decay for the layer, the logistic of a parameter (PLIF, Fang et al., 2021).
        channels: number of channels, needed by `v_init="learned"` alone.

    Raises:
        UserError: for an option out of its range, `v_init="learned"` without `channels`, or a `v_init` or `v_reset` that fires
            without any input.
    """

    def __init__(
        self,
        *,
        decay: float = 0.5,
        threshold: float = 1.0,
        v_reset: float | None = None,
        detach_reset: bool = False,
        surrogate: str | Surrogate = "sigmoid",
        v_init: float | Literal["half", "learned"] = 0.0,
        learn_decay: bool = False,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        rest: dict[str, Any] = {
            "v_reset": 0.0 if v_reset is None else v_reset,
            "v_init": 0.0 if isinstance(v_init, str) else v_init,
        }
        for name, value in {"decay": decay, "threshold": threshold, **rest}.items():
            if isinstance(value, bool) or not isinstance(value, Real | Tensor):
                raise UserError(f"{name} is {value!r}, expected a number")
        Neuron(decay=decay, threshold=threshold, surrogate=surrogate, **rest)
        _check_silent_at_rest(decay, threshold, **rest)
        self.threshold = threshold
        self.v_reset = v_reset
        self.detach_reset = detach_reset
        self.surrogate = surrogate
        self.decay = decay
        self.decay_logit: nn.Parameter | None = None
        if learn_decay:
            if not 0 < decay < 1:
                raise UserError(f"a learned decay starts inside (0, 1); got {decay}")
            self.decay_logit = nn.Parameter(torch.tensor(decay).logit())
        self.v_init: float | nn.Parameter
        if isinstance(v_init, str):
            self.v_init = self._named_v_init(v_init, channels)
        else:
            self.v_init = float(v_init)

    def _named_v_init(self, v_init: str, channels: int | None) -> float | nn.Parameter:
        if v_init == "half":
            return self.threshold / 2
        if v_init != "learned":
            raise UserError(f"v_init is {v_init!r}, expected a number, 'half' or 'learned'")
        if channels is None:
            raise UserError("v_init='learned' keeps one value per channel: say how many with channels=...")
        if type(channels) is not int or channels < 1:
            raise UserError(f"channels is {channels!r}, expected a whole number of 1 or more")
        return nn.Parameter(torch.zeros(channels))

    def dynamics(self, ndim: int) -> Neuron:
        """What the neurons do with samples `[B, ...]` of `ndim` dimensions, learned options as tensors that broadcast over them."""
        v_init: float | Tensor = self.v_init
        if isinstance(v_init, Tensor):
            v_init = v_init.view(-1, *[1] * (ndim - 2))
        return Neuron(
            decay=self.decay if self.decay_logit is None else self.decay_logit.sigmoid(),
            threshold=self.threshold,
            v_reset=self.v_reset,
            detach_reset=self.detach_reset,
            surrogate=self.surrogate,
            v_init=v_init,
        )

    def forward(self, current: Any) -> Any:
        """Spikes of currents `[T, B, ...]`, or the spiking signal of a signal of currents."""
        if isinstance(current, Tensor):
            return lif(current, self.dynamics(current.ndim - 1))
        return current.fire(self)

    def extra_repr(self) -> str:
        surrogate = self.surrogate if isinstance(self.surrogate, str) else getattr(self.surrogate, "__name__", "custom")
        reset = "soft" if self.v_reset is None else f"hard to {self.v_reset}"
        decay = "learned" if self.decay_logit is not None else self.decay
        starts = "" if isinstance(self.v_init, float) and not self.v_init else ", v_init="
        v_init = starts and starts + ("learned" if isinstance(self.v_init, Tensor) else str(self.v_init))
        return f"decay={decay}, threshold={self.threshold}, reset={reset}, surrogate={surrogate}{v_init}"


def _check_silent_at_rest(decay: float, threshold: float, v_reset: float, v_init: float) -> None:
    """Refuse neurons that fire at their first timestep, or always once they have fired, whatever their input.

    Raises:
        UserError: in that case.
    """
    for name, value, when in (
        ("v_init", v_init, "at the first timestep"),
        ("v_reset", v_reset, "for ever once it has"),
    ):
        if decay * value >= threshold:
            raise UserError(
                f"{name} is {value}: without any input a neuron fires {when}, because decay {decay} times {name} reaches the "
                f"threshold {threshold}; expected less"
            )
