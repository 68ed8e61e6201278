"""The accuracies that papers report, to be shown next to measured ones."""

import csv
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ...recipe_name import RecipeName
from .records import RunRecord


def published_numbers(dataset: str | None = None, *objectives: str) -> list[dict[str, str]]:
    """Test accuracies that papers report, each with its source and the reasons to doubt it.

    None of them was measured with this library. Networks, augmentation, schedules and the choice of the reported epoch differ from
    paper to paper, so do not read them as a ranking.

    Args:
        dataset: name of a data set, such as "cifar100" or "CIFAR-100"; default all.
        objectives: names of objectives; if given, only rows of these methods as published, without ablations,
            perturbations or early exit.

    Returns:
        Rows `{dataset, network, method, T, k, accuracy, protocol, augmentation, source, doubt, objective}`, all text as it was
        published. Accuracy is in percent. `doubt` is empty if there is no reason to doubt a number. `objective` is the name of
        the objective if the row is of exactly that method, on a network that the source names. No rows for a data set that no
        paper uses.
    """
    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return [
        row
        for row in csv.DictReader(text.splitlines())
        if (dataset is None or _plain(row["dataset"]) == _plain(dataset))
        and (not objectives or row["objective"] in objectives)
    ]


def _plain(name: str) -> str:
    return re.sub(r"\W|_", "", name).lower()


def beside_published(
    runs: Mapping[RecipeName, Sequence[RunRecord]], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The accuracies that papers report on the data set of a comparison, next to those of the comparison.

    Args:
        runs: the finished runs of each method.
        rows: the rows of the leaderboard that have numbers.

    Returns:
        Rows of `published_numbers` with `ours`, the method of the comparison that is the published one, and
        `ours_accuracy` in percent after `ours_k` timesteps: as many as the published network was trained with, or the
        nearest number that was scored. A variant of the method, another gradient rule or network, and runs under an
        unofficial protocol do not count as the published method.
    """
    K = max(record.config.timesteps for records in runs.values() for record in records)
    found = []
    for row in rows:
        name: RecipeName = row["method"]
        config = runs[name][0].config
        unofficial = config.protocol is not None and config.protocol.endswith("-unofficial")
        published = {"twsd": "twce-twsd"}.get(name.method, name.method)
        if name.changes or published != config.objective.name or unofficial:
            continue
        for number in published_numbers(config.data.name, config.objective.name):
            k = min(K, int(number["T"] or K))
            found.append(number | {"ours": row["method"], "ours_k": k, "ours_accuracy": row[f"accuracy_{k}"]})
    return found
