"""The same small tuning budget for every method: its weights times 0.5, 1 and 2, scored on held-out training samples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import UserError
from ..evaluation.comparison.records import LostRun, RunRecord
from ..files import write_rows
from ..objectives import create_objective, objective_options, objective_weights
from .planned_runs import Runs, with_teachers

FACTORS = (1.0, 0.5, 2.0)
HOLDOUT = 0.1


def trials(config: Config, seed: int) -> dict[float, Config]:
    """The trials that choose a method's weights, by factor: none if it has no weight.

    All weights of the objective are multiplied by the factor; a factor that gives values the objective refuses, such as
    a share above 1, is left out. A tenth of the training set is held out, unless the configuration sets another share.

    Args:
        config: of the method.
        seed: the seed of all trials.
    """
    options = {**objective_options(config.objective.name), **config.objective.options}
    weights = objective_weights(config.objective.name, **options)
    found = {}
    for factor in FACTORS if weights else ():
        scaled = options | {name: factor * value for name, value in weights.items()}
        try:
            create_objective(config.objective.name, **scaled)
        except UserError:
            continue
        changes: dict[str, Any] = {
            "recipe": config.recipe.with_change(f"weights={factor:g}"),
            "seed": seed,
            "objective": config.objective.model_copy(update={"options": scaled}),
            "data": config.data.model_copy(update={"holdout": config.data.holdout or HOLDOUT}),
        }
        found[factor] = config.model_copy(update=changes)
    return found


def choose(
    config: Config, finished: Mapping[float, Config], areas: Mapping[float, float | None]
) -> tuple[Config | None, list[dict[str, Any]]]:
    """The method with the weights that have the best mean accuracy over k on held-out samples; the first of equal ones.

    Args:
        config: of the method.
        finished: its trials.
        areas: that accuracy of each trial, in percent; None if it diverged, which is the worst.

    Returns:
        The configuration, None if every trial diverged, and a row for each trial:
        `{method, factor, <weights>, heldout_area, chosen}`.
    """
    if not finished:
        return config, []
    measured = {factor: area for factor in finished if (area := areas[factor]) is not None}
    best = max(measured, key=measured.__getitem__, default=None)
    rows = []
    for factor, trial in sorted(finished.items()):
        weights = objective_weights(trial.objective.name, **trial.objective.options)
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
    if best is None:
        return None, rows
    return config.model_copy(update={"objective": finished[best].objective}), rows


def tuned(configs: Sequence[Config], seed: int, runs: Runs) -> tuple[list[Config], dict[str, LostRun]]:
    """Every method with the weights that were best on held-out samples, and the names of methods whose trials all
    diverged.

    The trials are in the folder `tuning`, their figures in `tuning.csv`.

    Raises:
        RunFailed: if a trial failed.
    """
    out = runs.records.folder
    tried = [trials(config, seed) for config in configs]
    planned = _planned(tried, seed, out)
    runs.train(planned)
    of_recipe = {run.recipe: run for run in planned}
    chosen: list[Config] = []
    rows: list[dict[str, Any]] = []
    lost: dict[str, LostRun] = {}
    for config, of_one in zip(configs, tried, strict=True):
        ended = {factor: runs.outcome(of_recipe[trial.recipe]) for factor, trial in of_one.items()}
        best, of_config = choose(config, of_one, {factor: _heldout_area(run) for factor, run in ended.items()})
        if best is None:
            first = next(run for run in ended.values() if isinstance(run, LostRun))
            lost[config.recipe] = replace(first, reason=f"with every factor on its weights, first: {first.reason}")
        chosen.append(best or config)
        rows += of_config
    if rows:
        write_rows(out / "tuning.csv", rows)
    return chosen, lost


def every_trial_diverged(config: Config, seed: int, runs: Runs) -> bool:
    """Whether a comparison has trials of a method's weights, and none of them is finished."""
    of_method = trials(config, seed)
    names = {trial.recipe for trial in of_method.values()}
    planned = [run for run in _planned([of_method], seed, runs.records.folder) if run.recipe in names]
    return bool(planned) and all(isinstance(runs.find(trial), LostRun) for trial in planned)


def _planned(tried: Sequence[Mapping[float, Config]], seed: int, out: Path) -> list[Config]:
    """The trials of methods, and their teachers, in their order."""
    all_trials = [trial for of_one in tried for trial in of_one.values()]
    return with_teachers(all_trials, seed, seed, out / "tuning", all_trials[0].epochs) if all_trials else []


def _heldout_area(run: RunRecord | LostRun) -> float | None:
    """The accuracy that a trial is scored by; None if it diverged.

    Raises:
        UserError: if no samples were held out.
    """
    if isinstance(run, LostRun):
        return None
    if run.heldout_area is None:
        raise UserError(
            f"{run.config.recipe}, seed {run.config.seed}, has no accuracy on held-out samples: evaluate it again"
        )
    return run.heldout_area
