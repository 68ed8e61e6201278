"""Scores any network with a `step`, or logits, at every number of timesteps: `evaluate` without a run."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..data import Dataset, as_network_input, lengths_of, of_one_length
from ..errors import UserError
from ..files import write_atomically
from ..objectives.submodels import until
from ..seeds import derive_seed
from ..through_time import Steps, Temporal, logits_over_time
from ..through_time.steps import check_nothing_kept, check_steps, frames_of, sent_to
from .attacked import check_kind, class_to_reach, noise_of
from .counting import count_operations
from .deployment import ENERGY_SAMPLES, deployment, estimated_energy
from .exits import check_lengths
from .logits_file import LabelledLogits, as_targets
from .recorder import FiringRates, fires, record
from .results import SCHEMA, Results
from .timesteps import calibrated_metrics, timestep_metrics, timestep_reliability

Labelled: TypeAlias = Dataset | Iterable[Any]
Attack: TypeAlias = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
"""From a network as a function from samples `[B, ...]` to logits `[T, B, C]`, samples and labels to changed samples."""
_BATCH = 250


@torch.no_grad()
def evaluate_network(
    model: Steps,
    data: Labelled,
    *,
    timesteps: int | None,
    heldout: Labelled | None = None,
    classes: Sequence[str] | None = None,
    energy: bool = True,
    spiking: tuple[type[nn.Module], ...] = (),
    batch_size: int | None = None,
    out: Path | str | None = None,
    attack: Attack | None = None,
) -> dict[str, Any]:
    """Score a network in eval mode on labelled samples; see `evaluate`."""
    check_steps(model)
    if batch_size is not None and not _in_samples(data) and not _in_samples(heldout):
        raise UserError(f"batch_size is {batch_size}, but the data come in batches already: leave it out")
    batches = _checked(model, _batches(data, timesteps, batch_size), timesteps)
    if attack is not None:  # before anything records what neurons do
        events = False if timesteps is not None else True if isinstance(data, Dataset) else None
        batches = [
            (_attacked(model, attack, x, target, timesteps, events, number), target)
            for number, (x, target) in enumerate(batches)
        ]
    some = _Sample(ENERGY_SAMPLES)
    with record(model, spiking=spiking) if fires(model, spiking) else nullcontext() as recording:
        rates = None if recording is None else FiringRates(recording)
        logits, targets, lengths = _collected(model, batches, timesteps, some, rates)
    if isinstance(data, Dataset) and (own := lengths_of(data.test)) is not None:  # back in the order of the samples
        order = own.argsort(stable=True).argsort()
        logits, targets, lengths = logits[:, order], targets[order], own
    held = None
    if heldout is not None:
        held = _collected(model, _batches(heldout, timesteps, batch_size), timesteps)[:2]
    try:
        estimate = (
            estimated_energy(count_operations(model, [some.inputs()], timesteps, spiking=spiking)) if energy else None
        )
    except UserError:  # its operations cannot be counted
        estimate = None
    ours = data if isinstance(data, Dataset) else None
    known = getattr(model, "classes", None) if ours is None else ours.classes  # of a loaded network
    names = known if classes is None else classes
    firing = () if rates is None else tuple(rates.means(len(logits)))
    given = LabelledLogits(logits, targets, None if names is None else list(names), held, estimate, firing, lengths)
    return _written(given, "" if ours is None else ours.name, out)


def evaluate_logits(given: LabelledLogits, out: Path | str | None = None) -> dict[str, Any]:
    """Score logits of any library; see `evaluate`."""
    return _written(given, "", out)


def scored(given: LabelledLogits) -> dict[str, Any]:
    """Every figure of labelled logits, as results.json holds them.

    Raises:
        UserError: for parts that do not belong together.
    """
    logits, targets = given.logits, given.labels
    if logits.ndim == 3 and targets.shape == logits.shape[:1] != logits.shape[1:2]:
        raise UserError(
            f"got logits {list(logits.shape)} and labels {list(targets.shape)}, expected logits [T, N, C] and labels [N]: time "
            "comes first, and logits.transpose(0, 1) puts it there"
        )
    if given.lengths is not None:
        check_lengths(given.lengths, logits)
    figures: dict[str, Any] = timestep_metrics(logits, targets, given.lengths)
    T, N, C = logits.shape
    classes = [str(index) for index in range(C)] if given.classes is None else [str(name) for name in given.classes]
    if len(classes) != C:
        raise UserError(f"got {len(classes)} class names for logits [{T}, {N}, {C}], expected {C}")
    energies = None if given.energy is None else len(given.energy["total_pj"])
    if energies not in (None, T):
        raise UserError(f"got energies of {energies} timesteps for logits [{T}, {N}, {C}], expected {T}")
    figures["reliability"] = timestep_reliability(logits, targets)
    if given.firing_rates:
        figures["firing_rates"] = list(given.firing_rates)
    if given.heldout is not None:
        figures["calibrated"] = calibrated_metrics(logits, targets, *given.heldout)
    found: dict[str, Any] = {"schema": SCHEMA, "classes": classes, "samples": N, "timesteps": T, "last": figures}
    if T > 1:
        accuracy = [entry["accuracy"] for entry in figures["ensemble"]]
        found["deployment"] = deployment(logits, targets, accuracy, given.energy, given.lengths)
    return found


def _written(given: LabelledLogits, dataset: str, out: Path | str | None) -> dict[str, Any]:
    """The results of labelled logits, also written into a folder if one is given."""
    found = scored(given) | {"dataset": dataset}
    Results.model_validate(found).check()
    if out is not None:
        folder = Path(out)
        if (folder / "manifest.json").exists():
            raise UserError(f"{folder} is the folder of a run, whose results would be lost: name another")
        folder.mkdir(parents=True, exist_ok=True)
        given.write(folder / "logits.safetensors")
        write_atomically(folder / "results.json", json.dumps(found, indent=1))
    return found


def _checked(
    model: Steps, batches: Iterator[tuple[Tensor, Tensor]], timesteps: int | None
) -> Iterable[tuple[Tensor, Tensor]]:
    """The batches, after a network of another library has passed a check on the first."""
    first = next(batches, None)
    if first is None:
        raise UserError("the data held no batch, expected batches of (inputs, targets)")
    if not isinstance(model, Temporal):
        check_nothing_kept(model, frames_of(sent_to(model, first[0]), timesteps))
    return chain([first], batches)


def _attacked(
    model: Steps, attack: Attack, x: Tensor, target: Tensor, timesteps: int | None, events: bool | None, number: int
) -> Tensor:
    """A batch as the network takes it, changed by an attack, which sees the samples first; `number` is the batch's."""

    def look(samples: Tensor) -> Tensor:
        return logits_over_time(model, samples if timesteps is not None else samples.transpose(0, 1), timesteps)

    samples = sent_to(model, x if timesteps is not None else x.transpose(0, 1))
    check_kind(attack, samples, events=events)
    goal = target.to(samples.device)
    if getattr(attack, "targeted", False):
        goal = class_to_reach(goal, look(samples[:1]).shape[-1])
    begun: dict[str, Tensor] = {}
    if getattr(
        attack, "uses_start", False
    ):  # an attack of `spikedistill.robustness`, whose draws are the same in every call
        begun["start"] = noise_of(samples.shape, derive_seed(0, number)).to(samples)
    changed = attack(look, samples, goal, **begun)
    if not isinstance(changed, Tensor) or changed.shape != samples.shape:
        got = list(changed.shape) if isinstance(changed, Tensor) else f"a {type(changed).__name__}"
        raise UserError(f"the attack returned {got}, expected the changed samples {list(samples.shape)}")
    return changed if timesteps is not None else changed.transpose(0, 1)


