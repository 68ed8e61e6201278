"""Whether a table of accuracies under attack can be believed: signs that an attack failed where the network did not withstand.

References: Athalye et al., "Obfuscated Gradients Give a False Sense of Security", ICML 2018; Carlini et al., "On Evaluating
Adversarial Robustness", 2019.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from .attacks import Attack, Pgd, Square
from .event_changes import EventSearch, SparseEvents
from .measure import TWIN, Row, Withstood

QUERIES = 20  # of an attack without gradients, for each step of one with them
UNBOUNDED, MORE_STEPS, BLACK_BOX, TRANSFER = "unbounded", "twice the steps", "without gradients", "transfer"
MOST_LEFT, MOST_GAINED, MOST_MISSED, MOST_RISE = 1.0, 0.5, 0.5, 0.0  # percent, points, percent, points


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
    """The rows that the checks of these rows need, in addition to them: for the rows of the largest eps under gradients.

    Attacks that check whether gradients were enough are made on what withstands all attacks with gradients of their size.

    Args:
        rows: what was asked for.
        steps: of attacks that check; more if rows have more.
        twin: which other network attacked samples are taken from, in short; "" if there is none.
    """
    found = []
    rows = [row for row in rows if climbs(row)]
    for row in _strongest(rows):
        attack = row.attack
        assert isinstance(attack, Attack)
        found.append(replace(row, attack=replace(attack, eps=1.0), remark=UNBOUNDED))
        if hasattr(attack, "steps"):
            found.append(replace(row, attack=replace(attack, steps=2 * attack.steps), remark=MORE_STEPS))  # type: ignore[call-arg]
    steps = max([steps, *(getattr(row.attack, "steps", 1) for row in rows)])
    for k, eps in dict.fromkeys((row.timesteps, row.eps) for row in rows):
        assert eps is not None
        on_events = any(isinstance(row.attack, SparseEvents) for row in rows)
        search = EventSearch if on_events else Square
        before = tuple(row.key for row in [*rows, *found] if (row.timesteps, row.eps) == (k, eps) and climbs(row))
        found.append(Row(search(eps=eps, steps=QUERIES * steps), k, remark=BLACK_BOX, after=before))
        if twin:
            climb = SparseEvents if on_events else Pgd
            found.append(Row(climb(eps=eps, steps=steps), k, (TWIN,), remark=TRANSFER, source=twin, after=before))
    return list({row.key: row for row in found}.values())


def checks_of(found: Sequence[Withstood], of: Withstood) -> list[Check]:
    """The checks of a row with gradients, by the other rows of the table."""
    row = of.row
    checks = []
    for other in found:
        same = other.row.timesteps == row.timesteps and other.row.attack.name == row.attack.name
        if other.row.remark == UNBOUNDED and same:
            checks.append(
                Check(
                    UNBOUNDED, other.accuracy <= MOST_LEFT, f"an attack without a bound leaves {other.accuracy:.1f} %"
                )
            )
        if other.row.remark == MORE_STEPS and same and other.row.eps == row.eps:
            gained = of.accuracy - other.accuracy
            checks.append(Check(MORE_STEPS, gained < MOST_GAINED, f"twice the steps take {gained:.1f} points more"))
    for about, what in (
        (BLACK_BOX, "an attack without gradients fools"),
        (TRANSFER, "attacked images of the twin fool"),
    ):
        if (missed := _missed(found, row, about)) is not None:
            said = f"{what} {missed:.1f} % that withstand all with gradients"
            checks.append(Check(about, missed <= MOST_MISSED, said))
    if (rise := _rise(found, of)) is not None:
        checks.append(
            Check("falls with eps", rise <= MOST_RISE, f"accuracy rises by {max(rise, 0):.1f} points with eps")
        )
    return checks


def _missed(found: Sequence[Withstood], row: Row, about: str) -> float | None:
    """The percentage of samples that withstand every attack with gradients of this size, and fall to one without them."""
    assert row.eps is not None
    worst = worst_case(found, row.timesteps, row.eps)
    others = [
        each.right
        for each in found
        if (each.row.remark, each.row.timesteps, each.row.eps) == (about, row.timesteps, row.eps)
    ]
    if worst is None or not others:
        return None
    return 100 * float((worst & ~torch.stack(others).all(0)).double().mean())


def _rise(found: Sequence[Withstood], of: Withstood) -> float | None:
    """The largest rise of accuracy from one eps to the next larger one among rows like this; None if there is one eps."""
    like = {other.row.eps: other.accuracy for other in found if _but_for_size(other.row) == _but_for_size(of.row)}
    by_eps = [accuracy for _, accuracy in sorted(like.items())]
    if len(by_eps) < 2:
        return None
    return max(later - earlier for earlier, later in itertools.pairwise(by_eps))


def _but_for_size(row: Row) -> Row:
    return replace(row, attack=replace(row.attack, eps=0.0)) if isinstance(row.attack, Attack) else row


def _strongest(rows: Sequence[Row]) -> list[Row]:
    """Of rows that differ in eps alone the one with the largest."""
    by_size = sorted(rows, key=lambda row: row.eps or 0.0)
    largest = {_but_for_size(row): row for row in by_size}
    return [row for row in rows if largest[_but_for_size(row)] == row]


def worst_case(found: Sequence[Withstood], timesteps: int, eps: float) -> torch.Tensor | None:
    """Which samples withstand every attack of one size at k timesteps, bool `[N]`; None if there is none."""
    of_it = [
        each.right
        for each in found
        if each.row.timesteps == timesteps and each.row.eps == eps and climbs(each.row) and each.row.remark != TRANSFER
    ]
    return None if not of_it else torch.stack(of_it).all(0)
