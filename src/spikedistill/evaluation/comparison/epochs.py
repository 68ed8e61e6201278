"""Loss and accuracy of the methods of a comparison after each epoch of training."""

import math
from collections.abc import Mapping
from typing import Any

from .leaderboard import Methods, Rows, finished
from .records import RunRecord

# The first kind of samples on which every run has an accuracy after each epoch.
_SETS = ("test", "holdout", "train")


def scored_samples(methods: Methods) -> str:
    """The samples that `every_epoch` scores: "test", "holdout" or "train", the first that every finished run has."""
    runs = [run for records in finished(methods).values() for run in records]
    return next(name for name in _SETS if name == "train" or all(_scored(run, name) for run in runs))


def every_epoch(methods: Methods) -> Rows:
    """One row for each epoch of each method, over its finished runs.

    Args:
        methods: the runs of each method, one per seed.

    Returns:
        Rows `{method, epoch, loss, accuracy_1, accuracy_T}`. The loss is the cross-entropy in nats of all T timesteps together on
        the training batches, which objectives have in common; T is that of the method's training. Accuracies are in percent, on
        `scored_samples`, after the first timestep and after all T. Each is a mean over seeds, with the lowest and the highest seed
        in `<name>_low` and `<name>_high`. A key is absent if no run has a finite value of it.
    """
    samples, rows = scored_samples(methods), []
    for method, runs in finished(methods).items():
        found: dict[int, list[dict[str, float]]] = {}
        for run in runs:
            for epoch in run.metrics:
                found.setdefault(int(epoch.get("epoch", 0)), []).append(_figures(epoch, run.config.timesteps, samples))
        for number, seeds in sorted(found.items()):
            row: dict[str, Any] = {"method": method, "epoch": number}
            for name in ("loss", "accuracy_1", "accuracy_T"):
                if values := [figures[name] for figures in seeds if name in figures]:
                    row |= {name: math.fsum(values) / len(values)}
                    row |= {f"{name}_low": min(values), f"{name}_high": max(values)}
            if len(row) > 2:
                rows.append(row)
    return rows


def _scored(run: RunRecord, samples: str) -> bool:
    return bool(run.metrics) and all(
        _columns(run.config.timesteps, samples)["accuracy_T"] in row for row in run.metrics
    )


def _columns(T: int, samples: str) -> dict[str, str]:
    """The columns of metrics.csv."""
    last = "train_accuracy" if samples == "train" else f"{samples}_accuracy_{T}"
    return {"loss": f"ce_prefix_{T}", "accuracy_1": f"{samples}_accuracy_1" if T > 1 else last, "accuracy_T": last}


def _figures(epoch: Mapping[str, str], T: int, samples: str) -> dict[str, float]:
    """The finite figures of one epoch of one run."""
    found = {}
    for name, column in _columns(T, samples).items():
        try:
            value = float(epoch.get(column, "nan"))
        except ValueError:
            continue
        if math.isfinite(value):
            found[name] = value if name == "loss" else 100 * value
    return found
