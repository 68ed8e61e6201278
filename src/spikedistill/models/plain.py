"""The module that a user wrote, without the modules that training and model files put around it."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ..through_time import Temporal
from .layers import Normalize


def normalised(module: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """The module behind the normalisation of images in [0, 1]; as it is if a `Normalize` is in it."""
    if any(isinstance(layer, Normalize) for layer in module.modules()):
        return module
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=module))


def plain_module(network: nn.Module) -> nn.Module:
    """The plain module of a network over time, without the normalisation that `normalised` added."""
    module = network.module if isinstance(network, Temporal) else network
    children = dict(module.named_children())
    if type(module) is nn.Sequential and [*children] == ["normalize", "network"]:
        return children["network"] if isinstance(children["normalize"], Normalize) else module
    return module