def _collected(
    model: Steps,
    batches: Iterable[tuple[Tensor, Tensor]],
    timesteps: int | None,
    some: "_Sample | None" = None,
    rates: FiringRates | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits `[T, N, C]` in float32, labels `[N]`, and lengths `[N]` if they differ, of all samples, on the CPU."""
    parts, labels, axis = [], [], 0 if timesteps is not None else 1
    for x, target in batches:
        parts.append(logits_over_time(model, x, timesteps).float().cpu())
        labels.append(target)
        if rates is not None:
            rates.add(x.shape[axis])
        if some is not None:
            some.add(x, axis)
    if not parts:
        raise UserError("the held-out data held no batch, expected batches of (inputs, targets)")
    classes = sorted({part.shape[2] for part in parts})
    if len(classes) > 1:
        raise UserError(f"the batches gave logits of {classes} classes, expected the same in all")
    lengths = torch.tensor([len(part) for part in parts for _ in range(part.shape[1])])
    longest = int(lengths.max())
    ends = [until(part, longest) for part in parts]
    return torch.cat(ends, 1), torch.cat(labels), lengths if int(lengths.min()) < longest else None


def _batches(data: Labelled, timesteps: int | None, batch_size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs as a network takes them, and their labels.

    Raises:
        UserError: for anything but batches of inputs and as many labels.
    """
    if isinstance(data, Dataset):
        if (timesteps is None) != (data.kind == "events"):
            expected = (
                "images are shown for timesteps=T" if timesteps is None else "event frames bring their own timesteps"
            )
            raise UserError(f"timesteps is {timesteps} for the data set {data.name}: {expected}")
        for places, inputs in of_one_length(data.test, batch_size or _BATCH):
            yield as_network_input(inputs, data.kind), data.test.targets[places]
        return
    if isinstance(data, torch.utils.data.Dataset) and _in_samples(data):
        data = torch.utils.data.DataLoader(data, batch_size or _BATCH)
    for number, batch in enumerate(_iterable(data)):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[0], Tensor):
            got = f"{len(batch)} values" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
            raise UserError(f"batch {number} is {got}, expected (inputs, targets), the inputs as a tensor")
        x, target = batch[0], as_targets(batch[1])
        axis = 0 if timesteps is not None else 1
        if target.ndim != 1 or x.ndim <= axis or x.shape[axis] != len(target):
            turned = timesteps is None and x.ndim > 1 and len(x) == len(target)
            hint = ": inputs.transpose(0, 1) puts time first" if turned else ""
            expected = "[B, ...]" if timesteps is not None else "[T, B, ...], or timesteps=T for static ones,"
            raise UserError(
                f"batch {number} has inputs {list(x.shape)} and targets {list(target.shape)}, expected inputs {expected} and "
                f"targets [B]{hint}"
            )
        if not x.is_floating_point():
            raise UserError(
                f"batch {number} has {x.dtype} inputs, expected floating-point ones: images of 0 to 255 are divided by 255 first"
            )
        yield x, target


