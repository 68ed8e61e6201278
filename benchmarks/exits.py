"""What early exit saves on trained runs: thresholds from held-out samples, their figures on the test set, and the seconds."""

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spikedistill.data import as_network_input
from spikedistill.evaluation import POLICIES, AnytimeClassifier, calibrate_threshold, exit_times
from spikedistill.evaluation.exits import Policy
from spikedistill.evaluation.results import read_results
from spikedistill.objectives.submodels import prefix_means, right_submodels
from spikedistill.run_folder import RunFolder, dataset_of, load
from spikedistill.through_time import Temporal
from spikedistill.training.allocator import keep_freed_memory

from .results import commit, machine, versions

POLICY: Policy = "confidence"
_SAMPLES_OF_A_ROUND = 64


def measure_exits(
    folders: Sequence[Path],
    max_drop: float,
    batch_sizes: Sequence[int],
    rounds: int,
    command: str,
    anns: Sequence[Path] = (),
) -> dict[str, Any]:
    """Everything about the runs, as it is written to a file.

    Args:
        folders: finished run folders, trained with a hold-out.
        max_drop: accuracy that may be lost on the held-out samples, in percentage points.
        batch_sizes: the batches whose seconds are taken; none are taken where it is empty.
        rounds: how often.
        command: what is run.
        anns: finished run folders of ordinary networks on the same data set, which take part in the rounds of every run.

    Returns:
        `{machine, ..., exits: [...], anns: [...], seconds: [...]}`, a row for each run and policy, for each ordinary network, and
        for each run and size of batch.

    Raises:
        FileNotFoundError: for a folder without a trained run.
        ValueError: for a run without held-out samples, or an ordinary network that spikes or has another data set.
    """
    found: dict[str, Any] = {
        "machine": machine("cpu"),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        **commit(),
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "max_drop": max_drop,
        "exits": [],
        "anns": [_ann_row(folder) for folder in anns],
        "seconds": [],
    }
    keep_freed_memory()  # as in the other benchmarks: what mapping memory anew costs depends on what ran before
    for folder in folders:
        run = RunFolder.trained(folder)
        for ann in found["anns"]:
            if ann["dataset"] != run.config().data.name:
                raise ValueError(f"{ann['run']} is trained on {ann['dataset']}, {folder} on {run.config().data.name}")
        saved = load_file(run.logits)
        if "holdout_logits" not in saved:
            raise ValueError(f"{folder} has no held-out samples to calibrate on: train it with --data.holdout 0.1")
        name = run.config().recipe
        rows = [exit_row(saved, policy, max_drop) for policy in POLICIES]
        found["exits"] += [{"run": name, **row} for row in rows]
        threshold = rows[POLICIES.index(POLICY)]["threshold"]
        found["seconds"] += [{"run": name, **seconds_row(run, threshold, size, rounds, anns)} for size in batch_sizes]
    return found


def print_exits(found: dict[str, Any]) -> None:
    """Two tables: what is answered, and what it costs."""
    from rich.console import Console
    from rich.table import Table

    answers, costs = Table(box=None), Table(box=None)
    for title in (
        "run",
        "policy",
        "threshold",
        "mean exit",
        "accuracy",
        "of all T",
        "drop",
        "over fixed k of that latency",
    ):
        answers.add_column(title, no_wrap=True)
    for row in found["exits"]:
        figures = f"{row['mean_exit']:.2f}", f"{row['accuracy']:.2f}", f"{row['accuracy_of_all']:.2f}"
        differences = (_interval(row[key]) for key in ("drop", "gain_over_fixed"))
        answers.add_row(row["run"], row["policy"], f"{row['threshold']:.4g}", *figures, *differences)
    for title in ("run", "batch", "what runs", "ms of a batch", "times all T at once"):
        costs.add_column(title, no_wrap=True)
    for row in found["seconds"]:
        for name, seconds in row["seconds"].items():
            ratio = row["ratios"].get(name)
            times = "1" if ratio is None else f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
            costs.add_row(row["run"], str(row["batch_size"]), _NAMES.get(name, name), _ms(seconds), times)
    ordinary = Table(box=None)
    for title in ("ordinary network", "parameters", "accuracy"):
        ordinary.add_column(title, no_wrap=True)
    for row in found["anns"]:
        ordinary.add_row(row["run"], f"{row['parameters']:,}", f"{row['accuracy']:.2f}")
    console = Console()
    console.width = max(console.width, 160)
    for table in (answers, ordinary, costs) if found["anns"] else (answers, costs):
        console.print(table)


_NAMES = {
    "sequence": "all T at once",
    "steps": "step by step",
    "exit": "with exit",
    "steps_compiled": "compiled steps",
    "exit_compiled": "compiled steps with exit",
}


def _ms(seconds: dict[str, float]) -> str:
    return f"{1000 * seconds['median']:.2f}"


