"""Makes the layers of neurons of a network, by their name."""

import inspect
from dataclasses import replace
from typing import Any

from torch import nn

from ..errors import UserError
from ..neurons import LIF, NEURONS, Learned, Neuron, SpikingNeuron
from .layers import MakesNeurons


def relu(channels: int, share: float = 1.0) -> nn.Module:
    """ReLU, which has no threshold to take a share of."""
    return nn.ReLU()


def layer_of(neuron: str, of_lif: dict[str, Any], own: dict[str, Any]) -> MakesNeurons:
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
    if neuron == "relu":
        return relu
    make = kind.layers(neuron, own)
    return lambda channels, share=1.0: _with_share(make(channels), share)


def _with_share(layer: nn.Module, share: float) -> nn.Module:
    """A layer of registered neurons with a share of its threshold.

    Raises:
        UserError: for neurons without a threshold that is a number.
    """
    if share == 1:
        return layer
    for part in layer.modules():
        if isinstance(part, SpikingNeuron):
            if not isinstance(threshold := getattr(part, "threshold", None), int | float):
                raise UserError(
                    f"this network has layers of neurons with {share:g} of the threshold of all others, and a "
                    f"{type(part).__name__} has none: set self.threshold to a number, or take a network without attention"
                )
            part.threshold = share * threshold  # type: ignore[assignment]
    return layer


def _lif(options: dict[str, Any]) -> MakesNeurons:
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
    return lambda channels, share=1.0: LIF(**_with_threshold(options, share), channels=channels)


def _with_threshold(options: dict[str, Any], share: float) -> dict[str, Any]:
    """Options of `LIF` with a share of their threshold; of a learned one, with a share of its initial value."""
    if share == 1:
        return options
    default = float(Neuron.threshold)
    threshold = options.get("threshold", default)
    if learned := Learned.of(threshold):
        start = default if learned.start is None else learned.start
        return options | {"threshold": replace(learned, start=share * start)}
    return options | {"threshold": share * threshold}
