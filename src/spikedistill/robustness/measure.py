"""Accuracy under attack: which samples a network still answers right, for each attack, size, number of timesteps and surrogate.

A sample withstands a row of the table if no restart and no surrogate of it fools the network. Samples that the network mistakes
unchanged do not withstand an attack; under noise and corruptions, which are not optimised, they count as all others.
What each batch withstood is written when it is done, so a measurement goes on where it was stopped.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..evaluation.attacked import check_kind, class_to_reach, noise_of
from ..files import sha256
from ..neurons import SpikingNeuron
from ..seeds import derive_seed
from ..through_time import Temporal
from .attacks import ATTACKS, Attack
from .distance import CarliniWagner
from .kept import Kept, digest
from .noise import GaussianNoise, RandomCorner
from .views import TRAINED, View

Track = Callable[[Iterable[Any], int], Iterable[Any]]
"""Shows progress over some work, of which it gets the amount."""

KINDS: dict[str, type[Attack | CarliniWagner]] = {
    **ATTACKS,
    CarliniWagner.name: CarliniWagner,
    GaussianNoise.name: GaussianNoise,
    RandomCorner.name: RandomCorner,
}
"""What a measurement can do to images, by name; `EVENT_ATTACKS` is for event frames."""

_VERSION = 2  # of the attacks: one more with each change of what they compute, so that kept results are not mixed

TWIN = "twin"
"""In place of a surrogate: gradients of another network."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        attack: with its size and steps.
        timesteps: k, which the network runs and the attack sees.
        through: surrogates that the attack takes gradients through, in this order; each attacks what the ones before left.
        restarts: starting points for each of them.
        remark: why it is there: "" for a row that was asked for, else the check that it serves.
        source: of which network `TWIN` is, in short.
        after: keys of rows before it, of which it attacks only what withstands all.
        of_all: whether samples that the network mistakes unchanged are attacked and counted too, as papers do.
    """

    attack: Attack | CarliniWagner
    timesteps: int
    through: tuple[str, ...] = (TRAINED,)
    restarts: int = 1
    remark: str = ""
    source: str = ""
    after: tuple[str, ...] = ()
    of_all: bool = False

    @property
    def counts_all(self) -> bool:
        """Whether samples that the network mistakes unchanged count by what it answers on the changed ones."""
        return self.of_all or not self.attack.seeks_mistakes

    @property
    def eps(self) -> float | None:
        """The size of the attack; None if it has none."""
        return self.attack.eps if isinstance(self.attack, Attack) else None

    def written(self) -> dict[str, Any]:
        """All that decides what comes out, for files."""
        attack = {field.name: getattr(self.attack, field.name) for field in fields(self.attack)}
        through = list(self.through) if self.attack.uses_gradients else []
        own = {"timesteps": self.timesteps, "through": through, "restarts": self.restarts}
        if self.source:
            own["source"] = self.source
        if self.after:
            own["after"] = list(self.after)
        if self.counts_all:
            own["of_all"] = True
        return {"name": self.attack.name, **attack, **own}

    @property
    def key(self) -> str:
        return sha256(json.dumps(self.written(), sort_keys=True).encode())[:16]


class Withstood(NamedTuple):
    """What came of a row.

    Attributes:
        row: the row.
        right: which of the samples are still right, bool `[N]`.
        fooled_through: how many fell to each surrogate, in order.
        no_gradient: the share of entries of the input's gradient at the sample itself that are exactly 0; None without gradients.
    """

    row: Row
    right: Tensor
    fooled_through: tuple[int, ...]
    no_gradient: float | None

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * float(self.right.double().mean())


@dataclass(frozen=True)
class Subject:
    """A network and the samples it is attacked on.

    Attributes:
        network: the network.
        samples: `[N, ...]` in [0, 1], or event frames `[N, T, ...]`.
        targets: `[N]`.
        events: whether samples are event frames.
        seed: of the starting points, which depend on it, the batch, the surrogate and the restart.
        batch_size: samples attacked at a time.
        twin: another network, whose attacked samples are tried on this one by rows through `TWIN`.
    """

    network: Temporal
    samples: Tensor
    targets: Tensor
    events: bool = False
    seed: int = 0
    batch_size: int = 100
    twin: Temporal | None = None

    @property
    def batches(self) -> int:
        return -(-len(self.targets) // self.batch_size)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return self.samples[part], self.targets[part]

    def key(self) -> str:
        """Of all that results depend on, but for the row."""
        of = digest([*self.network.state_dict().values(), self.samples, self.targets])
        frames = " the frames that are seen" if self.events else ""
        said = f"{of} {self.network.module!r} {self.seed} {self.batch_size}{frames} {_VERSION}"
        return sha256(said.encode())[:16]

    def view(self, row: Row, through: str) -> "View | _OnSum":
        """What a row sees through a surrogate."""
        if through != TWIN:
            return View(self.network, row.timesteps, through, events=self.events)
        assert self.twin is not None
        if any(isinstance(module, SpikingNeuron) for module in self.twin.modules()):
            return View(self.twin, row.timesteps, events=self.events)
        view = View(self.twin, 1, events=self.events)
        return _OnSum(view) if self.events else view


class _OnSum:
    """An ordinary network on event frames `[B, T, ...]`: it gets their sum."""

    def __init__(self, view: View) -> None:
        self._view = view

    def begin(self) -> None:
        """Begin the attack of a batch."""

    def __call__(self, x: Tensor) -> Tensor:
        return self._view(x.sum(1, keepdim=True))


def measure(
    subject: Subject, rows: Sequence[Row], file: Path | None = None, track: Track | None = None
) -> list[Withstood]:
    """Attack a network as each row says.

    Args:
        subject: the network and its samples.
        rows: what is done; a row with others before it follows them.
        file: where the results of batches are kept; those that are there are not computed again.
        track: shows progress over the batches of all rows, of which it gets the number.

    Raises:
        UserError: for an attack that does not fit the samples, or a damaged file.
    """
    for row in rows:
        check_kind(row.attack, subject.samples, events=subject.events)
    kept = Kept(file, subject.key())
    wanted = {(row.key, number): row for row in rows for number in range(subject.batches)}
    left = [(row, place[1]) for place, row in wanted.items() if place not in kept]
    for row, number in left if track is None else track(left, len(left)):
        before = [_batch(kept, key, number, subject).right for key in row.after]
        withstood = torch.tensor(before, dtype=torch.bool).all(0) if before else None
        kept.add(row.key, number, list(_attacked(subject, row, number, withstood)))
    return [_withstood(kept, row, subject) for row in rows]


class _Batch(NamedTuple):
    right: list[int]
    fooled_through: list[int]
    no_gradient: float | None


def _batch(kept: Kept, key: str, number: int, subject: Subject) -> _Batch:
    """A batch that is kept.

    Raises:
        UserError: if it is none of this size.
    """
    samples = len(subject.batch(number)[1])
    match kept[key, number]:
        case [list(right), list(fooled), None | float() | int() as share] if len(right) == samples:
            if all(answer in (0, 1) for answer in right) and all(type(count) is int for count in fooled):
                return _Batch(right, fooled, share)
    kept.refuse(f"batch {number} of row {key} is none of {samples} samples")


def _withstood(kept: Kept, row: Row, subject: Subject) -> Withstood:
    parts = [_batch(kept, row.key, number, subject) for number in range(subject.batches)]
    right = torch.tensor([answer for part in parts for answer in part.right], dtype=torch.bool)
    if len({len(part.fooled_through) for part in parts}) > 1:
        kept.refuse(f"the batches of row {row.key} have different numbers of surrogates")
    fooled = tuple(sum(counts) for counts in zip(*(part.fooled_through for part in parts), strict=True))
    shares = [(part.no_gradient, len(part.right)) for part in parts if part.no_gradient is not None]
    share = sum(value * count for value, count in shares) / len(right) if shares else None
    return Withstood(row, right, fooled, share)


def _attacked(subject: Subject, row: Row, number: int, left: Tensor | None) -> _Batch:
    """A batch, or what is left of it, under all surrogates and restarts of a row."""
    x, target = subject.batch(number)
    if subject.events:
        x = x[
            :, : row.timesteps
        ]  # changes elsewhere would be lost, and their number is a share of the events that are seen
    views = row.through if row.attack.uses_gradients else (TRAINED,)
    device = next(subject.network.parameters()).device
    x, target = x.to(device), target.to(device)
    plain = subject.view(row, TRAINED)
    with torch.no_grad():
        logits = plain(x)
    right, classes = logits.mean(0).argmax(1) == target, logits.shape[-1]
    if row.counts_all:
        right = torch.ones_like(right)
    if left is not None:
        right &= left.to(device)
    fooled, no_gradient = [], None
    for place, through in enumerate(views):
        view = plain if through == TRAINED else subject.view(row, through)
        if isinstance(row.attack, Attack) and row.attack.uses_gradients and no_gradient is None:
            no_gradient = float((row.attack.slope(view, x, target).gradient == 0).double().mean())
        before = int(right.sum())
        differ = row.attack.uses_start or row.attack.targeted
        for restart in range(row.restarts if differ else 1):
            alive = right.nonzero().flatten()
            if not len(alive):
                break
            view.begin()
            start = noise_of(x.shape, derive_seed(subject.seed, number, place, restart)).to(x)[alive]
            goal = target[alive]
            if row.attack.targeted:
                goal = class_to_reach(goal, classes, restart)
            changed = row.attack(view, x[alive], goal, start)
            with torch.no_grad():
                right[alive] = plain(changed).mean(0).argmax(1) == target[alive]
        fooled.append(before - int(right.sum()))
    return _Batch(right.long().tolist(), fooled, no_gradient)
