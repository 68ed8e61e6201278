"""The layers whose features are compared, by name, and the trained layers that transform features before the comparison."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models import plain_module
from ..models.layers import Layout
from ..neurons import SpikingNeuron
from ..through_time import Temporal


def layer_names(
    network: nn.Module, wanted: Sequence[str] = (), what: str = "the objective compares features"
) -> tuple[str, ...]:
    """The full names of these layers of a network; by default of the layers that end its stages.

    "last" is the layer that ends the last stage. Names are looked up within the layout of a network that `create_model` made. In
    other networks they are names of the module as its user wrote it. `what` says what they are for, in an error.

    Raises:
        UserError: for a network that does not declare which layers end its stages, if they are needed.
    """
    place, module = own_module(network)
    prefix = f"{place}." if place else ""
    if wanted and "last" not in wanted:
        return tuple(prefix + name for name in wanted)
    stages = tuple(_stages(module, what))
    return tuple(prefix + (stages[-1] if name == "last" else name) for name in wanted or stages)


def classifier_of(network: nn.Module, features: Tensor, logits: Tensor) -> Callable[[Tensor], Tensor]:
    """The part of a network behind its last stage, from features `[B, c, ...]` to logits `[B, C]`.

    Args:
        network: the network.
        features: what its last stage returns for some samples, to try it on.
        logits: what the network returns for them.

    Raises:
        UserError: for a network without a method `classify`, with spiking neurons there, or whose timesteps differ there.
    """
    _, layout = own_module(network)
    if not callable(getattr(layout, "classify", None)):
        raise UserError(
            f"the objective uses the teacher's classifier, and {type(layout).__name__} has no method classify(features), from what "
            "its last stage returns to logits: add one, or use a network made by create_model"
        )

    def classify(features: Tensor) -> Tensor:
        # under 64-true the student's features are in float64
        found: Tensor = layout.classify(features.to(next(layout.parameters()).dtype))  # type: ignore[operator]
        return found

    def refuse(*_: object) -> None:
        raise UserError(
            "the teacher's classifier has spiking neurons, and its input would be mean rates: use its ReLU twin as the teacher, "
            "or a network that ends in linear layers"
        )

    hooks = [
        module.register_forward_pre_hook(refuse) for module in layout.modules() if isinstance(module, SpikingNeuron)
    ]
    try:
        with torch.no_grad():
            answers = classify(features)
    finally:
        for hook in hooks:
            hook.remove()
    if not torch.allclose(answers, logits.to(answers.dtype), rtol=1e-3, atol=1e-3):
        raise UserError(
            "the teacher's classifier returns other logits for the teacher's mean features than the teacher, because its timesteps "
            "differ: use a teacher without batch-norms of single timesteps"
        )
    return classify


def own_module(network: nn.Module) -> tuple[str, nn.Module]:
    """The module in which layers are named, and its path: a layout, or the module as its user wrote it."""
    module = network.module if isinstance(network, Temporal) else network
    for place, inner in module.named_modules():
        if isinstance(inner, Layout):
            return place, inner
    plain = plain_module(module)
    return ("" if plain is module else "network"), plain


def _stages(module: nn.Module, what: str) -> Iterable[str]:
    """The names of the layers that end the stages of a network.

    Raises:
        UserError: for a network that does not name them.
    """
    stages: Iterable[str] = getattr(module, "stage_channels", ())
    if not stages:
        raise UserError(
            f"{what} at the ends of stages, and {type(module).__name__} does not name them: "
            'give it an attribute stage_channels with channels by the names of layers, such as {"features.2": 32}, or use a '
            "network made by create_model"
        )
    return stages


def conv_norm(channels: int) -> nn.Module:
    """conv3x3-BN, no bias (SAKD)."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def generator(channels: int) -> nn.Module:
    """conv3x3-ReLU-conv3x3 (BKDSNN)."""
    first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)


# Trained layers that transform a student's features before they are compared with a teacher's, by the number of channels.
TRANSFORMS: dict[str, Callable[[int], nn.Module]] = {"conv_norm": conv_norm, "generator": generator}
