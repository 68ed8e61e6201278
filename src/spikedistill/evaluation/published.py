"""What papers report, to be shown beside what was measured."""

import csv
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from typing import Any

from .records import RunRecord


def published_numbers(dataset: str | None = None, objectives: Collection[str] | None = None) -> list[dict[str, str]]:
    """Test accuracies that papers report, with where each was read and why it may be off.

    None of them was measured with this library. Networks, augmentation, schedules and the choice of the reported epoch differ from
    paper to paper, so they are no ranking.

    Args:
        dataset: name of a data set, such as "cifar100"; all where left out.
        objectives: names of the catalogue; then rows of these methods as they are published, without ablations, perturbations or
            early exit.

    Returns:
        Rows `{dataset, network, method, T, k, accuracy, protocol, augmentation, source, doubt, objective}`, all text as it was
        published; accuracy in percent, `doubt` empty where nothing speaks against a number, `objective` the name in the catalogue
        where the row is of that method and nothing more. None for a data set that no paper has.
    """
    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return [
        row
        for row in csv.DictReader(text.splitlines())
        if (dataset is None or row["dataset"].lower().replace("-", "") == dataset)
        and (objectives is None or row["objective"] in objectives)
    ]


def beside_published(
    runs: Mapping[str, Sequence[RunRecord]], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What papers report on the data set of a comparison, beside what came out of it.

    Args:
        runs: the records of each method.
        rows: its leaderboard.

    Returns:
        Rows of `published_numbers` with `ours`, the name of the first method here that has the objective, and `ours_accuracy`, in
        percent after the T timesteps that it was trained with.
    """
    found, seen = [], set[str]()
    for row in rows:
        config = runs[row["method"]][0].config
        if config.objective.name not in seen:
            seen.add(config.objective.name)
            ours = {"ours": row["method"], "ours_accuracy": row[f"accuracy_{config.timesteps}"]}
            found += [number | ours for number in published_numbers(config.data.name, [config.objective.name])]
    return found
