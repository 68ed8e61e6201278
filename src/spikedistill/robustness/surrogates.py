"""Surrogates through which an attack sees a network: fixed ones, and ones that follow the membranes.

An attack can fail because its surrogate fits badly. A sample counts as robust only if it withstands the attack through all.

Shapes: x `[B, ...]` is the distance of the membranes of a layer from their threshold at one timestep.
"""

import math

import torch
from torch import Tensor, nn

_LEAST = 1e-4  # of a width


class MembraneWide:
    """A Gaussian as wide as the membranes spread: ds/du = exp(-(x - s/2)^2 / 2 s^2) / (s sqrt(2 pi)), s their standard deviation.

    s is that of a channel's membranes at this timestep, of each sample; in a layer without places, that of all its membranes. The
    form is that of the authors' code (Lun et al., PDSG, CVPR 2025), which takes s over the batch and the timesteps so far; here
    samples do not influence each other, and a backward pass has the membranes of one timestep.
    """

    by_timestep = True  # one call for each timestep

    def __call__(self, x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim)) or (1,)
        variance = x.square().mean(axes, keepdim=True) - x.mean(axes, keepdim=True).square()
        spread = variance.clamp(min=_LEAST**2).sqrt()
        return (x / spread).sub_(0.5).square_().mul_(-0.5).exp_().mul_(1 / (spread * math.sqrt(2 * math.pi)))


class AdaptiveSharpness:
    """An arc tangent whose sharpness follows each membrane over the steps of an attack (ASSG, Wang et al., 2025).

    ds/du = (a / 2) / (1 + (pi a x / 2)^2) with a = w / (M + 1.5 D + 1e-4), for every neuron, sample and timestep. M is a moving
    average of |x| over the steps, from 1, and D one of ||x| - M|, from 0, both with the factor 0.9; w = 2 tan(0.425 pi) / pi.

    It is called for each timestep of a backward pass, in the same order in every pass; `again` says that one begins.
    """

    by_timestep = True
    weight = 2 * math.tan(0.425 * math.pi) / math.pi
    fading = 0.9
    relaxation = 1.5

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the samples of before."""
        self._next = 0
        self._mean: list[Tensor] = []
        self._spread: list[Tensor] = []

    def again(self) -> None:
        """Begin the next step of an attack on the same samples."""
        self._next = 0

    def keep(self, left: Tensor) -> None:
        """Go on with some of the samples, bool `[B]`."""
        self._mean = [mean[left] for mean in self._mean]
        self._spread = [spread[left] for spread in self._spread]

    def __call__(self, x: Tensor) -> Tensor:
        # in place, because every pass over a layer's membranes counts
        t, distance = self._next, x.abs()
        self._next += 1
        if t == len(self._mean):
            self._mean.append(torch.ones_like(x))
            self._spread.append(torch.zeros_like(x))
        mean, spread = self._mean[t], self._spread[t]
        mean.mul_(self.fading).add_(distance, alpha=1 - self.fading)
        spread.mul_(self.fading).add_(distance.sub_(mean).abs_(), alpha=1 - self.fading)
        sharpness = torch.add(mean, spread, alpha=self.relaxation).add_(_LEAST).reciprocal_().mul_(self.weight)
        return (sharpness / 2).div_(sharpness.mul_(x).mul_(math.pi / 2).square_().add_(1))


def adaptive(layers: nn.Module) -> list[AdaptiveSharpness]:
    """The adaptive surrogates of a network's layers."""
    found = (getattr(module, "surrogate", None) for module in layers.modules())
    return [surrogate for surrogate in found if isinstance(surrogate, AdaptiveSharpness)]
