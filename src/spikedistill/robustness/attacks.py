"""Adversarial attacks in the ball of the largest change: from samples and labels to samples that a network mistakes.

Each attack sees a network as a function from samples `[B, ...]` in [0, 1] to logits `[T, B, C]`, and keeps every pixel within eps
of where it was. Samples do not influence each other. `start` is noise in [-1, 1] of the samples' shape, from which an attack
begins; equal noise gives equal results. A targeted attack gets the classes to reach in place of the labels.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import UserError
from ..objectives.submodels import prefix_means
from ..seeds import derive_seed
from .losses import LOSSES, dlr_to, margin

Look = Callable[[Tensor], Tensor]
"""A network as an attack calls it: from samples `[B, ...]` to logits `[T, B, C]`, with a graph if gradients are enabled."""


@dataclass(frozen=True)
class Attack(ABC):
    """An attack in the ball of the largest change.

    Attributes:
        eps: how far a pixel may move, in units of [0, 1]: 8 / 255 is 8 levels.
        loss: what is raised, a name of `LOSSES`.
        targeted: labels are classes to reach, and the loss is lowered.
    """

    name: ClassVar[str]
    uses_gradients: ClassVar[bool] = True
    of_events: ClassVar[bool | None] = False  # whether samples are event frames and not in [0, 1]; None takes either
    seeks_mistakes: ClassVar[bool] = True  # else it makes samples worse whatever the network answers, as noise does
    uses_start: ClassVar[bool] = True  # else it begins at the sample, and comes out the same every time
    eps: float = 8 / 255
    loss: str = "ce"
    targeted: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1 or not math.isfinite(self.eps):
            pixels, events = (
                "how far a pixel of [0, 1] may move, such as 8 / 255",
                "a share of the events, such as 0.05",
            )
            raise UserError(f"eps is {self.eps}, expected {events if self.of_events else pixels}")
        if self.loss not in LOSSES:
            raise UserError(f"loss is {self.loss!r}, expected one of {', '.join(LOSSES)}")
        if not self.uses_gradients and self.loss != Attack.loss:
            raise UserError(f"loss is {self.loss!r}, but the attack {self.name} raises no loss: leave it out")
        steps = getattr(self, "steps", 1)
        if type(steps) is not int or steps < 1:
            raise UserError(f"steps is {steps!r}, expected a whole number of 1 or more")

    @abstractmethod
    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        """Attack samples.

        Args:
            look: the network.
            x: samples `[B, ...]` in [0, 1].
            target: labels `[B]`, or classes to reach.
            start: noise in [-1, 1]; default none, or drawn where an attack needs it.

        Returns:
            Changed samples `[B, ...]`.
        """

    def slope(self, look: Look, x: Tensor, target: Tensor) -> "Slope":
        """The loss at x and its gradient; the sign is such that the attack always climbs."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = look(x)
            loss = self.climbed(logits, target)
            (gradient,) = torch.autograd.grad(loss.sum(), x)
        return Slope(loss.detach(), gradient, logits.detach())

    def climbed(self, logits: Tensor, target: Tensor) -> Tensor:
        """What the attack raises, `[B]`: the loss, or for a class to reach its negative."""
        if not self.targeted:
            return LOSSES[self.loss](logits, target)
        return dlr_to(logits, target) if self.loss == "dlr" else -LOSSES[self.loss](logits, target)

    def fools(self, logits: Tensor, target: Tensor) -> Tensor:
        """For which samples the attack has reached its goal, bool `[B]`.

        With `prefix_ce` every prefix has to answer so, because the network may stop at any; `latency` has no end.
        """
        if self.loss == "latency":
            return torch.zeros_like(target, dtype=torch.bool)
        means = prefix_means(logits) if self.loss == "prefix_ce" else logits.mean(0, keepdim=True)
        answers = means.argmax(-1)
        return ((answers == target) if self.targeted else (answers != target)).all(0)

    @property
    def ends_at_best(self) -> bool:
        """Whether a sample that was not fooled ends at its point of largest loss: the goal is a matter of degree."""
        return self.loss in ("prefix_ce", "latency")

    def within(self, adversarial: Tensor, x: Tensor) -> Tensor:
        """The nearest samples in the ball and in [0, 1]."""
        return torch.clamp(torch.min(torch.max(adversarial, x - self.eps), x + self.eps), 0, 1)


