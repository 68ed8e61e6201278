"""An early-exit network under attack: on its answers, and on the time that it takes."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import torch

from ..evaluation import exit_times
from ..evaluation.exits import Policy
from ..objectives.submodels import prefix_means
from ..seeds import derive_seed
from .attacks import Attack
from .measure import Subject, noise_of
from .views import TRAINED, View

CLEAN, ANSWERS, TIME = "clean", "answers", "time"
_LOSSES = {ANSWERS: "prefix_ce", TIME: "latency"}


class UnderAttack(NamedTuple):
    """An early-exit network on changed samples.

    Attributes:
        goal: "clean", "answers" (the attack raises the cross-entropy of every prefix) or "time" (the entropy of every prefix).
        accuracy: in percent, when each sample exits.
        mean_exit: timesteps.
        never: the percentage of samples that run all timesteps.
    """

    goal: str
    accuracy: float
    mean_exit: float
    never: float


def attack_exits(
    subject: Subject,
    timesteps: int,
    attack: Attack,
    threshold: float,
    policy: Policy = "confidence",
    through: str = TRAINED,
    track: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> list[UnderAttack]:
    """Attack an early-exit network.

    Args:
        subject: the network and its samples.
        timesteps: T, which the network runs at most and the attack sees.
        attack: the attack, whose loss is chosen by its goal.
        threshold: a sample exits when its score reaches it.
        policy: the score.
        through: the surrogate that gradients are taken through.
        track: shows progress over batches.

    Returns:
        Clean, under an attack on answers, and under one on time.
    """
    plain = View(subject.network, timesteps, events=subject.events)
    view = View(subject.network, timesteps, through, events=subject.events)
    device = next(subject.network.parameters()).device
    parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {goal: [] for goal in (CLEAN, *_LOSSES)}
    numbers: Iterable[int] = range(subject.batches)
    for number in numbers if track is None else track(numbers, subject.batches):
        x, target = (part.to(device) for part in subject.batch(number))
        start = noise_of(x.shape, derive_seed(subject.seed, number)).to(x)
        for goal, found in parts.items():
            changed = x
            if goal in _LOSSES:
                view.begin()
                changed = replace(attack, loss=_LOSSES[goal])(view, x, target, start)
            with torch.no_grad():
                logits = plain(changed)
            times = exit_times(logits, policy, threshold)
            answers = prefix_means(logits.double()).argmax(-1)[times - 1, torch.arange(len(times), device=device)]
            found.append(((answers == target).cpu(), times.cpu()))
    rows = []
    for goal, found in parts.items():
        right, times = (torch.cat(values).double() for values in zip(*found, strict=True))
        never = 100 * float((times == timesteps).double().mean())
        rows.append(UnderAttack(goal, 100 * float(right.mean()), float(times.mean()), never))
    return rows
