"""Changes that do not depend on the network: Gaussian noise, and a random corner of the ball."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .attacks import Attack, Look, dice_of


@dataclass(frozen=True)
class Drawn(Attack):
    """A change that is drawn.

    Attributes:
        seed: of the draws, together with `start`.
    """

    uses_gradients: ClassVar[bool] = False
    seeks_mistakes: ClassVar[bool] = False
    seed: int = 0


@dataclass(frozen=True)
class Unchanged(Attack):
    """Samples as they are."""

    name: ClassVar[str] = "clean"
    uses_gradients: ClassVar[bool] = False
    uses_start: ClassVar[bool] = False
    of_events: ClassVar[bool | None] = None
    eps: float = 0.0

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        return x


@dataclass(frozen=True)
class GaussianNoise(Drawn):
    """Noise of the standard deviation eps, clamped to [0, 1]. It may leave the ball."""

    name: ClassVar[str] = "noise"

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        return (x + self.eps * torch.randn(x.shape, generator=dice_of(self.seed, start)).to(x)).clamp(0, 1)


@dataclass(frozen=True)
class RandomCorner(Drawn):
    """Every pixel moves by eps up or down at random: the baseline for attacks of this size."""

    name: ClassVar[str] = "random"

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        signs = torch.randint(2, x.shape, generator=dice_of(self.seed, start)).to(x) * 2 - 1
        return self.within(x + self.eps * signs, x)
