"""Whether a table of accuracies under attack can be believed: signs that an attack failed where the network did not withstand.

References: Athalye et al., "Obfuscated Gradients Give a False Sense of Security", ICML 2018; Carlini et al., "On Evaluating
Adversarial Robustness", 2019.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from .attacks import Attack, Pgd, Square
from .distance import CarliniWagner
from .event_changes import EventSearch, RandomEvents, SparseEvents
from .measure import TWIN, Row, Withstood
from .noise import RandomCorner

QUERIES = 20  # of an attack without gradients, for each step of one with them
UNBOUNDED, MORE_STEPS, LESS = "unbounded", "twice the steps", "half the size"
BLACK_BOX, RANDOM, TRANSFER, ZERO = "without gradients", "random direction", "transfer", "zero gradients"
MOST_LEFT, MOST_CHANGED, MOST_MISSED, MOST_RISE, MOST_ZERO = 1.0, 0.5, 0.5, 0.0, 50.0  # percent or points
_SEARCHES = (Square, EventSearch)
_RANDOM = (RandomCorner, RandomEvents)


class Check(NamedTuple):
    """A check of a row.

    Attributes:
        about: what is checked.
        passed: whether it holds.
        said: what was found, in words.
    """

    about: str
    passed: bool
    said: str


def climbs(row: Row) -> bool:
    """Whether a row raises a loss by its gradients within a size."""
    return row.attack.uses_gradients and row.eps is not None


def rows_of_checks(rows: Sequence[Row], steps: int = 1, twin: str = "") -> list[Row]:
    """The rows that the checks of these rows need, in addition to them.

    Each row under gradients is measured with twice the steps, and those that differ in size alone once without a bound; if there is
    one size, half of it too. Attacks that check whether gradients were enough are made on what withstands all attacks with
    gradients of their size and k.

    Args:
        rows: what was asked for.
        steps: of attacks that check; more if rows have more.
        twin: which other network attacked samples are taken from, in short; "" if there is none.
    """
    found = [
        replace(row, attack=_changed(row.attack, steps=2 * row.attack.steps), remark=MORE_STEPS)
        for row in rows
        if row.attack.uses_gradients and hasattr(row.attack, "steps")
    ]
    rows = [row for row in rows if climbs(row)]
    for like in {_but_for_size(row): row for row in rows}.values():
        attack = like.attack
        assert isinstance(attack, Attack)
        far: dict[str, Any] = (
            {"step": None} if hasattr(attack, "step") else {}
        )  # its usual length, with which it comes everywhere
        found.append(replace(like, attack=_changed(attack, eps=1.0, **far), remark=UNBOUNDED))
        sizes = {row.eps for row in rows if _but_for_size(row) == _but_for_size(like)}
        if len(sizes) == 1 and attack.eps:
            found.append(replace(like, attack=replace(attack, eps=attack.eps / 2), remark=LESS))
    steps = max([steps, *(getattr(row.attack, "steps", 1) for row in rows)])
    binary: dict[str, Any] = {"binary": True} if any(getattr(row.attack, "binary", False) for row in rows) else {}
    for k, eps in dict.fromkeys((row.timesteps, row.eps) for row in rows):
        assert eps is not None
        before = tuple(row.key for row in [*rows, *found] if (row.timesteps, row.eps) == (k, eps) and climbs(row))
        of_size: list[tuple[Attack, str]]
        if any(isinstance(row.attack, SparseEvents) for row in rows):
            of_size = [
                (EventSearch(eps=eps, steps=QUERIES * steps, **binary), BLACK_BOX),
                (RandomEvents(eps=eps, **binary), RANDOM),
            ]
            climb: Attack = SparseEvents(eps=eps, steps=steps, stop=False, **binary)
        else:
            of_size = [(Square(eps=eps, steps=QUERIES * steps), BLACK_BOX), (RandomCorner(eps=eps), RANDOM)]
            climb = Pgd(eps=eps, steps=steps)
        found += [Row(attack, k, remark=remark, after=before) for attack, remark in of_size]
        if twin:  # whose mistakes are not those of the network, so that its attack does not stop at them
            found.append(Row(climb, k, (TWIN,), remark=TRANSFER, source=twin, after=before))
    return list({(row.key, row.remark): row for row in found}.values())


def checks_of(found: Sequence[Withstood], of: Withstood) -> list[Check]:
    """The checks of a row with gradients, by the other rows of the table."""
    row = of.row
    checks = []
    if row.eps is None:
        checks.append(Check(UNBOUNDED, of.accuracy <= MOST_LEFT, f"it has no bound, and leaves {of.accuracy:.1f} %"))
    for other in found:
        same = other.row.timesteps == row.timesteps and other.row.attack.name == row.attack.name
        if other.row.remark == UNBOUNDED and same:
            said = f"an attack without a bound leaves {other.accuracy:.1f} %"
            checks.append(Check(UNBOUNDED, other.accuracy <= MOST_LEFT, said))
        if other.row.remark == MORE_STEPS and same and other.row.eps == row.eps:
            gained = of.accuracy - other.accuracy
            said = f"twice the steps {'take' if gained >= 0 else 'leave'} {abs(gained):.1f} points more"
            checks.append(Check(MORE_STEPS, abs(gained) < MOST_CHANGED, said))
    for about, what, kinds in (
        (BLACK_BOX, "an attack without gradients fools", _SEARCHES),
        (RANDOM, "a random direction fools", _RANDOM),
        (TRANSFER, "attacked samples of the twin fool", ()),
    ):
        if (missed := _missed(found, row, about, kinds)) is not None:
            said = f"{what} {missed:.1f} % that withstand all with gradients"
            checks.append(Check(about, missed <= MOST_MISSED, said))
    if (rise := _rise(found, of)) is not None:
        checks.append(
            Check("falls with eps", rise <= MOST_RISE, f"accuracy rises by {max(rise, 0):.1f} points with eps")
        )
    if of.no_gradient is not None:
        zero = 100 * of.no_gradient
        checks.append(Check(ZERO, zero <= MOST_ZERO, f"{zero:.0f} % of the gradient of the samples is zero"))
    return checks


def _missed(found: Sequence[Withstood], row: Row, about: str, kinds: tuple[type[Attack], ...]) -> float | None:
    """The percentage of samples that withstand every attack with gradients of this size, and fall to one without them.

    Args:
        about: the remark of rows that were measured for this.
        kinds: attacks that serve it too, if they were asked for.
    """
    worst = None if row.eps is None else worst_case(found, row.timesteps, row.eps)
    others = [
        each.right
        for each in found
        if (each.row.timesteps, each.row.eps) == (row.timesteps, row.eps)
        and (each.row.remark == about or (not each.row.remark and isinstance(each.row.attack, kinds)))
    ]
    if worst is None or not others:
        return None
    return 100 * float((worst & ~torch.stack(others).all(0)).double().mean())


def _rise(found: Sequence[Withstood], of: Withstood) -> float | None:
    """The largest rise of accuracy from one eps to the next larger one among rows like this; None if there is one eps."""
    like = {
        other.row.eps: other.accuracy
        for other in found
        if other.row.remark in ("", LESS) and _but_for_size(other.row) == _but_for_size(of.row)
    }
    by_eps = [accuracy for _, accuracy in sorted(like.items())]
    if len(by_eps) < 2:
        return None
    return max(later - earlier for earlier, later in itertools.pairwise(by_eps))


def _changed(attack: Attack | CarliniWagner, **options: Any) -> Attack | CarliniWagner:
    return replace(attack, **options)


def _but_for_size(row: Row) -> Row:
    attack = replace(row.attack, eps=0.0) if isinstance(row.attack, Attack) else row.attack
    return replace(row, attack=attack, remark="")


def worst_case(found: Sequence[Withstood], timesteps: int, eps: float) -> torch.Tensor | None:
    """Which samples withstand every attack of one size at k timesteps, bool `[N]`; None if there is none."""
    of_it = [
        each.right
        for each in found
        if each.row.timesteps == timesteps and each.row.eps == eps and climbs(each.row) and each.row.remark != TRANSFER
    ]
    return None if not of_it else torch.stack(of_it).all(0)
