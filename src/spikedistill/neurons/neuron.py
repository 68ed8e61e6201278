"""The options of leaky integrate-and-fire neurons as one value, which is passed whole from a layer to the loops.

With the decay lambda, the threshold theta and the input current I:

    u_t = lambda * v_{t-1} + I_t          membrane before the spike; v_0 = v_init
    s_t = 1 if u_t >= theta else 0
    v_t = u_t - theta * s_t               soft reset (v_reset=None)
    v_t = (1 - s_t) * u_t + v_reset * s_t hard reset
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import UserError
from .surrogate import Surrogate, resolve_surrogate

_FLOAT32 = torch.finfo(torch.float32)
# The options that are numbers, or tensors in their place.
_NUMBERS = ("decay", "threshold", "v_reset", "v_init")


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """Leaky integrate-and-fire dynamics.

    The decay, the threshold and the initial membrane may each be a tensor that broadcasts over `[B, ...]`, such as `[C, 1, 1]`, and
    then receive a gradient. Values of tensors are not checked.

    Attributes:
        decay: share of the membrane that survives a timestep, in [0, 1]; 1 is a neuron without leak (IF).
        threshold: a neuron fires when its membrane is at or above it.
        v_reset: None subtracts the threshold after a spike (soft reset); a number puts the membrane there (hard reset).
        detach_reset: leave the reset out of the gradient.
        surrogate: the derivative of a spike, a name or a callable; see `spikedistill.neurons.surrogate`.
        v_init: membrane before the first timestep.

    Raises:
        UserError: for a decay outside [0, 1], a threshold that is not positive, a number that is not finite in float32, or an
            unknown surrogate.
    """

    decay: float | Tensor = 0.5
    threshold: float | Tensor = 1.0
    v_reset: float | None = None
    detach_reset: bool = False
    surrogate: str | Surrogate = "sigmoid"
    v_init: float | Tensor = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.decay, Tensor) and not 0 <= self.decay <= 1:
            raise UserError(f"decay is {self.decay}, expected 0 (no memory) to 1 (no leak)")
        # any other would be 0 or infinite in float32
        if not isinstance(self.threshold, Tensor) and not _FLOAT32.tiny <= self.threshold <= _FLOAT32.max:
            raise UserError(f"threshold is {self.threshold}, expected a positive number, finite in float32")
        for name, value in (("v_reset", self.v_reset), ("v_init", self.v_init)):
            if value is not None and not isinstance(value, Tensor) and not abs(value) <= _FLOAT32.max:
                raise UserError(f"{name} is {value}, expected a number that is finite in float32")
        resolve_surrogate(self.surrogate)

    @property
    def derivative(self) -> Surrogate:
        """The surrogate as a function of the membrane's distance from the threshold."""
        return resolve_surrogate(self.surrogate)

    @property
    def has_numbers_only(self) -> bool:
        """Whether no option is a tensor. Fused loops take only numbers."""
        return not self._tensors()

    def _tensors(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in _NUMBERS}
        return {name: option for name, option in options.items() if isinstance(option, Tensor)}

    def detached(self) -> Self:
        """The same options without graphs."""
        return replace(self, **{name: option.detach() for name, option in self._tensors().items()})

    def over(self, like: Tensor) -> Self:
        """The same options, with tensors in the dtype of a membrane `[B, ...]`.

        Raises:
            UserError: for a tensor that does not broadcast over it.
        """
        tensors = self._tensors()
        for name, option in tensors.items():
            sizes = zip(option.shape[::-1], like.shape[::-1], strict=False)
            if option.ndim > like.ndim or any(own not in (1, size) for own, size in sizes):
                raise UserError(
                    f"{name} is {list(option.shape)}, the currents of a timestep are {list(like.shape)}: expected a shape that "
                    "broadcasts over them, such as [C, 1, 1] for one value per channel of images"
                )
        return replace(self, **{name: option.to(like.dtype) for name, option in tensors.items()}) if tensors else self

    def integrate(self, current: Tensor, membrane: Tensor) -> Tensor:
        """Leak and integrate: the membrane before the spike, u = decay * v + I."""
        return self.decay * membrane + current

    def reset(self, u: Tensor, spikes: Tensor) -> Tensor:
        """The membrane after the spike."""
        if self.v_reset is None:
            return u - self.threshold * spikes
        return (1 - spikes) * u + self.v_reset * spikes

    def initial_membrane(self, like: Tensor) -> Tensor:
        """The membrane `[B, ...]` before the first timestep."""
        if isinstance(self.v_init, Tensor):
            return self.v_init.to(like.dtype).expand_as(like)
        return torch.full_like(like, self.v_init)
