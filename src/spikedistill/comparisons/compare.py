"""Compare several methods over several seeds, under equal conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..config import Config
from ..errors import UserError
from ..evaluation.comparison.comparison import Comparison
from ..evaluation.comparison.leaderboard import finished
from ..evaluation.comparison.records import LostRun, Records, RunRecord
from ..files import alone_in, write_rows
from ..recipe_name import RecipeName
from ..report import write_comparison, write_paper_files
from ..run_folder import RunDiverged, RunFolder
from ..setting_types import SEEDS
from ..training.plan import make_plan, plan_without_teacher
from ..training.processes import check_processes
from ..training.run import changed_settings
from .cluster import Cluster
from .folder import begin, check_own
from .planned_runs import Runs, is_taught, with_teachers, without_foreign_settings
from .side_by_side import Processes
from .speeds import relative_speeds
from .tuning import every_trial_diverged, tuned


def compare(
    configs: Sequence[Config],
    seeds: Sequence[int],
    out: Path | str,
    *,
    equal_time: Path | str | None = None,
    tune: bool = False,
    jobs: int = 1,
    cluster: str | None = None,
    retry_diverged: bool = False,
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
            page report.html, and for papers the tables and figures of `spikedistill.report.write_paper_files`.
        equal_time: folder of a finished comparison of the same methods; each then gets the epochs that fit into the training time
            of the first, and its objective in that comparison. Runs that would equal those of the finished comparison
            are not trained again. The training speed of each is measured first, in turn, and kept in speeds.csv; see
            `relative_speeds`.
        tune: choose the weights of every method first: times 0.5, 1 or 2, by the accuracy on held-out training samples after one
            run each with the first seed. The runs are in `tuning`, their numbers in tuning.csv.
        jobs: how many runs to train at a time: on a CPU each with its share of the cores, with several GPUs on one each. Small
            networks then take less time in all, but the measured speeds are those of runs at the same time. On a cluster: so many
            on each of its GPUs, or without GPUs on each node.
        cluster: the address of a Ray cluster that trains the runs, such as "10.0.0.1:6379", or "auto" on one of its nodes. All
            nodes must see `out`. What a lost node trained is trained again, from its last checkpoint.
        retry_diverged: train runs again that diverged here, from their last good checkpoint.
        command: what repeats the comparison, for its page.

    Returns: The runs and the tables that are made from them.

    Raises:
        UserError: for fewer than two methods, a recipe named twice, several data sets, a precision left open, several jobs of
            several devices, a run in `out` that was begun with other settings, different training samples in equal
            time, or settings that do not fit each other. All this is checked before training.
        FileNotFoundError: if a method was not trained in `equal_time`, or the data set is missing.
        FileExistsError: if `out` holds files that the comparison would overwrite and that no comparison wrote.
        BlockingIOError: if another process compares in the same folder.
        RunFailed: if a run failed; what is finished stays.
        RunDiverged: if no run is left to be compared.
    """
    out, equal_time = Path(out), None if equal_time is None else Path(equal_time)
    if equal_time is not None and tune:
        raise UserError("--equal-time takes the weights that were tuned in its folder: leave --tune out")
    names = [config.recipe for config in configs]
    if len(names) < 2 or len(set(names)) < len(names) or len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(
            f"a comparison takes two or more different recipes and different seeds; got {names} and {list(seeds)}"
        )
    if any(config.trainer.precision == "auto" for config in configs):
        raise UserError("--trainer.precision auto would choose for every run separately: name one, such as bf16-mixed")
    if any(config.data.most_batch_size is not None for config in configs):
        raise UserError(
            "--data.batch-size auto would choose for every run separately: give one number for all, such as 128"
        )
    if min(seeds) < 0 or max(seeds) >= SEEDS:
        raise UserError(f"--seeds are numbers from 0 on, below {SEEDS}; got {list(seeds)}")
    data = [config.data.model_dump(include={"name", "root", "size", "slicing"}) for config in configs]
    if other := next((place for place in data if place != data[0]), None):
        raise UserError(f"a comparison is of the same test samples; got those of {data[0]} and of {other}")
    untaught = (config for config in configs if config.protocol and config.teacher is None and is_taught(config))
    if (config := next(untaught, None)) is not None:
        ann = f"{config.data.name}-ann"
        raise UserError(
            f"{config.recipe} follows --protocol {config.protocol}, whose teacher is a separate run: train it,  "
            f"spikedistill train {ann} --protocol {config.protocol}, and pass it, --teacher runs/{ann}/seed0"
        )
    if cluster is not None and equal_time is not None:
        raise UserError("--equal-time measures the speeds of methods on this machine: leave --cluster out")
    if jobs < 1 or (jobs > 1 and any(config.trainer.devices > 1 for config in configs)):
        raise UserError(f"jobs is {jobs}, expected 1, or more if every run trains on one device")
    check_own(out)
    if equal_time is not None:
        configs = weights_of(configs, seeds, equal_time)
    workers = Processes(jobs) if cluster is None else Cluster(cluster, jobs)
    _check_trainable(configs, seeds, Runs(Records(out), workers, retry_diverged))
    with alone_in(out):
        check_own(out)  # again, because from here on no other process can begin in it
        begin(out)
        if equal_time is not None:
            own = [without_foreign_settings(config) for config in configs]
            configs = in_equal_time(configs, relative_speeds(own, out / "speeds.csv"))
        runs = Runs(Records(out), workers, retry_diverged)
        found = _trained(configs, seeds, runs, equal_time, tune)
        _check_some_finished(found)
        comparison = Comparison.of(found)
        _write(comparison, out, command)
        return comparison


