"""The attack of Carlini and Wagner: the nearest sample that a network mistakes."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UserError
from .attacks import Look
from .losses import margin


@dataclass(frozen=True)
class CarliniWagner:
    """Lower |x' - x|^2 + c max(margin, -kappa) over w, x' = (tanh w + 1) / 2, by Adam (Carlini and Wagner, S&P 2017).

    It returns the nearest x' that fools the network, and x where none does. After each tenth of the steps, a batch stops if its
    summed cost has risen. The constant is not searched for. Pixels of exactly 0 or 1 stay, because tanh has no gradient there.

    Attributes:
        c: the weight of the margin.
        kappa: the margin that is asked for.
        steps: their number.
        lr: of Adam.
        targeted: labels are classes to reach.
        alone: each sample stops by its own cost rather than the batch by its sum, so samples do not influence each other.
    """

    name: ClassVar[str] = "cw"
    uses_gradients: ClassVar[bool] = True
    of_events: ClassVar[bool | None] = False
    seeks_mistakes: ClassVar[bool] = True
    uses_start: ClassVar[bool] = False
    c: float = 1.0
    kappa: float = 0.0
    steps: int = 50
    lr: float = 0.01
    targeted: bool = False
    alone: bool = False

    def __post_init__(self) -> None:
        if type(self.steps) is not int or self.steps < 1:
            raise UserError(f"steps is {self.steps!r}, expected a whole number of 1 or more")
        for name, least in (("c", "above 0"), ("lr", "above 0"), ("kappa", "0 or more")):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "kappa"):
                raise UserError(f"{name} is {value}, expected a number {least}")

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        w = torch.atanh((2 * x - 1).clamp(-1, 1)).requires_grad_()
        optimizer = torch.optim.Adam([w], lr=self.lr)
        axes = list(range(1, x.ndim))
        best, nearest = x.clone(), torch.full_like(target, torch.inf, dtype=x.dtype)
        last_cost, runs = torch.full_like(nearest, torch.inf), torch.ones_like(target, dtype=torch.bool)
        sign = -1.0 if self.targeted else 1.0
        for number in range(self.steps):
            with torch.enable_grad():
                changed = (torch.tanh(w) + 1) / 2
                distance = (changed - x).square().sum(axes)
                logits = look(changed)
                cost = distance + self.c * (sign * margin(logits, target)).clamp(min=-self.kappa)
                (w.grad,) = torch.autograd.grad(cost.sum(), w)
            optimizer.step()
            answers = logits.mean(0).argmax(1)
            fooled = (answers == target) if self.targeted else (answers != target)
            better = runs & fooled & (distance.detach() < nearest)
            nearest = torch.where(better, distance.detach(), nearest)
            best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), changed.detach(), best)
            if number % max(self.steps // 10, 1) == 0:
                now = cost.detach() if self.alone else cost.detach().sum().expand_as(cost)
                runs &= ~(now > last_cost)
                last_cost = now
        return best
