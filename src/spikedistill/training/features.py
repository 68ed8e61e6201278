"""Which layers of a network features are read from, by name, and what they pass before they are compared."""

from collections.abc import Callable, Sequence

from torch import nn

from ..models.layers import Layout
from ..temporal import Temporal


def layer_names(network: Temporal, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The names, within `network.module`, of these layers of its layout; of those that end its stages where none is wanted.

    "last" is the layer that ends the last stage.

    Raises:
        ValueError: for a network of no layout, whose stages are not known.
    """
    for place, module in network.module.named_modules():
        if isinstance(module, Layout):
            prefix, stages = f"{place}." if place else "", tuple(module.stage_channels)
            return tuple(prefix + (stages[-1] if name == "last" else name) for name in wanted or stages)
    raise ValueError(
        f"features are read at the stages of a network made by create_model; got one of {type(network.module).__name__}"
    )


def conv_norm(channels: int) -> nn.Module:
    """conv3x3-BN, no bias (SAKD)."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def generator(channels: int) -> nn.Module:
    """conv3x3-ReLU-conv3x3 (BKDSNN)."""
    first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)


# What a student's features pass before they are compared with a teacher's, for their number of channels.
TRANSFORMS: dict[str, Callable[[int], nn.Module]] = {"conv_norm": conv_norm, "generator": generator}
