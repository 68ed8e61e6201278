"""`LIF`, the layer of neurons that stands between the layers of a network."""

from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..learned import Learned
from ..renamed import with_learn_decay
from .dynamics import lif_step
from .neuron import Neuron
from .spiking_neuron import SpikingNeuron
from .surrogate import Surrogate, resolve_surrogate


class LIF(SpikingNeuron):
    """A layer of leaky integrate-and-fire neurons, one per element of its input. It holds parameters and never state.

    The layer takes the signal that flows in a network under `spikedistill.temporal`, and refuses plain tensors. For a sequence
    `[T, B, ...]` call the function `spikedistill.lif`, which has the equations.

    The decay, the threshold and the initial membrane can be learned. Pass "learned", or `Learned` to set the initial value and
    whether the layer or each channel has its own. With `channels` the default is one for each channel of `[B, C, ...]`, otherwise
    one for the layer. A learned decay is the logistic of the parameter `decay_logit` (PLIF, Fang et al., 2021), so it stays in
    (0, 1). A learned threshold is the exponential of `log_threshold`: it stays positive, and an optimiser's step changes it by a
    share of itself.

    Args:
        decay: share of the membrane that survives a timestep, in [0, 1]; 1 is IF. A learned decay starts inside (0, 1).
        threshold: a neuron fires when its membrane is at or above it.
        v_reset: None for soft reset, a number for hard reset to that membrane.
        detach_reset: leave the reset out of the gradient.
        surrogate: the derivative of a spike: "sigmoid", "rectangular", "triangular", "arctan", "dspike", the name of a registered
            one, or a callable `x = u - threshold -> ds/du`.
        v_init: membrane before the first timestep; "half" is half the threshold. A learned one is per channel.
        channels: number of channels, for options that are learned per channel.

    Raises:
        UserError: for an option out of its range or a tensor in its place, what is learned per channel without `channels`, a
            surrogate with parameters, or a `v_init` or `v_reset` that fires without any input.
    """

    @with_learn_decay
    def __init__(
        self,
        *,
        decay: float | Learned | str = 0.5,
        threshold: float | Learned | str = 1.0,
        v_reset: float | None = None,
        detach_reset: bool = False,
        surrogate: str | Surrogate = "sigmoid",
        v_init: float | Learned | str = 0.0,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if channels is not None and (type(channels) is not int or channels < 1):
            raise UserError(f"channels is {channels!r}, expected a whole number of 1 or more")
        options = {"decay": decay, "threshold": threshold, "v_init": v_init}
        learned = {name: found for name, option in options.items() if (found := Learned.of(option))}
        for name, found in learned.items():
            options[name] = getattr(Neuron, name) if found.start is None else found.start
        half = isinstance(v_init, str) and v_init == "half"
        numbers: dict[str, Any] = options | {"v_reset": 0.0 if v_reset is None else v_reset}
        numbers |= {"v_init": 0.0} if half else {}
        for name, value in numbers.items():
            _check_number(name, value)
        derivative = resolve_surrogate(surrogate)
        if isinstance(derivative, nn.Module) and any(p.requires_grad for p in derivative.parameters()):
            raise UserError(
                "the surrogate has parameters, which would never receive a gradient, because a surrogate is a derivative itself: "
                "expected numbers in their place"
            )
        Neuron(surrogate=surrogate, **numbers)
        _check_silent_at_rest(**numbers)
        if "decay" in learned and not 0 < numbers["decay"] < 1:
            raise UserError(f"a learned decay starts inside (0, 1); got {numbers['decay']}")
        self.decay: float = numbers["decay"]  # the initial value, if the option is learned
        self.threshold: float = numbers["threshold"]
        self.v_reset = v_reset
        self.detach_reset = detach_reset
        self.surrogate = surrogate
        start = {name: _start(name, found, numbers[name], channels) for name, found in learned.items()}
        self.decay_logit = nn.Parameter(start["decay"].logit()) if "decay" in start else None
        self.log_threshold = nn.Parameter(start["threshold"].log()) if "threshold" in start else None
        self.v_init: float | Literal["half"] | nn.Parameter = "half" if half else float(numbers["v_init"])
        if "v_init" in start:
            self.v_init = nn.Parameter(start["v_init"])

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an option.

        Raises:
            UserError: for a learned option, because its parameter would override the value, or for a value that the option does
                not take.
        """
        parameters = self.__dict__.get("_parameters", {})
        holds = {"decay": "decay_logit", "threshold": "log_threshold", "v_init": "v_init"}.get(name)
        if holds and parameters.get(holds) is not None and not isinstance(value, nn.Parameter):
            raise UserError(
                f"{name} of this layer is learned, so {name} = {value!r} would have no effect: write to its parameter {holds}, or "
                f"make a layer with LIF({name}={value!r})"
            )
        if holds and not isinstance(value, nn.Parameter) and not (holds == "v_init" and value == "half"):
            _check_number(name, value)
        super().__setattr__(name, value)

    def dynamics(self, ndim: int) -> Neuron:
        """The layer's options for samples `[B, ...]` of `ndim` dimensions. Learned ones are tensors that broadcast over them."""

        def over_channels(parameter: Tensor) -> Tensor:
            if parameter.ndim and ndim < 2:
                raise UserError(
                    f"{self} learns one value per channel, and its currents have no channels: expected [B, C, ...]"
                )
            return parameter.view(-1, *[1] * (ndim - 2)) if parameter.ndim else parameter

        threshold: float | Tensor = self.threshold
        if self.log_threshold is not None:
            threshold = over_channels(self.log_threshold.exp())
        if self.v_init == "half":
            v_init: float | Tensor = threshold / 2
        else:
            v_init = over_channels(self.v_init) if isinstance(self.v_init, Tensor) else self.v_init
        return Neuron(
            decay=self.decay if self.decay_logit is None else over_channels(self.decay_logit.sigmoid()),
            threshold=threshold,
            v_reset=self.v_reset,
            detach_reset=self.detach_reset,
            surrogate=self.surrogate,
            v_init=v_init,
        )

    @property
    def runs_by_step(self) -> bool:
        """Whether a subclass has its own `step`."""
        return type(self).step is not LIF.step

    def step(self, current: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Advance the layer by one timestep, as `spikedistill.lif_step` does."""
        return lif_step(current, state, self.dynamics(current.ndim))

    def extra_repr(self) -> str:
        surrogate = self.surrogate if isinstance(self.surrogate, str) else getattr(self.surrogate, "__name__", "custom")
        reset = "soft" if self.v_reset is None else f"hard to {self.v_reset}"
        decay = "learned" if self.decay_logit is not None else self.decay
        threshold = "learned" if self.log_threshold is not None else self.threshold
        starts = "" if isinstance(self.v_init, float) and not self.v_init else ", v_init="
        v_init = starts and starts + ("learned" if isinstance(self.v_init, Tensor) else str(self.v_init))
        return f"decay={decay}, threshold={threshold}, reset={reset}, surrogate={surrogate}{v_init}"


def _check_number(name: str, value: object) -> None:
    """Check that an option is a number.

    Raises:
        UserError: naming what the option takes.
    """
    forms = {"decay": ["'learned'"], "threshold": ["'learned'"], "v_init": ["'half'", "'learned'"]}.get(name, [])
    expected = " or ".join([", ".join(["a number", *forms[:-1]]), *forms[-1:]])
    if isinstance(value, Tensor):
        learn = f"; {name}='learned' makes a parameter, and {name}=Learned(0.8) one that starts at 0.8" if forms else ""
        raise UserError(f"{name} is a tensor, expected {expected}{learn}")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{name} is {value!r}, expected {expected}")


def _start(name: str, learned: Learned, value: float, channels: int | None) -> Tensor:
    """The initial values of a learned option: one, or one per channel.

    Raises:
        UserError: for an option per channel without the number of channels.
    """
    per = learned.per or ("channel" if channels is not None or name == "v_init" else "layer")
    if per == "layer":
        return torch.tensor(float(value))
    if channels is None:
        raise UserError(f"{name}='{learned}' keeps one value per channel: say how many with channels=...")
    return torch.full((channels,), float(value))


def _check_silent_at_rest(decay: float, threshold: float, v_reset: float, v_init: float) -> None:
    """Refuse neurons that fire without any input: at their first timestep, or for ever after their first spike.

    Raises:
        UserError: naming the option.
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
