"""Accuracy under attack: which samples a network still answers right, for each attack, size, number of timesteps and surrogate.

A sample withstands a row of the table if no restart and no surrogate of it fools the network. Samples that the network mistakes
unchanged do not withstand anything. What each batch withstood is written when it is done, so a measurement goes on where it was
stopped.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..files import parse_json, sha256, write_atomically
from ..neurons import SpikingNeuron
from ..seeds import derive_seed
from ..through_time import Temporal
from .attacks import ATTACKS, Attack
from .distance import CarliniWagner
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
    """

    attack: Attack | CarliniWagner
    timesteps: int
    through: tuple[str, ...] = (TRAINED,)
    restarts: int = 1
    remark: str = ""
    source: str = ""
    after: tuple[str, ...] = ()

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

    def view(self, row: Row, through: str) -> View:
        """What a row sees through a surrogate."""
        if through != TWIN:
            return View(self.network, row.timesteps, through, events=self.events)
        assert self.twin is not None
        if not any(isinstance(module, SpikingNeuron) for module in self.twin.modules()):
            return View(self.twin, 1, events=self.events)
        return View(self.twin, row.timesteps, events=self.events)


def measure(
    subject: Subject, rows: Sequence[Row], file: Path | None = None, track: Track | None = None
) -> list[Withstood]:
    """Attack a network as each row says.

    Args:
        subject: the network and its samples.
        rows: what is done; a row with others before it follows them.
        file: where the results of batches are kept; those that are there are not computed again.
        track: shows progress over the batches of all rows, of which it gets the number.
    """
    kept = _Kept(file, subject)
    wanted = {(row.key, number): row for row in rows for number in range(subject.batches)}
    left = [(row, number) for (_, number), row in wanted.items() if not kept.has(row, number)]
    for row, number in left if track is None else track(left, len(left)):
        kept.add(row, number, _attacked(subject, row, number, kept.withstood(row.after, number)))
    return [kept.of(row, subject.batches) for row in rows]


class _Batch(NamedTuple):
    right: list[int]
    fooled_through: list[int]
    no_gradient: float | None


def _attacked(subject: Subject, row: Row, number: int, left: Tensor | None) -> _Batch:
    """A batch, or what is left of it, under all surrogates and restarts of a row."""
    x, target = subject.batch(number)
    views = row.through if row.attack.uses_gradients else (TRAINED,)
    device = next(subject.network.parameters()).device
    x, target = x.to(device), target.to(device)
    plain = subject.view(row, TRAINED)
    with torch.no_grad():
        right = plain(x).mean(0).argmax(1) == target
    if left is not None:
        right &= left.to(device)
    fooled, no_gradient = [], None
    for place, through in enumerate(views):
        view = plain if through == TRAINED else subject.view(row, through)
        if isinstance(row.attack, Attack) and row.attack.uses_gradients and no_gradient is None:
            no_gradient = float((row.attack.slope(view, x, target).gradient == 0).double().mean())
        before = int(right.sum())
        for restart in range(row.restarts):
            alive = right.nonzero().flatten()
            if not len(alive):
                break
            view.begin()
            start = noise_of(x.shape, derive_seed(subject.seed, number, place, restart)).to(x)[alive]
            changed = row.attack(view, x[alive], target[alive], start)
            with torch.no_grad():
                right[alive] = plain(changed).mean(0).argmax(1) == target[alive]
        fooled.append(before - int(right.sum()))
    return _Batch(right.long().tolist(), fooled, no_gradient)


def noise_of(shape: torch.Size, seed: int) -> Tensor:
    """Noise in [-1, 1], from which attacks begin."""
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


class _Kept:
    """Results of batches, in a file of JSON lines; those of other networks or samples stay there too."""

    def __init__(self, file: Path | None, subject: Subject) -> None:
        self.file = file
        self.found: dict[tuple[str, int], _Batch] = {}
        self.lines: list[str] = []
        of = [*subject.network.state_dict().values(), subject.samples, subject.targets]
        self.of_subject = sha256(f"{digest(of)} {subject.seed} {subject.batch_size}".encode())[:16]
        if file is None or not file.is_file():
            return
        self.lines = file.read_text().splitlines()
        for line in self.lines:
            entry = parse_json(line.encode(), file)
            if entry["of"] == self.of_subject:
                self.found[entry["row"], entry["batch"]] = _Batch(*entry["found"])

    def has(self, row: Row, number: int) -> bool:
        return (row.key, number) in self.found

    def withstood(self, keys: Sequence[str], number: int) -> Tensor | None:
        """Which samples of a batch withstand all of these rows, bool `[B]`; None for no row."""
        if not keys:
            return None
        return torch.tensor([self.found[key, number].right for key in keys], dtype=torch.bool).all(0)

    def add(self, row: Row, number: int, found: _Batch) -> None:
        self.found[row.key, number] = found
        self.lines.append(json.dumps({"of": self.of_subject, "row": row.key, "batch": number, "found": list(found)}))
        if self.file is not None:
            write_atomically(self.file, "\n".join(self.lines) + "\n")

    def of(self, row: Row, batches: int) -> Withstood:
        parts = [self.found[row.key, number] for number in range(batches)]
        right = torch.tensor([answer for part in parts for answer in part.right], dtype=torch.bool)
        fooled = tuple(sum(counts) for counts in zip(*(part.fooled_through for part in parts), strict=True))
        shares = [(part.no_gradient, len(part.right)) for part in parts if part.no_gradient is not None]
        share = sum(value * count for value, count in shares) / len(right) if shares else None
        return Withstood(row, right, fooled, share)


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the tensors' bytes."""
    raw = b"".join(
        tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() for tensor in tensors
    )
    return sha256(raw)