class Slope(NamedTuple):
    """The loss `[B]` at a point, its gradient `[B, ...]`, and the logits `[T, B, C]`."""

    loss: Tensor
    gradient: Tensor
    logits: Tensor


def dice_of(seed: int, start: Tensor | None) -> torch.Generator:
    """A generator for an attack's draws: of its seed, and of the noise that it begins from, which differs from batch to batch."""
    drawn = [] if start is None else [int(start.float().contiguous().view(torch.int32).sum()) % 2**32]
    return torch.Generator().manual_seed(derive_seed(seed, *drawn))


class Left:
    """The samples that an attack has not fooled yet, and what it has made of all of them.

    Args:
        look: the network.
        x: samples `[B, ...]`.
    """

    def __init__(self, look: Look, x: Tensor) -> None:
        self.made = x.clone()
        self._look = look
        self._places = torch.arange(len(x), device=x.device)

    def without(self, fooled: Tensor, now: Tensor, *others: Tensor) -> list[Tensor]:
        """Keep the samples that fool as they are now, and leave them out from here on.

        Args:
            fooled: which of the samples that are left, bool.
            now: these samples.
            others: what else there is one of for each.

        Returns:
            `now` and `others` of the samples that are left.
        """
        left = ~fooled
        self.made[self._places[fooled]] = now[fooled]
        self._places = self._places[left]
        if isinstance(self._look, Narrowing):
            self._look.keep(left)
        return [tensor[left] for tensor in (now, *others)]

    def end(self, now: Tensor) -> Tensor:
        """All samples; those that are left as they are now."""
        self.made[self._places] = now
        return self.made


@runtime_checkable
class Narrowing(Protocol):
    """A network that remembers something of each sample of an attack."""

    def keep(self, left: Tensor) -> None:
        """Go on with some of the samples, bool `[B]`."""


@dataclass(frozen=True)
class Fgsm(Attack):
    """One step of eps along the gradient's sign (Goodfellow et al., ICLR 2015)."""

    name: ClassVar[str] = "fgsm"
    uses_start: ClassVar[bool] = False

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        return self.within(x + self.eps * self.slope(look, x, target).gradient.sign(), x)


@dataclass(frozen=True)
class Pgd(Attack):
    """Steps along the gradient's sign, each brought back into the ball (Madry et al., ICLR 2018).

    Attributes:
        step: length of a step; default 2.5 eps / steps, so that every point of the ball can be reached.
        steps: their number.
        random_start: begin at x + eps * start, else at x, which is BIM (Kurakin et al., 2017).
        stop: a sample that fools the network stays as it is, else it moves on and may come back.
    """

    name: ClassVar[str] = "pgd"
    step: float | None = None
    steps: int = 10
    random_start: bool = True
    stop: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step is not None and not 0 < self.step <= 1:
            raise UserError(f"step is {self.step}, expected how far a step moves a pixel of [0, 1], such as 2 / 255")

    @property
    def length(self) -> float:
        """Of a step."""
        return 2.5 * self.eps / self.steps if self.step is None else self.step

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        adversarial = x
        if self.random_start:
            noise = 2 * torch.rand_like(x) - 1 if start is None else start
            adversarial = (x + self.eps * noise).clamp(0, 1)
        left = Left(look, x)
        for _ in range(self.steps):
            found = self.slope(look, adversarial, target)
            gradient = found.gradient
            if self.stop and (fooled := self.fools(found.logits, target)).any():
                adversarial, x, target, gradient = left.without(fooled, adversarial, x, target, gradient)
                if not len(x):
                    break
            adversarial = self.within(adversarial + self.length * gradient.sign(), x)
        return left.end(adversarial)


@dataclass(frozen=True)
class Bim(Pgd):
    """`Pgd` that begins at the sample itself (Kurakin et al., ICLR 2017 workshop)."""

    name: ClassVar[str] = "bim"
    uses_start: ClassVar[bool] = False
    random_start: bool = False


class Checkpoints:
    """At which steps an attack looks back: after 22 percent of all, then in spans that shrink by 3 percent, at least 6 percent."""

    def __init__(self, steps: int) -> None:
        self._span = max(int(0.22 * steps), 1)
        self._least, self._less = max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
        self._since = 0

    def reached(self) -> int:
        """The length of the span that ends with this step; 0 if none does."""
        self._since += 1
        if self._since < self._span:
            return 0
        ended, self._since = self._span, 0
        self._span = max(self._span - self._less, self._least)
        return ended


