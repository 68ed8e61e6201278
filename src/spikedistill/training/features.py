"""Which layers of a network features are read from, by name, and what they pass before they are compared."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models.layers import Layout
from ..neurons import SpikingNeuron
from ..through_time import Temporal


def layer_names(network: Temporal, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The names, within `network.module`, of these layers of its layout; of those that end its stages where none is wanted.

    "last" is the layer that ends the last stage.

    Raises:
        UserError: for a network of no layout, whose stages are not known.
    """
    place, layout = layout_of(network)
    prefix, stages = f"{place}." if place else "", tuple(layout.stage_channels)
    return tuple(prefix + (stages[-1] if name == "last" else name) for name in wanted or stages)


def classifier_of(network: Temporal, features: Tensor, logits: Tensor) -> Callable[[Tensor], Tensor]:
    """The part of a network behind its last stage, from features `[B, c, ...]` to logits `[B, C]`.

    Args:
        network: the network.
        features: what its last stage returns for some samples, to try it on.
        logits: what it answers for them.

    Raises:
        UserError: for a network of no layout, or one that has spiking neurons there, or tells timesteps apart, to which
            features without time say nothing.
    """
    _, layout = layout_of(network)

    def classify(features: Tensor) -> Tensor:
        # under 64-true the student's features are in float64
        return layout.classify(features.to(next(layout.parameters()).dtype))

    def refuse(*_: object) -> None:
        raise UserError(
            "the teacher's classifier has spiking neurons, and would be asked about mean rates: use its ReLU twin as the teacher, "
            "or a network that ends in linear layers"
        )

    hooks = [module.register_forward_pre_hook(refuse) for module in layout.modules() if isinstance(module, SpikingNeuron)]
    try:
        with torch.no_grad():
            answers = classify(features)
    finally:
        for hook in hooks:
            hook.remove()
    if not torch.allclose(answers, logits.to(answers.dtype), rtol=1e-3, atol=1e-3):
        raise UserError(
            "the teacher's classifier, asked about its own mean features, answers otherwise than the teacher, whose timesteps "
            "differ there: use one without batch-norms of single timesteps"
        )
    return classify


def layout_of(network: Temporal) -> tuple[str, Layout]:
    """The layout of a network, and its name within `network.module`, empty where it is that.

    Raises:
        UserError: for a network of no layout, whose stages are not known.
    """
    for place, module in network.module.named_modules():
        if isinstance(module, Layout):
            return place, module
    raise UserError(
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
