"""Makes the layers of neurons of a network, by their name."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from ..errors import UserError
from ..neurons import LIF, NEURONS, Learned


def relu(channels: int) -> nn.Module:
    return nn.ReLU()


def layer_of(neuron: str, of_lif: dict[str, Any], own: dict[str, Any]) -> Callable[[int], nn.Module]:
    """A function that makes a layer of neurons for a number of channels.

    Args:
        neuron: the name of the neurons.
        of_lif: arguments of `LIF`.
        own: options of registered neurons.

    Raises:
        UserError: for an unknown name, or options that these neurons do not take.
    """
    kind = NEURONS[neuron]
    if neuron != "lif" and of_lif:
        instead = "it has no spiking neurons" if neuron == "relu" else "its own options are neuron_options={...}"
        raise UserError(f"neuron={neuron!r} takes no options of LIF, such as {', '.join(of_lif)}: {instead}")
    if neuron in ("lif", "relu") and own:
        raise UserError(
            f"neuron={neuron!r} takes no neuron_options, which are for registered neurons: got {', '.join(own)}"
        )
    if neuron == "lif":
        return _lif(of_lif)
    return relu if neuron == "relu" else kind.layers(neuron, own)


def _lif(options: dict[str, Any]) -> Callable[[int], nn.Module]:
    known = [name for name in inspect.signature(LIF).parameters if name != "channels"]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise UserError(f"neither create_model nor LIF takes {', '.join(unknown)}; LIF takes {', '.join(known)}")
    options = dict(options)
    for name in (
        "decay",
        "threshold",
    ):  # every layer gets its channels; only options that are "learned_per_channel" use them
        if (learned := Learned.of(options.get(name))) and learned.per is None:
            options[name] = replace(learned, per="layer")
    LIF(**options, channels=1)  # a wrong value is reported here, before anything is built
    return lambda channels: LIF(**options, channels=channels)
