"""What every layout is built of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layers:
    """The kinds of layer that a layout is filled with, and its scale.

    Attributes:
        neuron: makes the activation for a number of channels: LIF, or ReLU for the ANN twin.
        width: factor on every hidden channel count.
    """

    neuron: Callable[[int], nn.Module]
    width: float = 1.0

    def channels(self, count: int) -> int:
        """A hidden layer's channels at this width, at least one."""
        return max(1, round(count * self.width))

    def conv_norm(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
        """Convolution without bias and batch-norm: the input current of a layer of neurons."""
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs))


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
        return (images - self.mean) / self.std
