"""The connections of convolutions and linear layers: how many there are, how many start from each input, and values of inputs."""

import math
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

Synapses: TypeAlias = _ConvNd | nn.Linear


class Levels:
    """Which values a signal takes."""

    def __init__(self) -> None:
        self._low, self._high = math.inf, -math.inf

    def add(self, values: Tensor) -> None:
        """Look at further values."""
        if self.two_valued and (nonzero := values != 0).any():
            seen = values[nonzero]
            self._low, self._high = min(self._low, float(seen.min())), max(self._high, float(seen.max()))

    @property
    def two_valued(self) -> bool:
        """Whether all were 0 or one other value."""
        return self._low >= self._high


def positions(layer: Synapses, inputs: torch.Size, outputs: torch.Size) -> int:
    """How often the weights of a layer are used for a sample.

    Args:
        layer: the layer.
        inputs: spatial axes of its input, after the channels.
        outputs: axes of its output, `[C, *space]`, or `[..., features]` of a linear layer.
    """
    if isinstance(layer, nn.Linear):
        return outputs[:-1].numel()
    return (inputs if layer.transposed else outputs[1:]).numel()


def fan_out(layer: Synapses, space: torch.Size) -> Tensor:
    """How many outputs each input of a sample contributes to, int64, to be broadcast over `[C, *space]`.

    For a convolution this is the gradient of the sum of its outputs with respect to its inputs if all weights are one. It is
    smaller at the border, and zero for an input that a stride skips.
    """
    if isinstance(layer, nn.Linear):
        return torch.tensor(layer.out_features)
    place = torch.ones(1, 1, *space, dtype=torch.float64, requires_grad=True)
    kernel = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)
    n = len(space)
    with torch.enable_grad():
        if layer.transposed:
            convolve = getattr(F, f"conv_transpose{n}d")
            out = convolve(place, kernel, None, layer.stride, layer.padding, layer.output_padding, 1, layer.dilation)
        else:
            padded, padding = place, layer.padding
            if layer.padding_mode != "zeros":
                padded, padding = F.pad(place, layer._reversed_padding_repeated_twice, layer.padding_mode), (0,) * n
            out = getattr(F, f"conv{n}d")(padded, kernel, None, layer.stride, padding, layer.dilation)
        (touched,) = torch.autograd.grad(out.sum(), place)
    return touched[0].round().long() * (layer.out_channels // layer.groups)
