"""Auxiliary heads for training: ordinary ANN branches on the firing rates of a spiking network's early stages.

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
    """A network over time with auxiliary heads beside its own; for everything but training it is the network alone.

    Args:
        network: the network, whose plain module, gradient rule and parameters are shared.
        branches: a head by the name of the layer whose mean rates `[B, c, h, w]` it takes, shallow to deep.

    Raises:
        UserError: for a layer that the network does not have.
    """

    def __init__(self, network: Temporal, branches: Mapping[str, nn.Module]) -> None:
        super().__init__(network.module, network.rule, network.sample_axes)
        self.layers = tuple(branches)
        self.branches = nn.ModuleList(branches.values())
        with outputs_of(self.module, self.layers):
            pass  # the names are checked here, not at the first batch

    def heads(self, x: Tensor, timesteps: int | None = None) -> tuple[Tensor, Tensor]:
        """Run the network and every head.

        Args:
            x: as the network takes it, `[B, ...]` with `timesteps`, or `[T, B, ...]` without.
            timesteps: T, for a static input alone.

        Returns:
            The network's logits `[T, B, C]`, and those of the S heads `[S, B, C]`: branches from shallow to deep, and last the
            network's own, the mean over its timesteps.
        """
        with outputs_of(self.module, self.layers) as outputs:
            logits = self(x, timesteps)
        # what is rounded in bf16 would decide who is right
        own = logits.to(torch.promote_types(logits.dtype, torch.float32)).mean(0)
        others = [
            branch(mean_rate(outputs[layer])).to(own.dtype)
            for layer, branch in zip(self.layers, self.branches, strict=True)
        ]
        return logits, torch.stack([*others, own])


def branch(channels: Sequence[int], num_classes: int, *, residual: bool = False) -> nn.Module:
    """An auxiliary head: depthwise-separable blocks, each with stride 2, then global average pooling and a linear layer.

    Args:
        channels: of the features it takes, then of each block.
        num_classes: C.
        residual: follow each block by a residual one of two 3x3 convolutions, and draw all convolutions from N(0, 2 / fan_out):
            the form for ImageNet.
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
