"""What a comparison refuses before anything is trained."""

from collections.abc import Sequence
from pathlib import Path

from ..config import Config
from ..errors import UserError
from ..run_folder import RunFolder
from ..setting_types import SEEDS
from ..training.plan import make_plan, plan_without_teacher
from ..training.processes import check_processes
from ..training.run import changed_settings
from ..training.teacher import relu_twin
from .planned_runs import Runs, is_taught, with_teachers, without_foreign_settings


def check_settings(configs: Sequence[Config], seeds: Sequence[int], equal_time: bool, on_cluster: bool) -> None:
    """Refuse what cannot be compared.

    Raises:
        UserError: for fewer than two methods, a recipe named twice, several data sets, a precision left open, or settings of the
            comparison that exclude each other.
    """
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
    if on_cluster and equal_time:
        raise UserError("--equal-time measures the speeds of methods on this machine: leave --cluster out")


def quartered(configs: Sequence[Config]) -> list[Config]:
    """The methods with a quarter of their epochs.

    Raises:
        UserError: if that is no whole number.
    """
    if wrong := next((config for config in configs if config.epochs % 4), None):
        raise UserError(
            f"--two-budgets also trains for a quarter of the epochs: {wrong.recipe} has {wrong.epochs}, expected 4, 8, 12, ..."
        )
    return [config.model_copy(update={"epochs": config.epochs // 4}) for config in configs]


def seeds_of_teachers(configs: Sequence[Config], given: Sequence[int], default: int) -> list[int]:
    """The seeds of teachers.

    Raises:
        UserError: if they are wrong, or no method has a teacher that is trained here.
    """
    if not given:
        return [default]
    if len(set(given)) < len(given) or min(given) < 0 or max(given) >= SEEDS:
        raise UserError(f"--teacher-seeds are different numbers from 0 on, below {SEEDS}; got {list(given)}")
    if not any(config.teacher is None and is_taught(config) for config in configs):
        raise UserError("--teacher-seeds are of teachers that the comparison trains: here no method needs one")
    return list(given)


def check_trainable(configs: Sequence[Config], seeds: Sequence[int], teacher_seeds: Sequence[int], runs: Runs) -> None:
    """Find what cannot be trained before anything is written.

    Raises:
        UserError: for settings of a method that do not fit each other, for a teacher that no method learns from, and for methods
            whose teachers would be trained differently.
        FileNotFoundError: if its data set is missing, or the teacher that is named.
        FileExistsError: if the folder of a run that is to begin holds something else.
    """
    given = next((config.teacher for config in configs if config.teacher is not None), None)
    if given is not None and all(without_foreign_settings(config).teacher is None for config in configs):
        raise UserError(f"none of the methods learns from a teacher: leave --teacher {given} out")
    to_train: list[Config] = []
    for config in configs:
        check_processes(config.trainer)
        planned = [
            run.run_folder
            for teacher in teacher_seeds
            for seed in seeds
            for run in with_teachers([config], seed, teacher, runs.records.folder, config.epochs, teacher_seeds[0])[-1:]
        ]
        left = [RunFolder(folder) for folder in planned if runs.is_left(folder)]
        if wrong := next((run for run in left if not run.is_free() and not run.is_run()), None):
            raise FileExistsError(f"{wrong.path} is not empty, and it is no run that has begun: choose another --out")
        if left:
            to_train.append(config)
            own = without_foreign_settings(config)
            plan_without_teacher(own) if own.teacher is None else make_plan(own)
    _check_one_teacher(to_train)


def _check_one_teacher(configs: Sequence[Config]) -> None:
    """Refuse methods that would have to be taught by different networks, since a comparison trains one."""
    untaught = [own for config in configs if is_taught(own := without_foreign_settings(config)) and own.teacher is None]
    for config in untaught[1:]:
        first, other = (relu_twin(own, 0, Path()).model_copy(update={"epochs": 1}) for own in (untaught[0], config))
        if changed := changed_settings(other, first):
            setting, (before, now) = next(iter(changed.items()))
            raise UserError(
                f"{untaught[0].recipe} and {config.recipe} would train different teachers ({setting} {before!r} and {now!r}): give "
                "all the same, or train one and name it, --teacher RUN"
            )
