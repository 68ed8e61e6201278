"""`spikedistill robustness RUN`: a trained run under attack, its table, and what speaks against believing it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..config import Config
from ..data import as_network_input, balanced_order, lengths_of
from ..errors import UserError
from ..evaluation.exits import check_policy
from ..evaluation.runs import parts_of_run
from ..files import alone_in, write_atomically
from ..neurons import SURROGATES
from ..run_folder import RunFolder, device_of
from ..through_time import Temporal
from .attacks import Attack, Pgd
from .checks import QUERIES, Check, checks_of, climbs, rows_of_checks, worst_case
from .corruptions import CORRUPTIONS, SEVERITIES, Corruption
from .distance import CarliniWagner
from .event_changes import EVENT_ATTACKS, RandomEvents, SparseEvents
from .exits import attack_exits
from .kept import digest
from .measure import KINDS, Row, Subject, Track, Withstood, measure
from .noise import Unchanged
from .views import TRAINED, VIEWS, View, views_of

CORRUPTED = "corruption"
LEVEL = 255  # sizes are said in these
PERCENT = 100  # on events
_SAMPLES = 500  # or fewer, if the test set has fewer


class Choices(NamedTuple):
    """What is attacked, and how.

    Attributes:
        attacks: names of `KINDS`, or of `EVENT_ATTACKS` for event frames; default four, or sparse and random-events.
        eps: sizes, in levels of 255; for event frames, changes in percent of a recording's events. Default 2, 4, 8 or 1, 2, 5.
        timesteps: k; default 1 and T.
        steps: of the attacks that have steps; Square takes twenty times as many queries.
        step: how far a step of `pgd` and `bim` moves a pixel, in levels of 255; default 2.5 eps / steps.
        targeted: attacks aim at the class after the label, and from further starts at those after it.
        through: surrogates, names of `VIEWS` or of any surrogate; default all of `VIEWS` that the network's neurons have.
        restarts: starting points for each surrogate.
        samples: of the test set, classes balanced; default 500, or all where there are fewer.
        batch_size: samples attacked at a time.
        seed: of the starting points.
        twin: another run on the same data set, such as of an ANN, whose attacked images are tried on this one as a check.
        checks: whether the rows that check the others are measured too.
        corruptions: whether common corruptions of five severities are measured too.
        exits: a threshold of the policy "confidence", at which early exit is attacked too.
    """

    attacks: Sequence[str] = ()
    eps: Sequence[float] = ()
    timesteps: Sequence[int] = ()
    steps: int = 50
    through: Sequence[str] = ()
    restarts: int = 1
    samples: int | None = None
    batch_size: int = 100
    seed: int = 0
    checks: bool = True
    corruptions: bool = False
    exits: float | None = None
    twin: Path | str | None = None
    step: float | None = None
    targeted: bool = False


class Measured(NamedTuple):
    """A run under attack.

    Attributes:
        found: what came of each row.
        checks: the checks of each row, in the same order.
        results: what `robustness.json` holds.
    """

    found: list[Withstood]
    checks: list[list[Check]]
    results: dict[str, Any]


class _Data(NamedTuple):
    """What can be done to the samples of a kind.

    Attributes:
        attacks: by name.
        unit: sizes are said in shares of it.
        usual: attacks and sizes that are taken if none are named.
    """

    attacks: Mapping[str, type[Attack | CarliniWagner]]
    unit: int
    usual: tuple[tuple[str, ...], tuple[float, ...]]


_DATA = {
    "image": _Data(KINDS, LEVEL, (("noise", "fgsm", "pgd", "sa-pgd"), (2.0, 4.0, 8.0))),
    "events": _Data(EVENT_ATTACKS, PERCENT, ((RandomEvents.name, SparseEvents.name), (1.0, 2.0, 5.0))),
}


def rows_of(
    choices: Choices, timesteps: Sequence[int], kind_of_data: str = "image", *, binary: bool = False
) -> list[Row]:
    """The rows of the table: clean first, then every attack at every k and size.

    Args:
        choices: what was chosen, with nothing left open.
        timesteps: k.
        kind_of_data: "image" or "events".
        binary: whether event frames hold one event at most in an entry, and are to stay so.

    Raises:
        UserError: for an unknown attack, or a size that is none.
    """
    data = _DATA[kind_of_data]
    rows = [Row(Unchanged(), k, remark="clean") for k in timesteps]
    through = tuple(dict.fromkeys(choices.through))
    for name in choices.attacks:
        if name not in data.attacks:
            raise UserError(f"no attack is called {name!r}: choose some of {', '.join(data.attacks)}")
        kind = data.attacks[name]
        for k in timesteps:
            for eps in choices.eps if issubclass(kind, Attack) else (None,):
                attack = kind(**_options(kind, choices, eps if eps is None else eps / data.unit, binary))
                alone = not attack.uses_gradients
                rows.append(Row(attack, k, (TRAINED,) if alone else through, 1 if alone else choices.restarts))
    if choices.corruptions:
        rows += [
            Row(Corruption(kind=kind, severity=severity), k, remark=CORRUPTED)
            for k in timesteps
            for kind in CORRUPTIONS
            for severity in SEVERITIES
        ]
    return rows


def _options(kind: type[Attack | CarliniWagner], choices: Choices, eps: float | None, binary: bool) -> dict[str, Any]:
    """Those of an attack's own options that a choice decides."""
    steps = choices.steps if kind.uses_gradients else QUERIES * choices.steps
    step = None if choices.step is None else choices.step / LEVEL
    wanted = {"eps": eps, "steps": steps, "step": step, "stop": True, "alone": True, "binary": binary}
    if kind.seeks_mistakes:
        wanted["targeted"] = choices.targeted
    usual = kind.__dataclass_fields__
    return {name: value for name, value in wanted.items() if name in usual and value is not None}