@dataclass(frozen=True)
class Apgd(Attack):
    """Auto-PGD: momentum, and a step that halves where the loss no longer rises (Croce and Hein, ICML 2020).

    It begins with steps of 2 eps. At each checkpoint a sample's step is halved, and it goes back to its best point, if its loss
    rose in at most `rho` of the steps since the last one, or if its best loss is the same as then and its step was not halved
    then. It returns the last point that fools the network, and x where none does or the network is mistaken at x. Where none does
    with `prefix_ce`, and always with `latency`, it is the point of largest loss.

    Attributes:
        steps: their number.
        rho: that share.
    """

    name: ClassVar[str] = "apgd"
    steps: int = 50
    rho: float = 0.75

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        start = 2 * torch.rand_like(x) - 1 if start is None else start
        with torch.no_grad():
            before_all = self.fools(look(x), target)
        axes = [1] * (x.ndim - 1)
        now = (x + self.eps * _to_the_edge(start)).clamp(0, 1)
        found = self.slope(look, now, target)
        best, best_loss, best_gradient = now, found.loss, found.gradient
        hit = self.fools(found.logits, target)
        result, ever = _where(hit, now, x), hit
        step = torch.full_like(best_loss, 2 * self.eps)
        before, gradient = now, found.gradient
        losses = [torch.zeros_like(best_loss)]
        checked, halved = best_loss, torch.ones_like(ever)
        checkpoints = Checkpoints(self.steps)
        for number in range(self.steps):
            inertia = 0.25 if number else 0.0
            ahead = self.within(now + step.view(-1, *axes) * gradient.sign(), x)
            ahead = self.within(now + (ahead - now) * (1 - inertia) + (now - before) * inertia, x)
            before, now = now, ahead
            found = self.slope(look, now, target)
            gradient = found.gradient
            hit = self.fools(found.logits, target)
            result, ever = _where(hit, now, result), ever | hit
            better = found.loss > best_loss
            best, best_gradient = _where(better, now, best), _where(better, gradient, best_gradient)
            best_loss = torch.where(better, found.loss, best_loss)
            losses.append(found.loss)
            if span := checkpoints.reached():
                since = torch.stack(losses[-span - 1 :])
                rises = (since[1:] > since[:-1]).sum(0)
                stuck = (rises <= span * self.rho) | (~halved & (checked >= best_loss))
                halved, checked = stuck, best_loss
                step = torch.where(stuck, step / 2, step)
                now, gradient = _where(stuck, best, now), _where(stuck, best_gradient, gradient)
        if self.ends_at_best:
            result = _where(ever, result, best)
        return _where(before_all, x, result)


@dataclass(frozen=True)
class ApgdDlr(Apgd):
    """`Apgd` on the difference of logits ratio, which does not change if logits are scaled (Croce and Hein, ICML 2020)."""

    name: ClassVar[str] = "apgd-dlr"
    loss: str = "dlr"


@dataclass(frozen=True)
class SaPgd(Attack):
    """Stable adaptive PGD, for imprecise gradients (Wang et al., "Towards Reliable Evaluation of Adversarial Robustness for SNNs").

    With g the gradient, m <- 0.5 m + g / mean|g|, v <- 0.8 v + g^2 / mean(g^2), and x moves by m / sqrt(v) times the step, at most
    by the step. It begins with steps of eps, halved at the checkpoints of `Apgd`. A sample that fools the network stays as it is;
    others come back unchanged, or with `prefix_ce` and `latency` at their point of largest loss. A zero gradient leaves a sample
    where it is.

    Attributes:
        steps: their number.
    """

    name: ClassVar[str] = "sa-pgd"
    steps: int = 100

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        start = 2 * torch.rand_like(x) - 1 if start is None else start
        axes = list(range(1, x.ndim))
        now = (x + self.eps * _to_the_edge(start)).clamp(0, 1)
        left, step = Left(look, x), self.eps
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        checkpoints = Checkpoints(self.steps)
        best, best_loss = now, torch.full(x.shape[:1], -torch.inf).to(x)
        for number in range(self.steps + 1):
            found = self.slope(look, now, target)
            gradient = found.gradient
            better = found.loss > best_loss
            best, best_loss = _where(better, now, best), torch.where(better, found.loss, best_loss)
            if (fooled := self.fools(found.logits, target)).any():
                now, x, target, gradient, first, second, best, best_loss = left.without(
                    fooled, now, x, target, gradient, first, second, best, best_loss
                )
            if number == self.steps or not len(x):
                break
            if number and checkpoints.reached():
                step /= 2
            square = gradient.square()
            first = 0.5 * first + gradient / gradient.abs().mean(axes, keepdim=True).clamp(min=1e-30)
            second = 0.8 * second + square / square.mean(axes, keepdim=True).clamp(min=1e-30)
            move = (first / (second.sqrt() + 1e-12) * step).clamp(-step, step)
            now = self.within(now + move, x)
        return left.end(best) if self.ends_at_best else left.made


