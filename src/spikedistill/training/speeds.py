"""How fast methods train, one against the other, measured in turn on this machine."""

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..files import write_rows
from ..models import save_model
from ..objectives import create_objective
from .plan import make_plan, plan_without_teacher
from .run import fit, make_trainer
from .teacher import relu_twin

ROUNDS = 5
STEPS, SECONDS = 6, 2.0  # of a round, at least


def relative_speeds(configs: Sequence[Config], file: Path) -> list[float]:
    """Images per second of every configuration over those of the first.

    All are measured in turn, round after round, because a machine is not equally fast all the time. The fastest round of each
    counts, because whatever else a machine does only slows it down. What has been measured is kept: a comparison that goes on has
    the speeds that it began with.

    Args:
        configs: one per method.
        file: where they are kept, a CSV file with the columns method, images_per_s and against_first.

    Raises:
        ValueError: for settings that do not fit each other, or a damaged file.
        FileNotFoundError: where the data set is missing.
    """
    rows = _kept(file)
    missing = [config for config in configs if config.recipe not in rows]
    if missing:
        first = configs[0]
        measured = images_per_s([first, *(config for config in missing if config is not first)])
        for config in missing:
            speed = measured[config.recipe]
            rows[config.recipe] = {
                "method": config.recipe,
                "images_per_s": round(speed, 1),
                "against_first": round(speed / measured[first.recipe], 4),
            }
        write_rows(file, [*rows.values()])
    return [float(rows[config.recipe]["against_first"]) for config in configs]


def _kept(file: Path) -> dict[str, dict[str, Any]]:
    """The rows of the file by method.

    Raises:
        ValueError: naming the file where it is damaged.
    """
    if not file.is_file():
        return {}
    try:
        rows = {row["method"]: row for row in csv.DictReader(file.read_text().splitlines())}
        if all(float(row["against_first"]) > 0 for row in rows.values()):
            return rows
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"{file} holds no speeds of methods: delete it, and they are measured anew")


def images_per_s(configs: Sequence[Config]) -> dict[str, float]:
    """Images per second of training on one device, by recipe, in the fastest of some rounds of a few seconds each.

    Raises:
        ValueError: for settings that do not fit each other.
        FileNotFoundError: where the data set is missing.
    """
    fastest = {config.recipe: 0.0 for config in configs}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(1, ROUNDS + 1):
            print(f"measuring how fast each of {len(configs)} methods trains, round {number} of {ROUNDS}", flush=True)
            for config in configs:
                fastest[config.recipe] = max(fastest[config.recipe], _one_round(config, Path(scratch)))
    return fastest


def _one_round(config: Config, scratch: Path) -> float:
    """Images per second of some steps after one that warms up."""
    from .allocator import keep_freed_memory
    from .callbacks import StepClock
    from .module import DistillationModule

    alone = config.trainer.model_copy(
        update={"devices": 1, "nodes": 1, "sync_batch_norm": False, "progress": False, "logger": "none"}
    )
    config = config.model_copy(
        update={"trainer": alone, "teacher": _some_teacher(config, scratch), "epochs": 1_000_000}
    )
    if alone.keep_memory:
        keep_freed_memory()
    plan, clock = make_plan(config), StepClock(STEPS, SECONDS)
    trainer = make_trainer(plan, scratch, [clock])
    fit(trainer, DistillationModule(plan))
    return clock.images_per_s


def _some_teacher(config: Config, scratch: Path) -> Path | None:
    """The network that teaches a run, or one of its form that is not trained yet, which costs as much."""
    if not create_objective(config.objective.name, **config.objective.options).needs_teacher:
        return None
    if config.teacher is not None:
        return config.teacher
    plan = plan_without_teacher(relu_twin(config, 0, scratch))
    file = scratch / "teacher.safetensors"
    save_model(plan.build_network(), plan.spec, file)
    return file