def _check(chosen: Choices) -> None:
    """Refuse choices that are none, before any work.

    Raises:
        UserError: naming the first.
    """
    if chosen.twin is not None and not chosen.checks:
        raise UserError("twin is for a check, and checks are off: leave one of them out")
    for name in ("steps", "restarts", "samples", "batch_size"):
        if (value := getattr(chosen, name)) is not None and value < 1:
            raise UserError(f"{name} is {value}, expected 1 or more")
    if chosen.seed < 0:
        raise UserError(f"seed is {chosen.seed}, expected 0 or more")
    known = [*VIEWS, *SURROGATES]
    if wrong_names := [name for name in chosen.through if name not in known]:
        raise UserError(f"no surrogate is called {wrong_names[0]!r}: choose some of {', '.join(dict.fromkeys(known))}")
    if chosen.exits is not None:
        check_policy("confidence", chosen.exits)
    if chosen.step is not None and not 0 < chosen.step <= LEVEL:
        raise UserError(f"step is {chosen.step:g}, expected levels of {LEVEL}, above 0")


def measure_run(
    run: Path | str,
    choices: Choices | None = None,
    *,
    root: Path | None = None,
    track: Track | None = None,
) -> Measured:
    """Attack a trained run on samples of its test set, and write `robustness.json` into its folder.

    It goes on where it was stopped.

    Args:
        run: the run folder.
        choices: what is attacked, and how.
        root: folder of the data sets, if it has moved.
        track: shows progress over batches.

    Raises:
        FileNotFoundError: if the run or its data set is missing.
        UserError: for choices that do not fit, or an ordinary network at several timesteps.
    """
    chosen = Choices() if choices is None else choices
    _check(chosen)
    folder = RunFolder.trained(run)
    config = folder.config()
    T = config.timesteps
    subject, ks = subject_of(run, chosen, root=root)
    kind = "events" if subject.events else "image"
    chosen = _filled(chosen, kind, subject.network)
    binary = subject.events and bool(subject.samples.max() <= 1)
    rows = rows_of(chosen, ks, kind, binary=binary)
    further = rows_of_checks(rows, chosen.steps, _short(subject.twin)) if chosen.checks else []
    wanted = list({(row.key, row.remark): row for row in [*rows, *further]}.values())
    with alone_in(folder.path, wait=True):
        found = measure(subject, wanted, folder.attacked, track)
        asked = [each.row.attack.uses_gradients and not each.row.remark for each in found]
        checks = [checks_of(found, each) if its else [] for each, its in zip(found, asked, strict=True)]
        unit = _DATA[kind].unit
        results = _written(found, checks, len(subject.samples), chosen.seed, config) | {"unit": unit}
        if chosen.exits is not None:
            climb = SparseEvents if subject.events else Pgd
            attack = climb(**_options(climb, chosen._replace(targeted=False), max(chosen.eps) / unit, binary))
            through, restarts = chosen.through, chosen.restarts
            attacked = attack_exits(
                subject, T, attack, chosen.exits, through=through, restarts=restarts, file=folder.attacked, track=track
            )
            results["exits"] = {
                "threshold": chosen.exits,
                "eps": attack.eps,
                "rows": [row._asdict() for row in attacked],
            }
        with folder.rewriting(folder.robustness):
            write_atomically(folder.robustness, json.dumps(results, indent=1))
    return Measured(found, checks, results)


def _filled(chosen: Choices, kind: str, network: Temporal) -> Choices:
    """The choices with what was left open, for this kind of data.

    Raises:
        UserError: for a size that is none, or corruptions of what is no image.
    """
    data = _DATA[kind]
    attacks, eps = data.usual
    chosen = chosen._replace(
        attacks=tuple(chosen.attacks) or attacks,
        eps=tuple(chosen.eps) or eps,
        through=tuple(chosen.through) or views_of(network),
    )
    if wrong := [size for size in chosen.eps if not 0 <= size <= data.unit]:
        of = f"levels of {data.unit}" if kind == "image" else "percent of a recording's events"
        raise UserError(f"eps is {wrong[0]:g}, expected {of}, from 0 to {data.unit}")
    if kind == "events" and chosen.corruptions:
        raise UserError("corruptions are of images, and the run is on event frames: leave them out")
    if chosen.step is not None and not {"pgd", "bim"} & {*chosen.attacks}:
        raise UserError(f"step is of pgd and bim, and the attacks are {', '.join(chosen.attacks)}: leave it out")
    return chosen