def _check_trainable(configs: Sequence[Config], seeds: Sequence[int], runs: Runs) -> None:
    """Find what cannot be trained before anything is written.

    Raises:
        UserError: for settings of a method that do not fit each other, and for a teacher that no method learns from.
        FileNotFoundError: if its data set is missing, or the teacher that is named.
        FileExistsError: if the folder of a run that is to begin holds something else.
    """
    given = next((config.teacher for config in configs if config.teacher is not None), None)
    if given is not None and all(without_foreign_settings(config).teacher is None for config in configs):
        raise UserError(f"none of the methods learns from a teacher: leave --teacher {given} out")
    for config in configs:
        check_processes(config.trainer)
        folders = [runs.records.folder / config.recipe / f"seed{seed}" for seed in seeds]
        left = [RunFolder(folder) for folder in folders if runs.is_left(folder)]
        if wrong := next((run for run in left if not run.is_free() and not run.is_run()), None):
            raise FileExistsError(f"{wrong.path} is not empty, and it is no run that has begun: choose another --out")
        if left:
            own = without_foreign_settings(config)
            plan_without_teacher(own) if own.teacher is None else make_plan(own)


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
    configs: Sequence[Config], seeds: Sequence[int], runs: Runs, equal_time: Path | None, tune: bool
) -> dict[RecipeName, list[RunRecord | LostRun]]:
    """The outcome of every run of a comparison, by method."""
    out, epochs = runs.records.folder, configs[0].epochs
    lost: dict[str, LostRun] = {}
    if tune:
        configs, lost = tuned(configs, seeds[0], runs)
    to_train = [config for config in configs if config.recipe not in lost]
    planned = [run for seed in seeds for run in with_teachers(to_train, seed, seeds[0], out, epochs)]
    if equal_time is not None:
        _take_over(planned, Records(equal_time), runs.records)
    runs.train(planned)
    of_folder = {run.run_folder: run for run in planned}
    found: dict[RecipeName, list[RunRecord | LostRun]] = {}
    for config in configs:
        if config.recipe in lost:
            seeded = [config.model_copy(update={"seed": seed}) for seed in seeds]
            found[config.recipe] = [replace(lost[config.recipe], config=run) for run in seeded]
        else:
            folders = [out / config.recipe / f"seed{seed}" for seed in seeds]
            found[config.recipe] = [runs.outcome(of_folder[folder]) for folder in folders]
    return found


def _write(comparison: Comparison, out: Path, command: str | None) -> None:
    """Everything that a comparison writes into its folder, except its runs and their records."""
    for name, rows in comparison.tables.items():
        if rows:
            write_rows(out / name, rows)
        else:
            (out / name).unlink(missing_ok=True)  # of an earlier comparison here
    write_paper_files(out, comparison)
    write_comparison(out, comparison, command=command)


def _take_over(planned: Sequence[Config], finished: Records, records: Records) -> None:
    """Take over the runs of a finished comparison that have the same settings and teacher as those planned here."""
    others = {config.run_folder for config in planned}  # than those that are taken
    for config in planned:  # teachers come before their students
        record = records.find_in(finished, config.run_folder)
        if record and config.teacher not in others and not changed_settings(config, record.config):
            others.discard(config.run_folder)
            if records.find(config.run_folder) is None:
                records.add(config.run_folder, record)


def weights_of(configs: Sequence[Config], seeds: Sequence[int], comparison: Path) -> list[Config]:
    """The configurations with the objectives, and so the weights, that they had in a finished comparison of the same methods.

    Args:
        configs: one per method.
        seeds: of the runs there.
        comparison: its folder.

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
        planned = [with_teachers([config], seed, seeds[0], comparison, config.epochs)[-1] for seed in seeds]
        ended = [] if every_trial_diverged(config, seeds[0], before) else [before.outcome(run) for run in planned]
        ended = [run for run in ended if isinstance(run, RunRecord) or run.status == "diverged"]
        if not ended:
            raise UserError(
                f"{comparison} has no run of {config.recipe}, because its trials or its teacher diverged: leave it out"
            )
        found.append(config.model_copy(update={"objective": ended[0].config.objective}))
    return found


def in_equal_time(configs: Sequence[Config], speeds: Sequence[float]) -> list[Config]:
    """The configurations with as many epochs each, one at least, as fit into the training time of the first at these speeds."""
    epochs = [max(1, round(configs[0].epochs * speed / speeds[0])) for speed in speeds]
    return [config.model_copy(update={"epochs": count}) for config, count in zip(configs, epochs, strict=True)]
