"""Surrogates through which an attack sees a network: fixed ones, and ones that follow the membranes.

An attack can fail because its surrogate fits badly. A sample counts as robust only if it withstands the attack through all.

Shapes: x `[B, ...]` is the distance of the membranes of a layer from their threshold at one timestep.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..neurons.surrogate import arctan

_LEAST = 1e-4  # of a width


class MembraneWide:
    """A Gaussian as wide as the membranes spread: ds/du = exp(-x^2 / 2 s^2) / (s sqrt(2 pi)), s their standard deviation.

    s is that of a layer's membranes at this timestep, of each sample (Lun et al., PDSG, CVPR 2025).
    """

    def __call__(self, x: Tensor) -> Tensor:
        spread = x.flatten(1).std(1, correction=0).clamp(min=_LEAST).view(-1, *[1] * (x.ndim - 1))
        return torch.exp(-0.5 * (x / spread).square()) / (spread * math.sqrt(2 * math.pi))


class AdaptiveSharpness:
    """An arc tangent whose sharpness follows each membrane over the steps of an attack (ASSG, Wang et al., 2025).

    ds/du = (a / 2) / (1 + (pi a x / 2)^2) with a = w / (M + 1.5 D + 1e-4), for every neuron, sample and timestep. M is a moving
    average of |x| over the steps, from 1, and D one of ||x| - M|, from 0, both with the factor 0.9; w = 2 tan(0.425 pi) / pi.

    It is called for each timestep of a backward pass, in the same order in every pass; `again` says that one begins.
    """

    weight = 2 * math.tan(0.425 * math.pi) / math.pi
    fading = 0.9
    relaxation = 1.5

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the samples of before."""
        self._next = 0
        self._mean: list[Any] = []
        self._spread: list[Any] = []

    def again(self) -> None:
        """Begin the next step of an attack on the same samples."""
        self._next = 0

    def keep(self, left: Tensor) -> None:
        """Go on with some of the samples, bool `[B]`."""
        self._mean = [mean[left] for mean in self._mean]
        self._spread = [spread[left] for spread in self._spread]

    def __call__(self, x: Tensor) -> Tensor:
        t, distance = self._next, x.abs()
        self._next += 1
        if t == len(self._mean):
            self._mean.append(1.0)
            self._spread.append(0.0)
        self._mean[t] = self.fading * self._mean[t] + (1 - self.fading) * distance
        self._spread[t] = self.fading * self._spread[t] + (1 - self.fading) * (distance - self._mean[t]).abs()
        return arctan(x, self.weight / (self._mean[t] + self.relaxation * self._spread[t] + _LEAST))


def adaptive(layers: nn.Module) -> list[AdaptiveSharpness]:
    """The adaptive surrogates of a network's layers."""
    found = (getattr(module, "surrogate", None) for module in layers.modules())
    return [surrogate for surrogate in found if isinstance(surrogate, AdaptiveSharpness)]