def subject_of(run: Path | str, chosen: Choices, *, root: Path | None = None) -> tuple[Subject, tuple[int, ...]]:
    """A trained run's network with the samples that are attacked, and the k at which it is.

    Raises:
        FileNotFoundError: if the run or its data set is missing.
        UserError: for choices that do not fit the run.
    """
    folder = RunFolder.trained(run)
    config = folder.config()
    dataset, _ = parts_of_run(config, root=root)
    T = config.timesteps
    ks = tuple(chosen.timesteps) or ((1, T) if T > 1 else (1,))
    if wrong := [k for k in ks if k < 1]:
        raise UserError(f"timesteps {wrong[0]} is out of range: expected 1 or more, and the run was trained at {T}")
    if config.model.neuron == "relu" and max(ks) > 1:
        raise UserError(f"timesteps {max(ks)}: the network is an ordinary one, which has a single timestep")
    if dataset.kind == "events" and max(ks) > T:
        raise UserError(f"timesteps {max(ks)}: the recordings of the run have {T} frames")
    if lengths_of(dataset.test) is not None:
        raise UserError(f"{dataset.name} holds recordings of different length, which attacks do not take")
    most = len(dataset.test)
    count = min(_SAMPLES, most) if chosen.samples is None else chosen.samples
    if count > most:
        raise UserError(f"samples is {count}, and {dataset.name} has {most} to test on: take 1 to {most}")
    order = balanced_order(dataset.test.targets)[:count].sort().values
    samples = as_network_input(dataset.test.inputs(order), dataset.kind)
    subject = Subject(
        folder.load_network(folder.model, None).to(device_of(config.trainer)),
        samples.transpose(0, 1) if dataset.kind == "events" else samples,
        dataset.test.targets[order],
        events=dataset.kind == "events",
        seed=chosen.seed,
        batch_size=chosen.batch_size,
    )
    if chosen.twin is not None:
        subject = replace(subject, twin=_twin(chosen.twin, subject))
    return subject, ks


def _twin(run: Path | str, subject: Subject) -> Temporal:
    """Another run's network, if it takes the same samples and knows the same classes."""
    folder = RunFolder.trained(run)
    twin: Temporal = folder.load_network(folder.model, None)
    device = next(subject.network.parameters()).device
    x = subject.samples[:1].to(device)
    twin = twin.to(device)
    with torch.no_grad():
        own = View(subject.network, 1, events=subject.events)(x).shape[-1]
        try:
            other = View(twin, 1, events=subject.events)(x).shape[-1]
        except (RuntimeError, UserError) as error:
            raise UserError(f"the twin {run} does not take the images of the run: {error}") from None
    if own != other:
        raise UserError(f"the twin {run} has {other} classes and the run {own}: take one of the same data set")
    return twin


def _short(twin: Temporal | None) -> str:
    return "" if twin is None else digest(twin.state_dict().values())[:16]


def _written(
    found: Sequence[Withstood], checks: Sequence[Sequence[Check]], samples: int, seed: int, config: Config
) -> dict[str, Any]:
    rows = []
    for each, own in zip(found, checks, strict=True):
        row = each.row.written() | {
            "remark": each.row.remark,
            "eps": each.row.eps,
            "accuracy": each.accuracy,
            "no_gradient": each.no_gradient,
        }
        if each.row.attack.uses_gradients:
            row["fooled_through"] = dict(zip(each.row.through, each.fooled_through, strict=True))
        rows.append(row | {"checks": [check._asdict() for check in own]})
    worst = []
    for k in sorted({each.row.timesteps for each in found}):
        for eps in sorted(
            {each.row.eps for each in found if not each.row.remark and climbs(each.row) and each.row.eps is not None}
        ):
            right = worst_case(found, k, eps)
            if right is not None:
                worst.append({"timesteps": k, "eps": eps, "accuracy": 100 * float(right.double().mean())})
    about: dict[str, Any] = {
        "recipe": str(config.recipe),
        "dataset": config.data.name,
        "samples": samples,
        "seed": seed,
    }
    corrupted = [each for each in found if each.row.remark == CORRUPTED]
    if corrupted:
        about["mean_corruption_error"] = {
            str(k): sum(100 - each.accuracy for each in of_k) / len(of_k)
            for k in sorted({each.row.timesteps for each in corrupted})
            if (of_k := [each for each in corrupted if each.row.timesteps == k])
        }
    return {"schema_version": 1, **about, "torch": torch.__version__, "rows": rows, "worst_case": worst}
