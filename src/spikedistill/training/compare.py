"""Several methods and seeds on equal footing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..evaluation.comparison import chosen_timesteps, every_run, every_timestep, leaderboard, regrets
from ..evaluation.published import beside_published
from ..evaluation.records import Records, RunRecord
from ..files import alone_in, write_rows
from ..objectives import create_objective
from ..report import write_comparison, write_paper_files
from ..run_folder import RunFolder
from .plan import plan_without_teacher
from .run import changed_settings, check_same_run
from .side_by_side import train_side_by_side
from .speeds import relative_speeds
from .teacher import relu_twin
from .tuning import choose, trials


def compare(
    configs: Sequence[Config],
    seeds: Sequence[int],
    out: Path,
    *,
    equal_time: Path | None = None,
    tune: bool = False,
    jobs: int = 1,
    command: str | None = None,
) -> list[dict[str, Any]]:
    """Train every configuration with every seed, and compare them; finished runs are skipped and stopped ones go on.

    Each run has a process of its own, so that its peak memory is its own. What is compared of it is kept in `records.jsonl`, a few
    kilobytes a run: with that file in its folder, a comparison needs no run again, wherever it is repeated. Objectives that learn
    from a trained network get the ReLU twin of theirs, trained with the first seed, unless `teacher` names another.

    Args:
        configs: one per method; the first is the baseline.
        seeds: the seeds that every method is trained with.
        out: folder of the comparison; a run is written to `<recipe>/seed<k>` in it, and beside them records.jsonl, leaderboard.csv,
            runs.csv and timesteps.csv, where methods were trained at several T regret.csv, where some rank timesteps
            chosen.csv, the page report.html, and for papers the tables and figures of `spikedistill.report.write_paper_files`.
        equal_time: folder of a finished comparison of the same methods; each then gets the epochs that fit into the training time
            of the first, and the objective that it had there. Runs that this leaves as they are there are not trained again. How
            fast each trains is measured before, in turn, and kept in speeds.csv; see `relative_speeds`.
        tune: choose the weights of every method first: times 0.5, 1 or 2, by the accuracy on held-out training samples after one
            run each with the first seed. The runs are in `tuning`, their figures in tuning.csv.
        jobs: how many runs to train at a time: on a CPU each with its share of the cores, with several GPUs on one each. Small
            networks train faster so, all together, but the speeds that are measured are those of runs side by side.
        command: what repeats the comparison, for its page.

    Returns:
        The rows of the leaderboard; see `spikedistill.evaluation.comparison.leaderboard`.

    Raises:
        ValueError: for fewer than two methods, a recipe named twice, several data sets, a precision left open, several jobs of
            several devices, a run there that was begun with other settings, in equal time different training samples, or settings
            of one that do not fit each other. All this is found before anything is trained.
        FileNotFoundError: where a method was not trained in `equal_time`, or the data set is missing.
        BlockingIOError: where another process compares in the same folder.
        RunFailed: where a run failed; what is finished stays.
    """
    if equal_time is not None and tune:
        raise ValueError("--equal-time takes the weights that were tuned in its folder: leave --tune out")
    names = [config.recipe for config in configs]
    if len(names) < 2 or len(set(names)) < len(names) or len(set(seeds)) < len(seeds) or not seeds:
        raise ValueError(
            f"a comparison takes two or more different recipes and different seeds; got {names} and {list(seeds)}"
        )
    if any(config.trainer.precision == "auto" for config in configs):
        raise ValueError("--trainer.precision auto would choose for every run by itself: name one, such as bf16-mixed")
    if min(seeds) < 0:
        raise ValueError(f"--seeds are numbers from 0 on; got {list(seeds)}")
    data = [config.data.model_dump(include={"name", "root", "size", "slicing"}) for config in configs]
    if other := next((place for place in data if place != data[0]), None):
        raise ValueError(f"a comparison is of the same test samples; got those of {data[0]} and of {other}")
    if jobs < 1 or (jobs > 1 and any(config.trainer.devices > 1 for config in configs)):
        raise ValueError(f"jobs is {jobs}, expected 1, or more where every run trains on one device")
    if equal_time is not None:
        configs = weights_of(configs, seeds, equal_time)
    _check_trainable(configs, seeds, out)
    with alone_in(out):
        found = _trained(configs, seeds, out, equal_time, tune, jobs)
        return _written(found, seeds, out, command)


def _check_trainable(configs: Sequence[Config], seeds: Sequence[int], out: Path) -> None:
    """Find what cannot be trained before anything is written.

    Raises:
        ValueError: for settings of a method that do not fit each other.
        FileNotFoundError: where its data set is missing.
    """
    records = Records(out)
    for config in configs:
        if any(records.find(out / config.recipe / f"seed{seed}") is None for seed in seeds):
            plan_without_teacher(_without_foreign_settings(config))


def _trained(
    configs: Sequence[Config], seeds: Sequence[int], out: Path, equal_time: Path | None, tune: bool, jobs: int
) -> dict[str, list[RunRecord]]:
    """Every run of a comparison, by method."""
    if equal_time is not None:
        configs = in_equal_time(configs, relative_speeds(configs, out / "speeds.csv"))
    records = Records(out)
    if tune:
        configs = _tuned(configs, seeds[0], out, records, jobs)
    planned = [run for seed in seeds for run in _with_teachers(configs, seed, seeds[0], out)]
    if equal_time is not None:
        _take_over(planned, Records(equal_time), records)
    _train_all(planned, records, jobs)
    return {
        config.recipe: [_finished(records, out / config.recipe / f"seed{seed}") for seed in seeds] for config in configs
    }


def _written(
    found: dict[str, list[RunRecord]], seeds: Sequence[int], out: Path, command: str | None
) -> list[dict[str, Any]]:
    """The leaderboard, the first method being the baseline, after everything that a comparison writes."""
    rows = leaderboard(found, baseline=next(iter(found)))
    write_rows(out / "leaderboard.csv", rows)
    each, steps, lost, chosen = every_run(found), every_timestep(found), regrets(found), chosen_timesteps(found)
    write_rows(out / "runs.csv", each)
    write_rows(out / "timesteps.csv", steps)
    for name, of_some in (("regret.csv", lost), ("chosen.csv", chosen)):
        if of_some:
            write_rows(out / name, of_some)
        else:
            (out / name).unlink(missing_ok=True)  # of an earlier comparison here
    published = beside_published(found, rows)
    write_paper_files(out, rows, steps, lost, chosen, published)
    folders = {name: [out / name / f"seed{seed}" for seed in seeds] for name in found}
    write_comparison(out, rows, folders, each, steps, lost, chosen, published, command=command)
    return rows


def _finished(records: Records, run: Path) -> RunRecord:
    """The record of a run that was trained.

    Raises:
        FileNotFoundError: where it was not.
    """
    record = records.find(run)
    if record is None:
        raise FileNotFoundError(f"{run} holds no finished run, and {records.file} knows of none: train it there first")
    return record


def _tuned(configs: Sequence[Config], seed: int, out: Path, records: Records, jobs: int) -> list[Config]:
    """Every method with the weights that were best on held-out samples."""
    folder = out / "tuning"
    tried = [trials(config, seed) for config in configs]
    planned = [trial for of_one in tried for trial in of_one.values()]
    _train_all(_with_teachers(planned, seed, seed, folder), records, jobs)
    chosen = []
    for config, of_one in zip(configs, tried, strict=True):
        found = {factor: _finished(records, folder / trial.recipe / f"seed{seed}") for factor, trial in of_one.items()}
        chosen.append(choose(config, of_one, {factor: record.heldout_area or 0.0 for factor, record in found.items()}))
    rows = [row for _, of_one in chosen for row in of_one]
    if rows:
        write_rows(out / "tuning.csv", rows)
    return [config for config, _ in chosen]


def _take_over(planned: Sequence[Config], finished: Records, records: Records) -> None:
    """Take the runs of a finished comparison that were trained just as they are planned here, by the same teacher."""
    others = {config.run_folder for config in planned}  # than those that are taken
    for config in planned:  # teachers come before whom they teach
        record = records.find_in(finished, config.run_folder)
        if record and config.teacher not in others and not changed_settings(config, record.config):
            others.discard(config.run_folder)
            if records.find(config.run_folder) is None:
                records.add(config.run_folder, record)


def _train_all(planned: Sequence[Config], records: Records, jobs: int) -> None:
    """Every run once, those that are finished left out."""
    planned = list({config.run_folder: config for config in planned}.values())
    left = []
    for config in planned:
        folder, record = RunFolder(config.run_folder), records.find(config.run_folder)
        for begun in (folder.config() if folder.config_file.is_file() else None, record.config if record else None):
            if begun is not None:
                check_same_run(config, _with_teacher_of(config, begun), folder.path)
        if record is None:
            left.append(config)
    records.keep(config.run_folder for config in planned)
    for config in {config.recipe: config for config in left}.values():
        plan_without_teacher(config)  # finds what cannot be trained before anything is
    needed = {config.run_folder for config in left} | {config.teacher for config in left}
    lines = {
        f"run {number} of {len(planned)}: {config.recipe}, seed {config.seed}": config
        for number, config in enumerate(planned, 1)
        if config.run_folder in needed and not RunFolder(config.run_folder).is_complete
    }
    train_side_by_side(lines, jobs, lambda config: records.keep([config.run_folder]))


def _with_teacher_of(config: Config, begun: Config) -> Config:
    """What a run was begun with, taught by the run of the same name that is in the folder now, which may have been moved."""
    teachers = config.teacher, begun.teacher
    same = all(teachers) and len({teacher.parts[-2:] for teacher in teachers if teacher}) == 1
    return begun.model_copy(update={"teacher": config.teacher}) if same else begun


def _with_teachers(configs: Sequence[Config], seed: int, teacher_seed: int, out: Path) -> list[Config]:
    """The runs of one seed in the order in which they must happen."""
    runs: list[Config] = []
    for config in configs:
        changes: dict[str, Any] = {"seed": seed, "out": out / config.recipe / f"seed{seed}", "resume": "auto"}
        config = _without_foreign_settings(config)
        if config.teacher is None and _is_taught(config):
            # one teacher for all, also where each has epochs of its own
            teacher = relu_twin(config.model_copy(update={"epochs": configs[0].epochs}), teacher_seed, out)
            changes["teacher"] = teacher.out
            runs.append(teacher)
        runs.append(config.model_copy(update=changes))
    return runs


def _without_foreign_settings(config: Config) -> Config:
    """The configuration of a method without the teacher that is for the others, where it learns from none."""
    return config if _is_taught(config) else config.model_copy(update={"teacher": None, "teacher_logits": "computed"})


def _is_taught(config: Config) -> bool:
    return create_objective(config.objective.name, **config.objective.options).needs_teacher


def weights_of(configs: Sequence[Config], seeds: Sequence[int], finished: Path) -> list[Config]:
    """The configurations with the objectives, and so the weights, that they had in a finished comparison of the same methods.

    Args:
        configs: one per method.
        seeds: of the runs there.
        finished: its folder.

    Raises:
        FileNotFoundError: where a method or seed was not trained there.
        ValueError: where not all have the same training samples.
    """
    for config in configs:
        if (config.data.train_samples, config.data.holdout) != (configs[0].data.train_samples, configs[0].data.holdout):
            raise ValueError(
                f"--equal-time: {configs[0].recipe} and {config.recipe} train on different samples: give all the same "
                "--data.train-samples and --data.holdout"
            )
    records = Records(finished)
    found = [[_finished(records, finished / config.recipe / f"seed{seed}") for seed in seeds] for config in configs]
    return [
        config.model_copy(update={"objective": runs[0].config.objective})
        for config, runs in zip(configs, found, strict=True)
    ]


def in_equal_time(configs: Sequence[Config], speeds: Sequence[float]) -> list[Config]:
    """The configurations with as many epochs each, one at least, as fit into the training time of the first at these speeds."""
    epochs = [max(1, round(configs[0].epochs * speed / speeds[0])) for speed in speeds]
    return [config.model_copy(update={"epochs": count}) for config, count in zip(configs, epochs, strict=True)]
