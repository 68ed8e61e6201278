"""Auxiliary heads for training: ANN branches on the firing rates of a spiking network's early stages.

Zhao et al.: Enhanced Self-Distillation Framework for Efficient Spiking Neural Network Training (NeurIPS 2025).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..through_time import Temporal, mean_rate
from ..through_time.features import outputs_of
from .layers import kaiming_fan_out


class Branched(Temporal):
    """A network over time with auxiliary heads. Calls, `step` and `save_model` use only the network; `heads` uses both.

    Args:
        network: the network. Its plain module, gradient rule and parameters are shared.
        branches: heads by the name of the layer whose mean rates `[B, c, h, w]` they take, from shallow to deep.

    Raises:
        UserError: for a layer that the network does not have.
    """

    def __init__(self, network: Temporal, branches: Mapping[str, nn.Module]) -> None:
        super().__init__(network.module, network.rule, network.sample_axes)
        self.layers = tuple(branches)
        self.branches = nn.ModuleList(branches.values())
        with outputs_of(self.module, self.layers):
            pass  # checks the names now, not at the first batch

    def heads(self, x: Tensor, timesteps: int | None = None) -> tuple[Tensor, Tensor]:
        """Run the network and all heads.

        Args:
            x: the input of the network, `[B, ...]` with `timesteps`, or `[T, B, ...]` without.
            timesteps: T, only for a static input.

        Returns:
            The network's logits `[T, B, C]`, and the logits of the S heads `[S, B, C]`: the branches from shallow to deep, then
            the network's own logits, as a mean over time.
        """
        with outputs_of(self.module, self.layers) as outputs:
            logits = self(x, timesteps)
        # in bf16, rounding could change which head is right
        own = logits.to(torch.promote_types(logits.dtype, torch.float32)).mean(0)
        others = [
            branch(mean_rate(outputs[layer])).to(own.dtype)
            for layer, branch in zip(self.layers, self.branches, strict=True)
        ]
        return logits, torch.stack([*others, own])


def branch(channels: Sequence[int], num_classes: int, *, residual: bool = False) -> nn.Module:
    """An auxiliary head: depthwise-separable blocks, each with stride 2, then global average pooling and a linear layer.

    Args:
        channels: channels of the features that it takes, then of each block.
        num_classes: C.
        residual: put a residual block of two 3x3 convolutions after each block, and draw all convolutions from N(0, 2 / fan_out).
            This is the form for ImageNet.
    """
    blocks: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        blocks.append(SeparableBlock(inputs, outputs))
        if residual:
            blocks.append(ResidualBlock(outputs))
    head = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes))
    return kaiming_fan_out(head) if residual else head


class SeparableBlock(nn.Module):
    """Two depthwise-separable convolutions, the first with stride 2, plus conv1x1-BN of the input; ReLU; no biases."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_separable(inputs, inputs, 2), nn.ReLU(), *_separable(inputs, outputs, 1), nn.ReLU())
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
    return [depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]


class ResidualBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN plus the input, ReLU; no biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + x)
