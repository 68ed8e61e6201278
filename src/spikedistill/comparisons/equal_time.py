"""As many epochs for every method as fit into the training time of the first, by a finished comparison of the same methods."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..config import Config
from ..errors import UserError
from ..evaluation.comparison.records import LostRun, Records, RunRecord
from ..training.run import changed_settings
from .planned_runs import Runs, is_taught, with_teachers
from .tuning import every_trial_diverged

Ended = Sequence[Sequence[RunRecord | LostRun]]


def finished_there(configs: Sequence[Config], seeds: Sequence[int], comparison: Path, teacher_seed: int) -> Ended:
    """How the runs of each method ended in a finished comparison of the same methods; at least one of each was trained.

    Args:
        configs: one per method.
        seeds: of the runs there.
        comparison: its folder.
        teacher_seed: of the teacher there.

    Raises:
        FileNotFoundError: if a method or seed was not trained there.
        UserError: if not all have the same training samples, or one has no run there because its trials or teacher diverged.
    """
    for config in configs:
        if (config.data.train_samples, config.data.holdout) != (configs[0].data.train_samples, configs[0].data.holdout):
            raise UserError(
                f"--equal-time: {configs[0].recipe} and {config.recipe} train on different samples: give all the same "
                "--data.train-samples and --data.holdout"
            )
    before, found = Runs(Records(comparison)), []
    for config in configs:
        planned = [with_teachers([config], seed, teacher_seed, comparison, config.epochs)[-1] for seed in seeds]
        ended = [] if every_trial_diverged(config, seeds[0], before) else [before.outcome(run) for run in planned]
        ended = [run for run in ended if isinstance(run, RunRecord) or run.status == "diverged"]
        if not ended:
            raise UserError(
                f"{comparison} has no run of {config.recipe}, because its trials or its teacher diverged: leave it out"
            )
        found.append(ended)
    return found


def with_weights_of(configs: Sequence[Config], ended: Ended) -> list[Config]:
    """The configurations with the objectives, and so the weights, that they had there."""
    return [
        config.model_copy(update={"objective": runs[0].config.objective})
        for config, runs in zip(configs, ended, strict=True)
    ]


def teacher_shares(configs: Sequence[Config], ended: Ended) -> list[float]:
    """The training time there of each method's teacher and of the network that it starts from, as a share of the baseline's.

    It is 0 for a method without them.

    Raises:
        UserError: if a time is unknown, or they take as long as the baseline.
    """
    whole, shares = _seconds(configs[0], ended[0], "training_s"), []
    for config, runs in zip(configs, ended, strict=True):
        given = is_taught(config) or config.init_from is not None
        share = _seconds(config, runs, "teacher_s") / whole if given else 0.0
        if share >= 1:
            raise UserError(
                f"the teacher of {config.recipe}, or what it starts from, was trained for {share:.2f} times as long as "
                f"{configs[0].recipe}, so that no time is left for the method: train more epochs, or leave --count-teacher out"
            )
        shares.append(share)
    return shares


def _seconds(config: Config, runs: Sequence[RunRecord | LostRun], key: str) -> float:
    known = [run.cost[key] for run in runs if isinstance(run, RunRecord) and key in run.cost]
    if not known:
        raise UserError(
            f"--count-teacher: the finished comparison has no {key} of {config.recipe}: train it again, with a teacher, and an "
            "--init-from, whose runs know their time"
        )
    return float(np.median(known))


def in_equal_time(configs: Sequence[Config], speeds: Sequence[float], taken: Sequence[float]) -> list[Config]:
    """The configurations with as many epochs each, one at least, as fit into the training time of the first at these speeds.

    Args:
        configs: one per method.
        speeds: in images per second.
        taken: the share of that time that each method's teacher takes.
    """
    epochs = [
        max(1, round(configs[0].epochs * (1 - share) * speed / speeds[0]))
        for speed, share in zip(speeds, taken, strict=True)
    ]
    return [config.model_copy(update={"epochs": count}) for config, count in zip(configs, epochs, strict=True)]


def take_over(planned: Sequence[Config], finished: Records, records: Records) -> None:
    """Take over the runs of a finished comparison that have the same settings and teacher as those planned here."""
    others = {config.run_folder for config in planned}  # than those that are taken
    for config in planned:  # teachers come before their students
        record = records.find_in(finished, config.run_folder)
        if record and config.teacher not in others and not changed_settings(config, record.config):
            others.discard(config.run_folder)
            if records.find(config.run_folder) is None:
                records.add(config.run_folder, record)
