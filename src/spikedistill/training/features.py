"""Which layers of a network features are read from, by name, and what they pass before they are compared."""

from collections.abc import Sequence

from torch import nn

from ..models.layers import Layout
from ..temporal import Temporal


def layer_names(network: Temporal, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The names, within `network.module`, of these layers of its layout; of those that end its stages where none is wanted.

    Raises:
        ValueError: for a network of no layout, whose stages are not known.
    """
    for place, module in network.module.named_modules():
        if isinstance(module, Layout):
            prefix = f"{place}." if place else ""
            return tuple(prefix + name for name in wanted or module.stage_channels)
    raise ValueError(
        f"features are read at the stages of a network made by create_model; got one of {type(network.module).__name__}"
    )


def transform(channels: int) -> nn.Module:
    """What a student's features pass before they are compared with a teacher's: conv3x3-BN, no bias (SAKD)."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
