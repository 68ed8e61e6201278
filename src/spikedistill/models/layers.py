"""The parts of which every layout is built."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..options import OptionValue
from ..registry import Registry

_Network = TypeVar("_Network", bound=nn.Module)
_Build = TypeVar("_Build", bound="Callable[[Layers, Sizes], Layout]")


class Sizes(NamedTuple):
    """The sizes of a network that the data determine.

    Attributes:
        in_channels: channels of the input.
        image_size: height H and width W of the input.
        num_classes: C, the size of the logits.
    """

    in_channels: int
    image_size: tuple[int, int]
    num_classes: int


class Layout(nn.Module, ABC):
    """A network of a published layout, in stages.

    Attributes:
        stage_channels: channels at the end of each stage, by the name of the layer that ends it, from input to output.
    """

    stage_channels: dict[str, int]

    @abstractmethod
    def classify(self, x: Tensor) -> Tensor:
        """The logits for the features that the last stage returns."""


class MakesNeurons(Protocol):
    """Makes a layer of neurons for a number of channels, or ReLU for the ANN twin."""

    def __call__(self, channels: int, share: float = 1.0) -> nn.Module:
        """Make a layer.

        Args:
            channels: of its currents.
            share: of the network's threshold that this layer's own is. ReLU has none.

        Raises:
            UserError: for a share of the threshold of neurons that have none.
        """


@dataclass(frozen=True)
class Layers:
    """The kinds of layer that a layout is filled with, and its scale.

    Attributes:
        neuron: makes the activation for a number of channels: LIF, or ReLU for the ANN twin.
        norm: makes the batch-norm for a number of channels.
        width: factor on every hidden channel count.
        conv_bias: whether convolutions have a bias, as in some published layouts (before batch-norm it changes nothing).
        drop_path: the share of samples for which the last block's residual bodies are left out in training.
    """

    neuron: MakesNeurons
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    width: float = 1.0
    conv_bias: bool = False
    drop_path: float = 0.0

    def channels(self, count: int, heads: int = 1) -> int:
        """A hidden layer's channels at this width: as many for each head of an attention, at least one."""
        return heads * max(1, round(count * self.width / heads))

    def conv_norm(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> nn.Sequential:
        """Convolution and batch-norm: the input current of a layer of neurons."""
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=self.conv_bias)
        return nn.Sequential(conv, self.norm(outputs))


def classifier(layers: Layers, features: int, classes: int, hidden: Sequence[int] = ()) -> nn.Module:
    """Linear layers with a bias and without batch-norm, with neurons between them.

    Args:
        layers: the kinds of layer and the width.
        features: what it takes.
        classes: C.
        hidden: the neurons of each hidden layer at width 1; none for one linear layer.
    """
    parts: list[nn.Module] = []
    for count in hidden:
        inputs, features = features, layers.channels(count)
        parts += [nn.Linear(inputs, features), layers.neuron(features)]
    last = nn.Linear(features, classes)
    return nn.Sequential(*parts, last) if parts else last


class DropPath(nn.Module):
    """Stochastic depth: leave a residual body out for some samples in training (Huang et al., ECCV 2016).

        y = x * keep / (1 - p)

    keep is 0 with probability p and 1 otherwise, drawn once for each sample and the same at all its timesteps.

    Args:
        p: share of samples for which it is left out, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        ones = torch.ones(x.shape[0], *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x * nn.functional.dropout(ones, self.p)


def kaiming_fan_out(network: _Network) -> _Network:
    """Draw the weights of all convolutions from N(0, 2 / fan_out) (He et al., 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class Named(NamedTuple):
    """A layout of this library by name.

    Attributes:
        build: makes the network.
        flattens: whether its head fixes the size of the image.
        residual_branches: whether its auxiliary heads are of the form for ImageNet.
    """

    build: Callable[[Layers, Sizes], Layout]
    flattens: bool
    residual_branches: bool


class OwnModel(NamedTuple):
    """A network that a user registered.

    Attributes:
        build: makes a module for samples `[B, ...]`.
        takes: which of `own.TOLD` it takes.
        options: its own options and their defaults.
    """

    build: Callable[..., nn.Module]
    takes: frozenset[str]
    options: dict[str, OptionValue]


MODELS: Registry[Named | OwnModel] = Registry("model", "spikedistill.models")
"""Networks by name: layouts of this library, and those of users."""


def register_layout(*, flattens: bool = False, residual_branches: bool = False) -> Callable[[_Build], _Build]:
    """Register the function below under its name, with the attributes of `Named`. Layouts have stages, a width, branches and twins.

    Raises:
        UserError: if the name is taken.
    """

    def enter(build: _Build) -> _Build:
        MODELS.register(build.__name__, Named(build, flattens, residual_branches))
        return build

    return enter


class Normalize(nn.Module):
    """Shift and scale each channel of images in [0, 1] to the statistics that a network was trained with.

    Args:
        mean: one number per channel.
        std: one number per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if not images.is_floating_point():
            raise UserError(
                f"got images of {images.dtype}, expected floating-point numbers in [0, 1]: divide bytes by 255"
            )
        return (images - self.mean) / self.std