def _in_samples(data: Any) -> bool:
    """Whether `data` gives single samples, which have to be put into batches."""
    if isinstance(data, torch.utils.data.IterableDataset):
        return False
    return isinstance(data, (Dataset, torch.utils.data.Dataset))


def _iterable(data: Any) -> Iterable[Any]:
    if isinstance(data, Tensor) or not isinstance(data, Iterable):
        raise UserError(
            f"data is a {type(data).__name__}, expected batches of (inputs, targets), such as a DataLoader, or a data set"
        )
    return data


class _Sample:
    """A random subset of all samples, because some data sets are sorted by class.

    Args:
        count: how many samples.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.kept: list[tuple[float, Tensor]] = []
        self.axis = 0
        self.generator = torch.Generator().manual_seed(0)

    def add(self, x: Tensor, axis: int) -> None:
        """Add a batch, whose samples lie along `axis`, to the draw, unless others are longer sequences."""
        self.axis = axis
        if axis and self.kept and len(x) != len(self.kept[0][1]):
            if len(x) < len(self.kept[0][1]):
                return
            self.kept = []
        draws = torch.rand(x.shape[axis], generator=self.generator).tolist()
        bound = self.kept[-1][0] if len(self.kept) == self.count else 1.0
        new = [(draw, x.select(axis, n).clone()) for n, draw in enumerate(draws) if draw < bound]
        self.kept = sorted(self.kept + new, key=lambda entry: entry[0])[: self.count]

    def inputs(self) -> Tensor:
        """The samples as one batch."""
        return torch.stack([x for _, x in self.kept], self.axis)
