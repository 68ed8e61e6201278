"""A network whose sums are all exact, so that every runtime gives the same bits."""

import torch
from torch import nn

from spikedistill import LIF, temporal
from spikedistill.through_time import Temporal


def dyadic(v_reset: float | None = None) -> Temporal:
    """A network of eighths: on inputs of quarters every sum is exact in float32, in any order."""
    dice = torch.Generator().manual_seed(0)

    def eighths(layer: nn.Module) -> nn.Module:
        for parameter in layer.parameters():
            parameter.data = torch.randint(-6, 9, parameter.shape, generator=dice) / 8
        return layer

    layers = [
        eighths(nn.Conv2d(1, 6, 3, padding=1)), LIF(v_reset=v_reset), nn.AvgPool2d(2),
        eighths(nn.Conv2d(6, 8, 3, stride=2)), LIF(v_reset=v_reset), nn.Flatten(), eighths(nn.Linear(32, 5)),
    ]  # fmt: skip
    return temporal(nn.Sequential(*layers)).eval()
