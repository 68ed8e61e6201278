"""The runs of a comparison in their order, and the outcome of each."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..config import Config, NeuronConfig
from ..evaluation.comparison.records import LostRun, Records, RunRecord, is_same_network, with_present_teacher
from ..objectives import create_objective
from ..run_folder import RunFolder
from ..training.plan import plan_without_teacher
from ..training.run import check_same_run
from ..training.teacher import relu_twin
from .side_by_side import Processes, sigterm_interrupts
from .workers import Workers, train_all


class Runs:
    """The runs of a comparison: trains those that are left, and returns how each has ended.

    Args:
        records: of the comparison.
        workers: what trains runs; default one process.
        retry_diverged: train those again that diverged.
    """

    def __init__(self, records: Records, workers: Workers | None = None, retry_diverged: bool = False) -> None:
        self.records = records
        self.workers = Processes() if workers is None else workers
        self.retry_diverged = retry_diverged

    def is_left(self, run: Path) -> bool:
        """Whether the run in that folder has to be trained."""
        found = self.records.find(run)
        return found is None or (self.retry_diverged and isinstance(found, LostRun))

    def find(self, config: Config) -> RunRecord | LostRun | None:
        """How a run has ended; None if it has not."""
        if (found := self.records.find(config.run_folder)) is not None:
            return found
        if (teacher := self._lost_teacher(config)) is not None:
            taught_by = f"{teacher.config.recipe}, seed {teacher.config.seed}"
            return LostRun(config, "not trained", f"its teacher, {taught_by}, diverged: {teacher.reason}")
        return None

    def outcome(self, config: Config) -> RunRecord | LostRun:
        """How a run has ended.

        Raises:
            FileNotFoundError: if it has not.
        """
        if (found := self.find(config)) is not None:
            return found
        raise FileNotFoundError(
            f"{config.run_folder} holds no finished run, and {self.records.file} knows of none: train it there first"
        )

    def check(self, planned: Iterable[Config]) -> None:
        """Refuse runs that were begun with other settings.

        Raises:
            UserError: naming the first.
        """
        for config in {config.run_folder: config for config in planned}.values():
            folder, record = RunFolder(config.run_folder), self.records.find(config.run_folder)
            for begun in (folder.config() if folder.config_file.is_file() else None, record.config if record else None):
                if begun is not None:
                    check_same_run(config, self._with_teacher_of(config, begun), folder.path)

    def train(self, planned: Sequence[Config]) -> None:
        """Train every run that is left, once, except students of a teacher that diverged.

        Raises:
            UserError: if a run was begun with other settings, or cannot be trained; nothing is trained then.
            RunFailed: if a run failed.
        """
        planned = list({config.run_folder: config for config in planned}.values())
        self.check(planned)
        self.records.keep(config.run_folder for config in planned)
        left = [config for config in planned if self.is_left(config.run_folder)]
        begin = {config.run_folder for config in left}
        left = [config for config in left if config.teacher in begin or self._lost_teacher(config) is None]
        for config in {config.recipe: config for config in left}.values():
            plan_without_teacher(config)  # refuses what cannot be trained, before any training
        needed = {config.run_folder for config in left} | {config.teacher for config in left}
        lines = {
            f"run {number} of {len(planned)}: {config.recipe}, seed {config.seed}": config
            for number, config in enumerate(planned, 1)
            if config.run_folder in needed and not RunFolder(config.run_folder).is_complete
        }
        with sigterm_interrupts():
            train_all(lines, self.workers, lambda config: self.records.keep([config.run_folder]))

    def _with_teacher_of(self, config: Config, begun: Config) -> Config:
        """The configuration that a run was begun with; with the present path of its teacher, if that was moved or copied."""
        begun = with_present_teacher(begun, self.records.folder)
        now, then = config.teacher, begun.teacher
        is_copy = now is not None and then is not None and now != then and is_same_network(now, then)
        return begun.model_copy(update={"teacher": now}) if is_copy else begun

    def _lost_teacher(self, config: Config) -> LostRun | None:
        """The teacher's run of this comparison, if it diverged."""
        teacher = config.teacher
        if teacher is None or not teacher.is_relative_to(self.records.folder):
            return None
        found = self.records.find(teacher)
        return found if isinstance(found, LostRun) else None


def with_teachers(
    configs: Sequence[Config], seed: int, teacher_seed: int, out: Path, epochs: int, first_teacher: int | None = None
) -> list[Config]:
    """The runs of one seed in the order in which they must happen; teachers are trained for `epochs` epochs.

    Args:
        configs: one per method.
        seed: of the runs.
        teacher_seed: of their teachers.
        out: folder of the comparison.
        epochs: of teachers.
        first_teacher: the seed of the first of several teachers; with another one only taught methods have runs. Default: it is the
            first.
    """
    first_teacher = teacher_seed if first_teacher is None else first_teacher
    runs: list[Config] = []
    for config in configs:
        name = f"seed{seed}" if teacher_seed == first_teacher else f"seed{seed}-teacher{teacher_seed}"
        changes: dict[str, Any] = {"seed": seed, "out": out / config.recipe / name, "resume": "auto"}
        config = without_foreign_settings(config)
        if teacher_seed != first_teacher and not is_taught(config):
            continue
        if config.teacher is None and is_taught(config):
            # one teacher for all, also if methods differ in epochs
            teacher = relu_twin(config.model_copy(update={"epochs": epochs}), teacher_seed, out)
            changes["teacher"] = teacher.out
            runs.append(teacher)
        runs.append(config.model_copy(update=changes))
    return runs


def without_foreign_settings(config: Config) -> Config:
    """The configuration of a method without settings that only others use: a teacher, or settings of neurons and timesteps."""
    if config.model.neuron == "relu":
        ann = {
            "model": config.model.as_ann(),
            "timestep_draws": None,
            "timestep_draws_of": "network",
            "init_membranes": False,
        }
        config = config.model_copy(update=ann)
    elif config.model.neuron != "lif":
        own = {"model": config.model.model_copy(update={"lif": NeuronConfig()}), "init_membranes": False}
        config = config.model_copy(update=own)
    none = {"teacher": None, "teacher_model": None, "teacher_logits": "computed"}
    return config if is_taught(config) else config.model_copy(update=none)


def is_taught(config: Config) -> bool:
    """Whether the objective needs a trained teacher."""
    return create_objective(config.objective.name, **config.objective.options).needs_teacher