@dataclass(frozen=True)
class Square(Attack):
    """Random squares of one colour, kept where they raise the loss; no gradient is used (Andriushchenko et al., ECCV 2020).

    It begins with stripes of -eps and eps as wide as a pixel. The side of the squares shrinks with the steps, from sqrt(`share`) of
    the image. A sample that fools the network stays as it is.

    Attributes:
        steps: queries.
        share: of the image that the first squares cover.
        seed: of the draws, together with `start`; each sample has its own.
    """

    name: ClassVar[str] = "square"
    uses_gradients: ClassVar[bool] = False
    steps: int = 500
    share: float = 0.8
    seed: int = 0

    @torch.no_grad()
    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        H, W = x.shape[-2:]
        channels = x.flatten(1, -3).shape[1]
        dice = dice_of(self.seed, start)
        images, shape, left = x.flatten(1, -3), x.shape[1:], Left(look, x.flatten(1, -3))

        def signs(*shape: int) -> Tensor:
            return (torch.randint(2, shape, generator=dice) * 2.0 - 1).to(x)

        def worth(moved: Tensor) -> Tensor:
            value = margin(look(moved.unflatten(1, shape[:-2])), target)
            return value if self.targeted else -value

        stripes = self.eps * signs(len(x), channels, 1, W).expand(-1, -1, H, -1)
        best = (images + stripes).clamp(0, 1)
        best_worth = worth(best)
        rows, columns = torch.arange(H, device=x.device), torch.arange(W, device=x.device)
        for number in range(self.steps):
            if (fooled := best_worth > 0).any():
                best, best_worth, images, target = left.without(fooled, best, best_worth, images, target)
                if not len(images):
                    break
            side = min(max(round(math.sqrt(self.share * _share_at(number, self.steps) * H * W)), 1), H, W)
            n = len(images)
            first, second = (torch.randint(length - side + 1, (n, 1), generator=dice).to(x.device) for length in (H, W))
            high, wide = (rows >= first) & (rows < first + side), (columns >= second) & (columns < second + side)
            inside = (high[:, :, None] & wide[:, None])[:, None]
            square = 2 * self.eps * signs(n, channels, 1, 1)
            moved = torch.where(inside, self.within(best + square, images), best)
            moved_worth = worth(moved)
            better = moved_worth > best_worth
            best, best_worth = _where(better, moved, best), torch.where(better, moved_worth, best_worth)
        return left.end(best).view_as(x)


def _share_at(number: int, steps: int) -> float:
    """How much smaller squares are at a step, on the published schedule for 10,000 queries."""
    place = number / steps * 10_000
    halvings = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    return 0.5 ** sum(place > each for each in halvings)


def _to_the_edge(start: Tensor) -> Tensor:
    """Noise `[B, ...]` scaled so that the largest entry of each sample is 1; that without any stays 0."""
    axes = list(range(1, start.ndim))
    return start / start.abs().amax(axes, keepdim=True).clamp(min=torch.finfo(start.dtype).tiny)


def _where(chosen: Tensor, some: Tensor, others: Tensor) -> Tensor:
    """`some` at chosen samples, bool `[B]`, and `others` elsewhere."""
    return torch.where(chosen.view(-1, *[1] * (some.ndim - 1)), some, others)


ATTACKS: dict[str, type[Attack]] = {attack.name: attack for attack in (Fgsm, Bim, Pgd, Apgd, ApgdDlr, SaPgd, Square)}
"""Attacks in the ball of the largest change, by name."""