def _ann_row(folder: Path) -> dict[str, Any]:
    """An ordinary network and its accuracy on the test set, in percent.

    Raises:
        ValueError: for a network that spikes.
    """
    run = RunFolder.trained(folder)
    config = run.config()
    if config.model.neuron != "relu":
        raise ValueError(
            f"{folder} has neurons {config.model.neuron!r}; an ordinary network has relu, as in the recipes *-ann"
        )
    return {
        "run": str(folder),
        "dataset": config.data.name,
        "parameters": sum(parameter.numel() for parameter in load(folder).parameters()),
        "accuracy": 100 * read_results(run).last.ensemble[0].accuracy,
    }


def exit_row(saved: dict[str, Tensor], policy: Policy, max_drop: float) -> dict[str, Any]:
    """One policy, its threshold from the held-out logits and its figures on the test set.

    A fixed number of timesteps with the same mean is k for some of the samples and k+1 for the others, drawn at random.
    Differences are percentage points with 95 percent intervals over test samples.
    """
    chosen = calibrate_threshold(saved["holdout_logits"], saved["holdout_targets"], policy, max_drop=max_drop)
    logits, targets = saved["logits"].double(), saved["targets"]
    T = len(logits)
    right = right_submodels(prefix_means(logits), targets).double()
    times = exit_times(logits, policy, chosen.threshold)
    answered = right.gather(0, times[None] - 1)
    mean = float(times.double().mean())
    k = min(math.floor(mean), T - 1)
    fixed = (k + 1 - mean) * right[k - 1] + (mean - k) * right[k]
    return {
        "policy": policy,
        "threshold": chosen.threshold,
        "heldout_drop": chosen.drop,
        "heldout_mean_exit": chosen.mean_exit,
        "timesteps": T,
        "mean_exit": mean,
        "leaving": (torch.bincount(times, minlength=T + 1)[1:] / len(times)).tolist(),
        "accuracy": 100 * float(answered.mean()),
        "accuracy_of_all": 100 * float(right[-1].mean()),
        "drop": _points(right[-1:], answered),
        "accuracy_of_fixed": 100 * float(fixed.mean()),
        "gain_over_fixed": _points(answered, fixed[None]),
    }


def seconds_row(
    run: RunFolder, threshold: float, batch_size: int, rounds: int, anns: Sequence[Path] = ()
) -> dict[str, Any]:
    """Seconds of test batches: all timesteps as a sequence, all of them step by step, and with early exit, plain and compiled.

    Ordinary networks take part under the names of their folders.

    A round is one batch, or as many small ones as have 64 samples, the same for all in turn.
    """
    config, model = run.config(), load(run.path)
    dataset = dataset_of(config)
    T, samples = config.timesteps, max(batch_size, _SAMPLES_OF_A_ROUND)
    contenders: dict[str, Callable[[Tensor], Any]] = {
        "sequence": partial(_sequence, model, None if dataset.kind == "events" else T),
        "steps": AnytimeClassifier(model, POLICY, math.inf, T),
        "exit": AnytimeClassifier(model, POLICY, threshold, T),
        "steps_compiled": AnytimeClassifier(model, POLICY, math.inf, T, compiled=True),
        "exit_compiled": AnytimeClassifier(model, POLICY, threshold, T, compiled=True),
    }
    contenders |= {str(folder): partial(_sequence, load(folder), 1) for folder in anns}
    taken: list[dict[str, float]] = []
    for r in range(-1, rounds):  # the first compiles
        inputs = dataset.test.inputs(torch.arange(samples) + max(r, 0) * samples % (len(dataset.test) - samples))
        batches = as_network_input(inputs, dataset.kind).split(batch_size, dim=1 if dataset.kind == "events" else 0)
        first = r % len(contenders)
        names = list(contenders)[first:] + list(contenders)[:first]
        taken.append({name: _seconds(contenders[name], batches) for name in names})
    medians = {name: _spread([row[name] for row in taken[1:]]) for name in contenders}
    ratios = {name: _spread([row[name] / row["sequence"] for row in taken[1:]]) for name in list(contenders)[1:]}
    return {"batch_size": batch_size, "samples": samples, "rounds": rounds, "seconds": medians, "ratios": ratios}


def _sequence(model: Temporal, timesteps: int | None, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x, timesteps)


def _seconds(classify: Callable[[Tensor], Any], batches: Sequence[Tensor]) -> float:
    """Seconds of a batch, as the mean of a round."""
    start = time.perf_counter()
    for x in batches:
        classify(x)
    return (time.perf_counter() - start) / len(batches)


def _points(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """ours - theirs of one network in percentage points, with the interval for other images; scores `[1, N]`."""
    found = 100 * (ours - theirs)[0]
    mean, half = float(found.mean()), 1.96 * float(found.std()) / len(found) ** 0.5
    return {"difference": mean, "low": mean - half, "high": mean + half}


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def _interval(found: dict[str, float]) -> str:
    return f"{found['difference']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
