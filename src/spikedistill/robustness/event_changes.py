"""Attacks on event frames: single events are added and removed, and counts stay whole numbers.

Frames are `[B, T, ...]` of counts. The size of a change is how many entries change, as a share of the recording's events, rounded
up: 0.05 changes 5 entries of a recording of 100 events. An entry changes by one event, and none falls below zero.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .attacks import Attack, Left, Look, dice_of
from .losses import margin
from .noise import Drawn


def changes_of(x: Tensor, share: float) -> Tensor:
    """How many entries of each sample change, `[B]`."""
    exact = share * x.flatten(1).sum(1).double()
    return (exact - 1e-9 * exact).ceil().long().clamp(max=x[0].numel())  # 0.07 * 100 is above 7


def largest(gain: Tensor, counts: Tensor) -> Tensor:
    """The entries `[B, N]` of largest gain: `counts` `[B]` of each row, and none whose gain is not above 0."""
    most = int(counts.max()) if len(counts) else 0
    if most == 0:
        return torch.zeros_like(gain, dtype=torch.bool)
    best = gain.topk(most, dim=1)
    chosen = (torch.arange(most, device=gain.device) < counts[:, None]) & (best.values > 0)
    return torch.zeros_like(gain, dtype=torch.bool).scatter_(1, best.indices, chosen)


@dataclass(frozen=True)
class SparseEvents(Attack):
    """Add and remove the events that raise the loss most, to first order, in several rounds.

    The gain of one event more is the gradient of its entry, that of one less is its negative, where there is one. In each of the
    rounds the entries of largest gain change, and an entry changes once. A sample that fools the network stays as it is. Removing
    and adding events by the gradient is what SpikeFool does to a continuous relaxation (Büchel et al., 2022).

    Attributes:
        eps: changed entries as a share of a recording's events, in [0, 1].
        steps: rounds.
        binary: an entry holds one event at most.
        stop: a sample that fools the network stays as it is, else all its changes are made.
    """

    name: ClassVar[str] = "sparse"
    of_events: ClassVar[bool | None] = True
    uses_start: ClassVar[bool] = False
    eps: float = 0.05
    steps: int = 10
    binary: bool = False
    stop: bool = True

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        left, total = Left(look, x), changes_of(x, self.eps)
        now, moved = x, torch.zeros_like(x, dtype=torch.bool)
        for number in range(self.steps):
            found = self.slope(look, now, target)
            gradient = found.gradient
            if self.stop and (fooled := self.fools(found.logits, target)).any():
                now, target, gradient, moved, total = left.without(fooled, now, target, gradient, moved, total)
                if not len(now):
                    break
            adds, removes = gradient, torch.where(now >= 1, -gradient, 0)
            if self.binary:
                adds = torch.where(now < 1, gradient, 0)
            gain = torch.where(moved, 0, torch.maximum(adds, removes))
            due = (number + 1) * total // self.steps - number * total // self.steps
            chosen = largest(gain.flatten(1), due).view_as(now)
            now = torch.where(chosen, now + torch.where(adds >= removes, 1, -1), now)
            moved = moved | chosen
        return left.end(now)


@dataclass(frozen=True)
class RandomEvents(Drawn):
    """Half of the changes remove an event at random, the others add one: the baseline for attacks of this size.

    Attributes:
        binary: an entry holds one event at most.
    """

    name: ClassVar[str] = "random-events"
    of_events: ClassVar[bool | None] = True
    eps: float = 0.05
    binary: bool = False

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        total = changes_of(x, self.eps)
        draw = dice_of(self.seed, start)
        dice = torch.rand(2, *x.flatten(1).shape, generator=draw).to(x)
        there = (x >= 1).flatten(1)
        removed = largest(torch.where(there, dice[0], 0), total // 2)
        full = there if self.binary else removed
        added = largest(torch.where(full, 0, dice[1]), total - removed.sum(1))
        return x + (added.to(x) - removed.to(x)).view_as(x)


@dataclass(frozen=True)
class EventSearch(Attack):
    """Random changes, some of which are drawn anew and kept where the margin falls; no gradient is used.

    It is Sparse-RS (Croce et al., AAAI 2022) with events in place of pixels. The share of changes that a query draws anew falls
    from `share` to a tenth of it. About half of the changes remove an event. A sample that fools the network stays as it is.

    Attributes:
        eps: changed entries as a share of a recording's events, in [0, 1].
        steps: queries.
        share: of the changes that the first queries draw anew.
        seed: of the draws, together with `start`.
        binary: an entry holds one event at most.
    """

    name: ClassVar[str] = "event-search"
    uses_gradients: ClassVar[bool] = False
    of_events: ClassVar[bool | None] = True
    eps: float = 0.05
    steps: int = 200
    share: float = 0.3
    seed: int = 0
    binary: bool = False

    @torch.no_grad()
    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        draw = dice_of(self.seed, start)
        left, total = Left(look, x), changes_of(x, self.eps)
        clean = x.flatten(1)
        removes = clean >= 1
        if not self.binary:  # where there is an event, one more may come too
            removes &= torch.rand(clean.shape, generator=draw).to(x) < 0.5

        def drawn(weight: Tensor | float = 1.0) -> Tensor:
            """Gains whose largest are a weighted draw without replacement (Efraimidis and Spirakis, 2006)."""
            return weight / -torch.rand(clean.shape, generator=draw).clamp(1e-9, 1 - 1e-7).log().to(x)

        def either() -> Tensor:
            """Gains such that about half of the changes remove an event."""
            few = removes.sum(1, keepdim=True).clamp(min=1) / (~removes).sum(1, keepdim=True).clamp(min=1)
            return drawn(torch.where(removes, 1.0, few))

        def made(moved: Tensor) -> Tensor:
            return torch.where(moved, torch.where(removes, clean - 1, clean + 1), clean).view(len(moved), *x.shape[1:])

        def worth(moved: Tensor) -> Tensor:
            value = margin(look(made(moved)), target)
            return value if self.targeted else -value

        best = largest(either(), total)
        best_worth = worth(best)
        for number in range(self.steps):
            if (fooled := best_worth > 0).any():
                now = made(best)
                _, best, best_worth, clean, target, total, removes = left.without(
                    fooled, now, best, best_worth, clean, target, total, removes
                )
                if not len(clean):
                    break
            anew = (self.share / (1 + 9 * number / self.steps) * total).ceil().long()
            dropped = largest(torch.where(best, drawn(), 0), anew)
            moved = (best & ~dropped) | largest(torch.where(best, 0, either()), dropped.sum(1))
            moved_worth = worth(moved)
            better = moved_worth > best_worth
            best = torch.where(better[:, None], moved, best)
            best_worth = torch.where(better, moved_worth, best_worth)
        return left.end(made(best))


EVENT_ATTACKS: dict[str, type[Attack]] = {each.name: each for each in (SparseEvents, EventSearch, RandomEvents)}
"""Attacks on event frames, by name."""
