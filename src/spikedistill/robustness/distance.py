"""The attack of Carlini and Wagner: the nearest sample that a network mistakes."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .attacks import Look
from .losses import margin


@dataclass(frozen=True)
class CarliniWagner:
    """Lower |x' - x|^2 + c max(margin, -kappa) over w, x' = (tanh w + 1) / 2, by Adam (Carlini and Wagner, S&P 2017).

    It returns the nearest x' that fools the network, and x where none does. A tenth of the steps at a time, a sample whose cost has
    risen stops. The constant is not searched for.

    Attributes:
        c: the weight of the margin.
        kappa: the margin that is asked for.
        steps: their number.
        lr: of Adam.
        targeted: labels are classes to reach.
    """

    name: ClassVar[str] = "cw"
    uses_gradients: ClassVar[bool] = True
    c: float = 1.0
    kappa: float = 0.0
    steps: int = 50
    lr: float = 0.01
    targeted: bool = False

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
                optimizer.zero_grad()
                cost.sum().backward()
            optimizer.step()
            answers = logits.mean(0).argmax(1)
            fooled = (answers == target) if self.targeted else (answers != target)
            better = runs & fooled & (distance.detach() < nearest)
            nearest = torch.where(better, distance.detach(), nearest)
            best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), changed.detach(), best)
            if number % max(self.steps // 10, 1) == 0:
                runs &= ~(cost.detach() > last_cost)
                last_cost = cost.detach()
        return best
