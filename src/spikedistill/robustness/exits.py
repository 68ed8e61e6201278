"""An early-exit network under attack: on its answers, and on the time that it takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..evaluation import exit_times
from ..evaluation.attacked import check_kind, noise_of
from ..evaluation.exits import Policy
from ..files import sha256
from ..objectives.submodels import prefix_means
from ..seeds import derive_seed
from .attacks import Attack
from .kept import Kept
from .measure import Subject
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
    through: Sequence[str] = (TRAINED,),
    restarts: int = 1,
    file: Path | None = None,
    track: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> list[UnderAttack]:
    """Attack an early-exit network.

    Of each sample the worst of all surrogates and restarts counts: a wrong answer, or the latest exit.

    Args:
        subject: the network and its samples.
        timesteps: T, which the network runs at most and the attack sees.
        attack: the attack, whose loss is chosen by its goal.
        threshold: a sample exits when its score reaches it.
        policy: the score.
        through: the surrogates that gradients are taken through.
        restarts: starting points for each of them.
        file: where the results of batches are kept; those that are there are not computed again.
        track: shows progress over batches.

    Returns:
        Clean, under an attack on answers, and under one on time.

    Raises:
        UserError: for an attack that raises no loss or does not fit the samples, or a damaged file.
    """
    if not (isinstance(attack, Attack) and attack.uses_gradients) or attack.targeted:
        towards = " towards a class" if getattr(attack, "targeted", False) else ""
        raise UserError(
            f"an early-exit network is attacked by raising a loss, which {attack.name}{towards} does not: take pgd or sparse"
        )
    check_kind(attack, subject.samples, events=subject.events)
    said = repr((timesteps, attack, threshold, policy, tuple(through), restarts))
    kept, row = Kept(file, subject.key()), f"exits {sha256(said.encode())[:16]}"
    left = [number for number in range(subject.batches) if (row, number) not in kept]
    for number in left if track is None else track(left, len(left)):
        found = _attacked(subject, number, timesteps, attack, threshold, policy, through, restarts)
        kept.add(row, number, {goal: [part.tolist() for part in parts] for goal, parts in found.items()})
    rows = []
    for goal in (CLEAN, *_LOSSES):
        try:
            parts = [torch.tensor(kept[row, number][goal]).double() for number in range(subject.batches)]
            right, times = torch.cat(parts, 1)
        except (KeyError, TypeError, ValueError, RuntimeError):
            kept.refuse(f"the row {row} is none")
        if len(right) != len(subject.targets):
            kept.refuse(f"the row {row} is of {len(right)} samples")
        never = 100 * float((times == timesteps).double().mean())
        rows.append(UnderAttack(goal, 100 * float(right.mean()), float(times.mean()), never))
    return rows


def _attacked(
    subject: Subject,
    number: int,
    timesteps: int,
    attack: Attack,
    threshold: float,
    policy: Policy,
    through: Sequence[str],
    restarts: int,
) -> dict[str, tuple[Tensor, Tensor]]:
    """By goal, whether each sample of a batch is right when it exits, and when that is."""
    plain = View(subject.network, timesteps, events=subject.events)
    device = next(subject.network.parameters()).device
    x, target = (part.to(device) for part in subject.batch(number))

    @torch.no_grad()
    def outcome(samples: Tensor) -> tuple[Tensor, Tensor]:
        logits = plain(samples)
        times = exit_times(logits, policy, threshold)
        answers = prefix_means(logits.double()).argmax(-1)[times - 1, torch.arange(len(times), device=device)]
        return (answers == target).cpu(), times.cpu()

    found = {CLEAN: outcome(x)}
    for goal, loss in _LOSSES.items():
        right, times = found[CLEAN]
        for place, name in enumerate(through):
            view = View(subject.network, timesteps, name, events=subject.events)
            for restart in range(restarts):
                view.begin()
                start = noise_of(x.shape, derive_seed(subject.seed, number, place, restart)).to(x)
                its_right, its_times = outcome(replace(attack, loss=loss)(view, x, target, start))
                worse = (right & ~its_right) if goal == ANSWERS else its_times > times
                right, times = torch.where(worse, its_right, right), torch.where(worse, its_times, times)
        found[goal] = right, times
    return found
