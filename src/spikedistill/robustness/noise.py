"""Changes that ask nothing of the network: Gaussian noise, and a random corner of the ball."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .attacks import Attack, Look


@dataclass(frozen=True)
class GaussianNoise(Attack):
    """Noise of the standard deviation eps, and back into [0, 1]. It may leave the ball.

    Attributes:
        seed: of the noise, which depends on a sample's place in the batch.
    """

    name: ClassVar[str] = "noise"
    uses_gradients: ClassVar[bool] = False
    seed: int = 0

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        dice = torch.Generator().manual_seed(self.seed)
        return (x + self.eps * torch.randn(x.shape, generator=dice).to(x)).clamp(0, 1)


@dataclass(frozen=True)
class RandomCorner(Attack):
    """Every pixel moves by eps up or down at random: what a change of this size does without knowing the network.

    Attributes:
        seed: of the draws, which depend on a sample's place in the batch.
    """

    name: ClassVar[str] = "random"
    uses_gradients: ClassVar[bool] = False
    seed: int = 0

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        dice = torch.Generator().manual_seed(self.seed)
        return self.within(x + self.eps * (torch.randint(2, x.shape, generator=dice).to(x) * 2 - 1), x)
