"""Networks by name."""

import difflib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn

from ..neurons import LIF
from ..temporal import Gradient, Temporal, temporal
from .convnet import ConvNet
from .layers import Layers, Normalize
from .resnet import ResNet

Builder = Callable[[Layers, int, int, int], nn.Module]


def _convnet(layers: Layers, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return ConvNet(layers, num_classes, in_channels, image_size)


def _resnet18(layers: Layers, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return ResNet(layers, num_classes, in_channels, depths=(2, 2, 2, 2), widths=(64, 128, 256, 512))


_MODELS: dict[str, Builder] = {
    "convnet": _convnet,
    "resnet18": _resnet18,
}


def list_models() -> list[str]:
    """Names that `create_model` takes."""
    return sorted(_MODELS)


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    gradient: Gradient = "bptt",
    segments: int | Sequence[int] = 1,
    neuron: Literal["lif", "relu"] = "lif",
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **lif_options: Any,
) -> Temporal:
    """Make a network by name, ready to run over time.

    Args:
        name: one of `list_models()`.
        num_classes: C, the size of the logits.
        in_channels: channels of the input; 2 for event frames.
        image_size: height and width of the input, needed by layouts that flatten.
        gradient: how gradients flow back through time; see `spikedistill.temporal`.
        segments: under `gradient="rate"`, the segments of time.
        neuron: "lif", or "relu" for the ANN twin: the same layout, nothing in it spikes.
        width: factor on every hidden channel count.
        mean, std: statistics of the channels of images in [0, 1], which the network then normalises itself.
        lif_options: arguments of `spikedistill.LIF`.

    Returns:
        The network; called with images `[B, C, H, W]` and `timesteps=T`, or event frames `[T, B, C, H, W]`, it returns logits
        `[T, B, num_classes]`.

    Raises:
        ValueError: for an unknown name or an option out of its range.
    """
    if name not in _MODELS:
        close = difflib.get_close_matches(name, _MODELS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"no model is called {name!r}: {hint}choose one of {', '.join(list_models())}")
    if not width > 0:
        raise ValueError(f"width is {width}, expected a positive factor such as 0.25 or 1.0")
    if num_classes < 1 or in_channels < 1 or image_size < 1:
        raise ValueError(
            f"num_classes={num_classes}, in_channels={in_channels}, image_size={image_size}: each must be at least 1"
        )
    if neuron not in ("lif", "relu"):
        raise ValueError(f"neuron is {neuron!r}, expected 'lif' or 'relu'")
    if neuron == "relu" and lif_options:
        raise ValueError(f"the ReLU twin has no spiking neurons to take {', '.join(lif_options)}")
    layers = Layers(neuron=_lif(lif_options) if neuron == "lif" else lambda channels: nn.ReLU(), width=width)
    network = _MODELS[name](layers, num_classes, in_channels, image_size)
    if mean is not None and std is not None:
        network = nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=network))
    return temporal(network, gradient=gradient, segments=segments, sample_axes="C, H, W")


def _lif(options: dict[str, Any]) -> Callable[[int], nn.Module]:
    try:
        LIF(**options, channels=1)
    except TypeError:
        known = "decay, threshold, v_reset, detach_reset, surrogate, v_init, learn_decay"
        raise ValueError(f"LIF has no option among {', '.join(options)} beyond its own: {known}") from None
    return lambda channels: LIF(**options, channels=channels)
