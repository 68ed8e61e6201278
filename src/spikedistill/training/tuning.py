"""The same small budget for every method of a comparison: its weights times 0.5, 1 and 2, judged on held-out training samples."""

from collections.abc import Mapping
from typing import Any

from ..config import Config
from ..objectives import create_objective, objective_options

FACTORS = (1.0, 0.5, 2.0)
HOLDOUT = 0.1
WEIGHTS = ("alpha", "beta", "gamma", "epsilon", "weight", "mse_weight", "s2w_weight", "w2s_weight")


def trials(config: Config, seed: int) -> dict[float, Config]:
    """The runs that choose a method's weights, by factor: none where it has no weight.

    All weights of the objective are multiplied by the factor; one that the objective refuses, such as a share above 1, is left out.
    A tenth of the training set is held out, unless the configuration holds out a share of its own.

    Args:
        config: of the method.
        seed: the one seed of the runs.
    """
    options = {**objective_options(config.objective.name), **config.objective.options}
    weights = {name: value for name, value in options.items() if name in WEIGHTS and isinstance(value, float) and value}
    found = {}
    for factor in FACTORS if weights else ():
        scaled = options | {name: factor * value for name, value in weights.items()}
        try:
            create_objective(config.objective.name, **scaled)
        except ValueError:
            continue
        changes: dict[str, Any] = {
            "recipe": f"{config.recipe},weights={factor:g}",
            "seed": seed,
            "objective": config.objective.model_copy(update={"options": scaled}),
            "data": config.data.model_copy(update={"holdout": config.data.holdout or HOLDOUT}),
        }
        found[factor] = config.model_copy(update=changes)
    return found


def choose(
    config: Config, finished: Mapping[float, Config], areas: Mapping[float, float]
) -> tuple[Config, list[dict[str, Any]]]:
    """The method with the weights whose mean accuracy over k was best on the held-out samples; of equal ones the first.

    Args:
        config: of the method.
        finished: its trials.
        areas: that accuracy of each trial, in percent.

    Returns:
        The configuration, and a row for each trial: `{method, factor, <weights>, heldout_area, chosen}`.
    """
    if not finished:
        return config, []
    best = max(finished, key=lambda factor: areas[factor])
    rows = []
    for factor, trial in sorted(finished.items()):
        weights = {name: value for name, value in trial.objective.options.items() if name in WEIGHTS}
        shown = " ".join(f"{name}={value:g}" for name, value in weights.items())
        rows.append(
            {
                "method": config.recipe,
                "factor": factor,
                "weights": shown,
                "heldout_area": areas[factor],
                "chosen": factor == best,
            }
        )
    return config.model_copy(update={"objective": finished[best].objective}), rows
