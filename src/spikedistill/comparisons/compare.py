"""Compare several methods over several seeds, under equal conditions."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..config import Config
from ..errors import UserError
from ..evaluation.comparison.comparison import Comparison
from ..evaluation.comparison.leaderboard import finished
from ..evaluation.comparison.records import LostRun, Records, RunRecord
from ..evaluation.comparison.teachers import Crossed, over_teachers
from ..files import alone_in, write_rows
from ..recipe_name import RecipeName
from ..report import write_comparison, write_paper_files
from ..run_folder import RunDiverged
from .checks import check_settings, check_trainable, quartered, seeds_of_teachers
from .cluster import Cluster
from .equal_time import finished_there, in_equal_time, take_over, teacher_shares, with_weights_of
from .folder import begin, check_own
from .planned_runs import Runs, is_taught, with_teachers, without_foreign_settings
from .side_by_side import Processes
from .speeds import relative_speeds
from .tuning import tuned

QUARTER = "quarter"  # folder of the comparison after a quarter of the epochs


class _Teachers(NamedTuple):
    """The teachers that a comparison trains: their seeds, and for how many epochs."""

    seeds: Sequence[int]
    epochs: int


def compare(
    configs: Sequence[Config],
    seeds: Sequence[int],
    out: Path | str,
    *,
    equal_time: Path | str | None = None,
    count_teacher: bool = False,
    tune: bool = False,
    jobs: int = 1,
    cluster: str | None = None,
    retry_diverged: bool = False,
    two_budgets: bool = False,
    teacher_seeds: Sequence[int] = (),
    command: str | None = None,
) -> Comparison:
    """Train every configuration with every seed, and compare them; finished runs are skipped and stopped ones go on.

    A run that diverges has no numbers and is not trained again. Its students are not trained. All other runs are compared.

    Each run has a separate process, so that its peak memory is measured separately. `records.jsonl` keeps the results
    of each run that are compared, a few kilobytes a run. If that file is in the folder when a comparison is repeated,
    none of these runs is trained again. For objectives with a teacher the ReLU twin of the network is trained first,
    with the first seed, unless `teacher` names another network.

    Args:
        configs: one per method; the first is the baseline.
        seeds: the seeds that every method is trained with.
        out: folder of the comparison; a run is written to `<recipe>/seed<k>` in it, next to them records.jsonl, leaderboard.csv,
            runs.csv and timesteps.csv, regret.csv if methods were trained at several T, chosen.csv if some rank timesteps, the
            teachers.csv with several teachers, the page report.html, and for papers the tables and figures of
            `spikedistill.report.write_paper_files`.
        equal_time: folder of a finished comparison of the same methods; each then gets the epochs that fit into the training time
            of the first, and its objective in that comparison. Runs that would equal those of the finished comparison
            are not trained again. The training speed of each is measured first, in turn, and kept in speeds.csv; see
            `relative_speeds`.
        count_teacher: in equal time, take the training time of its teacher, and of the network that it starts from, off the time
            of a method.
        tune: choose the weights of every method first: times 0.5, 1 or 2, by the accuracy on held-out training samples after one
            run each with the first seed. The runs are in `tuning`, their numbers in tuning.csv.
        jobs: how many runs to train at a time: on a CPU each with its share of the cores, with several GPUs on one each. Small
            networks then take less time in all, but the measured speeds are those of runs at the same time. On a cluster: so many
            on each of its GPUs, or without GPUs on each node.
        cluster: the address of a Ray cluster that trains the runs, such as "10.0.0.1:6379", or "auto" on one of its nodes. All
            nodes must see `out`. What a lost node trained is trained again, from its last checkpoint.
        retry_diverged: train runs again that diverged here, from their last good checkpoint.
        two_budgets: train every method a second time, for a quarter of its epochs, as a comparison in the folder `quarter`. The
            leaderboard then has places, and one method is before another only where that holds for both.
        teacher_seeds: seeds of teachers; every taught method is trained with each of them, for each seed. Its accuracies are then
            means over teachers, and their intervals are for these teachers. A teacher that diverged is left out, and so is a seed
            that is not finished with each of the others. Default: one, with the first of the seeds.
        command: what repeats the comparison, for its page.

    Returns: The runs and the tables that are made from them.

    Raises:
        UserError: for fewer than two methods, a recipe named twice, several data sets, a precision left open, several jobs of
            several devices, a run in `out` that was begun with other settings, different training samples in equal
            time, epochs that have no quarter, seeds of teachers that no method needs, or settings that do not fit each other.
            All this is checked before training, but with `tune` only the settings of its trials.
        FileNotFoundError: if a method was not trained in `equal_time`, or the data set is missing.
        FileExistsError: if `out` holds files that the comparison would overwrite and that no comparison wrote.
        BlockingIOError: if another process compares in the same folder.
        RunFailed: if a run failed; what is finished stays.
        RunDiverged: if no run is left to be compared.
    """
    out, equal_time = Path(out), None if equal_time is None else Path(equal_time)
    if equal_time is not None and tune:
        raise UserError("--equal-time takes the weights that were tuned in its folder: leave --tune out")
    if count_teacher and equal_time is None:
        raise UserError("--count-teacher changes the epochs in equal time: give --equal-time FOLDER too")
    if jobs < 1 or (jobs > 1 and any(config.trainer.devices > 1 for config in configs)):
        raise UserError(f"jobs is {jobs}, expected 1, or more if every run trains on one device")
    check_settings(configs, seeds, equal_time is not None, cluster is not None)
    check_own(out)
    taught_by = seeds_of_teachers(configs, teacher_seeds, seeds[0])
    if equal_time is not None:
        ended = finished_there(configs, seeds, equal_time, taught_by[0])
        configs = with_weights_of(configs, ended)
        taken = teacher_shares(configs, ended) if count_teacher else [0.0] * len(configs)
    quarter = quartered(configs) if two_budgets else None
    workers = Processes(jobs) if cluster is None else Cluster(cluster, jobs)
    budgets = {out: configs} if quarter is None else {out / QUARTER: quarter, out: configs}
    for folder, of_budget in budgets.items():
        check_own(folder)
        check_trainable(of_budget, seeds, taught_by, Runs(Records(folder), workers, retry_diverged))
    with contextlib.ExitStack() as locks:
        for folder in reversed(budgets):
            locks.enter_context(alone_in(folder))
            check_own(folder)  # again, because from here on no other process can begin in it
            begin(folder)
        teachers = {folder: _Teachers(taught_by, of_budget[0].epochs) for folder, of_budget in budgets.items()}
        if equal_time is not None:
            speeds = relative_speeds([without_foreign_settings(config) for config in configs], out / "speeds.csv")
            budgets = {folder: in_equal_time(of_budget, speeds, taken) for folder, of_budget in budgets.items()}
        every = {folder: Runs(Records(folder), workers, retry_diverged) for folder in budgets}
        for folder, of_budget in () if tune else budgets.items():  # of all budgets before the first is trained
            every[folder].check(
                run for planned in _planned(of_budget, seeds, teachers[folder], folder).values() for run in planned
            )
        comparison = None
        for folder, of_budget in budgets.items():
            crossed = _trained(of_budget, seeds, teachers[folder], every[folder], equal_time, tune)
            comparison = _compared(crossed, comparison)
            _write(comparison, folder, command if folder == out else None)
        assert comparison is not None
        return comparison


def _compared(crossed: Crossed, shorter: Comparison | None) -> Comparison:
    """The runs as a comparison, each method's over its teachers.

    Raises:
        RunDiverged: if no run is left to be compared.
    """
    found = {name: over_teachers([*by_teacher.values()]) for name, by_teacher in crossed.items()}
    _check_some_finished(found)
    several = {name: by_teacher for name, by_teacher in crossed.items() if len(by_teacher) > 1}
    return Comparison.of(found, shorter=shorter, crossed=several)


def _check_some_finished(found: Mapping[RecipeName, Sequence[RunRecord | LostRun]]) -> None:
    """Refuse to compare nothing.

    Raises:
        RunDiverged: if no run is finished; the message says why.
    """
    lost = [run for runs in found.values() for run in runs if isinstance(run, LostRun)]
    if not finished(found):
        first = lost[0]
        raise RunDiverged(
            f"none of the {len(lost)} runs is finished, so there is nothing to compare. {first.config.recipe}, seed "
            f"{first.config.seed}: {first.status}, {first.reason}. --retry-diverged trains those that diverged again"
        )


def _trained(
    configs: Sequence[Config],
    seeds: Sequence[int],
    teachers: _Teachers,
    runs: Runs,
    equal_time: Path | None,
    tune: bool,
) -> dict[RecipeName, dict[int, list[RunRecord | LostRun]]]:
    """The outcome of every run, by method and by the seed of its teacher; methods without a teacher have the first alone."""
    lost: dict[str, LostRun] = {}
    if tune:
        configs, lost = tuned(configs, seeds[0], runs)
    to_train = [config for config in configs if config.recipe not in lost]
    planned = _planned(to_train, seeds, teachers, runs.records.folder)
    every = [run for of_teacher in planned.values() for run in of_teacher]
    if equal_time is not None:
        take_over(every, Records(equal_time), runs.records)
    runs.train(every)
    found: dict[RecipeName, dict[int, list[RunRecord | LostRun]]] = {}
    for config in configs:
        if config.recipe in lost:
            seeded = [config.model_copy(update={"seed": seed}) for seed in seeds]
            found[config.recipe] = {teachers.seeds[0]: [replace(lost[config.recipe], config=run) for run in seeded]}
            continue
        met = teachers.seeds if is_taught(config) else teachers.seeds[:1]
        of_run = {(teacher, run.recipe, run.seed): run for teacher in met for run in planned[teacher]}
        found[config.recipe] = {
            teacher: [runs.outcome(of_run[teacher, config.recipe, seed]) for seed in seeds] for teacher in met
        }
    return found


def _planned(
    configs: Sequence[Config], seeds: Sequence[int], teachers: _Teachers, out: Path
) -> dict[int, list[Config]]:
    """The runs of the comparison in `out` by the seed of their teacher, in the order in which they must happen."""
    first = teachers.seeds[0]
    return {
        teacher: [run for seed in seeds for run in with_teachers(configs, seed, teacher, out, teachers.epochs, first)]
        for teacher in teachers.seeds
    }


def _write(comparison: Comparison, out: Path, command: str | None) -> None:
    """Everything that a comparison writes into its folder, except its runs and their records."""
    for name, rows in comparison.tables.items():
        if rows:
            write_rows(out / name, rows)
        else:
            (out / name).unlink(missing_ok=True)  # of an earlier comparison here
    write_paper_files(out, comparison)
    write_comparison(out, comparison, command=command)
