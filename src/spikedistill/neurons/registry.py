"""Neurons by name, for networks that are made by name."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from ..errors import UserError
from ..options import OptionValue, check_options, defaults_of
from ..registry import Registry
from .modules import LIF
from .spiking_neuron import SpikingNeuron

_Factory = TypeVar("_Factory", bound=Callable[..., nn.Module])
_CHANNELS = "channels"


@dataclass(frozen=True)
class NeuronKind:
    """A kind of neurons that networks can be made with.

    Attributes:
        factory: makes a layer of them.
        options: the options of `factory`, with their defaults.
        takes_channels: whether `factory` takes the number of channels.
    """

    factory: Callable[..., nn.Module]
    options: Mapping[str, OptionValue]
    takes_channels: bool = False

    def layers(self, name: str, options: Mapping[str, Any]) -> Callable[[int], nn.Module]:
        """A function that makes a layer for a number of channels.

        Args:
            name: the name of the neuron, for messages.
            options: values of some options; all others have their defaults.

        Raises:
            UserError: for options that the neuron does not have or take, or a factory that makes something else.
        """
        check_options(f"neuron {name!r}", self.options, options)

        def make(channels: int) -> nn.Module:
            return self.factory(**options, **({_CHANNELS: channels} if self.takes_channels else {}))

        layer = make(1)  # a wrong value is refused here, before a network is built
        if not isinstance(layer, nn.Module) or not any(isinstance(part, SpikingNeuron) for part in layer.modules()):
            raise UserError(
                f"neuron {name!r} made a {type(layer).__name__}, expected a layer of neurons, of a subclass of SpikingNeuron"
            )
        return make


NEURONS: Registry[NeuronKind] = Registry("neuron", "spikedistill.neurons")
"""Neurons by name, for `create_model(neuron=...)` and `--model.neuron`."""
# The library's own. The settings of LIF are arguments of `create_model`, and have flags of their own.
NEURONS.register("lif", NeuronKind(LIF, {}))
NEURONS.register("relu", NeuronKind(nn.ReLU, {}))


def register_neuron(name: str) -> Callable[[_Factory], _Factory]:
    """Register a kind of neurons under a name, for `create_model(..., neuron=name)` and `--model.neuron NAME`.

    Use it as a decorator of a subclass of `SpikingNeuron`, or of a function that makes a layer of neurons. A parameter `channels`
    receives the number of channels. All other parameters are options, on the command line `--model.neuron-options.NAME`.
    In a run an option `timesteps` that is not given is the run's T.

    Args:
        name: a name that is not taken, without spaces, commas and equals signs.

    Raises:
        UserError: if the name is taken, or a parameter other than `channels` has no default that is a number, a text or a switch.
    """

    def enter(factory: _Factory) -> _Factory:
        options = defaults_of(factory, f"neuron {name!r}", without=(_CHANNELS,))
        takes_channels = _CHANNELS in inspect.signature(factory).parameters
        NEURONS.register(name, NeuronKind(factory, options, takes_channels))
        return factory

    return enter


def list_neurons() -> list[str]:
    """Names of neurons that `create_model` takes, sorted."""
    return list(NEURONS)


def neuron_options(name: str) -> dict[str, OptionValue]:
    """The options of a registered neuron, with their defaults.

    Raises:
        UserError: for an unknown name.
    """
    return dict(NEURONS[name].options)
