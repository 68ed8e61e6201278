"""Relative training speeds of methods, measured in turn on this machine."""

import csv
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from ..config import Config
from ..errors import UserError, said_of
from ..files import write_rows
from ..imports import import_all, to_import
from ..models import save_model
from ..objectives import create_objective
from ..run_folder import RunDiverged, RunFailed
from ..training.plan import make_plan, plan_without_teacher
from ..training.run import fit, make_trainer
from ..training.teacher import relu_twin
from .folder import read_checked, rewriting
from .side_by_side import fresh_processes, sigterm_interrupts

ROUNDS = 7
STEPS, SECONDS = 6, 2.0  # the least number of steps, and the least seconds, of a method in a round
LARGEST_RATIO = 1e4  # of two methods' speeds; anything larger is no measurement


def relative_speeds(configs: Sequence[Config], file: Path) -> list[float]:
    """Images per second of every configuration divided by those of the first; 1 if the difference is within the noise.

    All are measured in turn, round after round, because the speed of a machine changes over time: each round compares
    every method with the first, and the median over rounds counts. A method that was faster than the first in at least
    two rounds and slower in at least two counts as equally fast. The file keeps the measured speeds, so a comparison
    that goes on uses the speeds that it began with.

    Args:
        configs: one per method.
        file: a CSV file that keeps them, with the columns method, images_per_s and against_first (medians), and faster
            and slower (numbers of rounds).

    Raises:
        UserError: for settings that do not fit each other, or a file that is damaged or was measured against another first method.
        FileNotFoundError: if the data set is missing.
        RunFailed: if a method cannot be trained, or the process that measures is ended.
    """
    rows, first = _kept(file), configs[0]
    if rows and first.recipe != (against := next(iter(rows))):
        raise UserError(
            f"{file} holds speeds against {against[:60]}: another first method, {first.recipe}, needs another --out"
        )
    missing = [config for config in configs if config.recipe not in rows]
    if missing:
        rounds = images_per_s([first, *(config for config in missing if config is not first)])
        for config in missing:
            ratios = [speeds[config.recipe] / speeds[first.recipe] for speeds in rounds]
            rows[config.recipe] = {
                "method": config.recipe,
                "images_per_s": round(median(speeds[config.recipe] for speeds in rounds), 1),
                "against_first": round(median(ratios), 4),
                "faster": sum(ratio > 1 for ratio in ratios),
                "slower": sum(ratio < 1 for ratio in ratios),
            }
        with rewriting(file):
            write_rows(file, [*rows.values()])
    return [_told(rows[config.recipe]) for config in configs]


def _told(row: dict[str, Any]) -> float:
    """The ratio of a row; 1 if at least two rounds were faster and two slower."""
    return 1.0 if min(int(row["faster"]), int(row["slower"])) > 1 else float(row["against_first"])


def _kept(file: Path) -> dict[str, dict[str, Any]]:
    """The rows of the file by method. In files without the columns faster and slower, the ratios count as they are.

    Raises:
        UserError: if the file is damaged.
    """
    if not file.is_file():
        return {}
    content = read_checked(file)
    try:
        read = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        rows = {row["method"]: {"faster": 0, "slower": 0, **row} for row in read}
        if len(rows) == len(read) and float(read[0]["against_first"]) == 1 and all(map(_is_speed, rows.values())):
            return rows
    except (IndexError, KeyError, TypeError, ValueError, csv.Error):
        pass
    raise UserError(f"{file} holds no speeds of methods: delete it, and they are measured anew")


def _is_speed(row: dict[str, Any]) -> bool:
    """Whether a row has only its columns, and values that a measurement can give."""
    numbers = [float(row[key]) for key in ("images_per_s", "against_first")]
    rounds = [int(row[key]) for key in ("faster", "slower")]
    believable = 0 < numbers[0] < math.inf and 1 / LARGEST_RATIO < numbers[1] < LARGEST_RATIO
    return believable and min(rounds) >= 0 and None not in row


def images_per_s(configs: Sequence[Config]) -> list[dict[str, float]]:
    """Images per second of training on one device, by recipe, in each of some rounds of a few seconds each.

    Every round runs in a separate process, so that all memory is free afterwards, and begins with another method.

    Raises:
        UserError: for settings that do not fit each other.
        FileNotFoundError: if the data set is missing.
        RunFailed: if a method cannot be trained, or such a process is ended before it has measured.
    """
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(ROUNDS):
            print(
                f"measuring how fast each of {len(configs)} methods trains, round {number + 1} of {ROUNDS}", flush=True
            )
            begin = number % len(configs)
            rounds.append(_round_in_process([*configs[begin:], *configs[:begin]], Path(scratch)))
    return rounds


@sigterm_interrupts()
def _round_in_process(configs: Sequence[Config], scratch: Path) -> dict[str, float]:
    processes = fresh_processes()
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(
        target=_round, args=(configs, STEPS, SECONDS, scratch, theirs, to_import()), daemon=True
    )
    process.start()
    theirs.close()  # so that `recv` raises EOFError when the process ends
    try:
        found = ours.recv()
    except EOFError:
        process.join()
        raise RunFailed(f"measuring how fast methods train ended with exit code {process.exitcode}") from None
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _round(
    configs: Sequence[Config], steps: int, seconds: float, scratch: Path, to: Connection, imported: Mapping[str, str]
) -> None:
    """Send the images per second of each method, by recipe, or the error that one raises."""
    import_all(imported)
    speeds = {}
    for config in configs:
        try:
            speeds[config.recipe] = _images_per_s(config, steps, seconds, scratch)
        except RunDiverged as error:
            return to.send(RunFailed(f"{config.recipe} does not train: {error}"))
        except Exception as error:
            if said_of(error) is None:
                raise  # its traceback is printed here
            return to.send(UserError(str(error)) if isinstance(error, UserError) else error)
        except KeyboardInterrupt:
            return None  # at a terminal the parent process has received it too
    return to.send(speeds)


def _images_per_s(config: Config, steps: int, seconds: float, scratch: Path) -> float:
    """Images per second of some steps after one that warms up."""
    from ..training.allocator import keep_freed_memory
    from ..training.mixed_timesteps import usual_timesteps
    from ..training.module import DistillationModule
    from ..training.progress import StepClock

    alone = config.trainer.model_copy(
        update={"devices": 1, "nodes": 1, "sync_batch_norm": False, "progress": False, "logger": "none"}
    )
    careful = config.optimizer.model_copy(update={"lr": 1e-6})  # so that no method diverges; a step takes as long
    config = config.model_copy(
        update={"trainer": alone, "optimizer": careful, "teacher": _some_teacher(config, scratch), "epochs": 1_000_000}
    )
    if alone.keep_memory:
        keep_freed_memory()
    plan, clock = make_plan(config), StepClock(steps, seconds)
    trainer = make_trainer(plan, scratch, [clock])
    # the few numbers of timesteps that these steps would draw may be small or large by chance
    fit(trainer, DistillationModule(plan, draw=usual_timesteps))
    return clock.images_per_s


def _some_teacher(config: Config, scratch: Path) -> Path | None:
    """The teacher of a run, or an untrained network of the same form, which takes as long."""
    if not create_objective(config.objective.name, **config.objective.options).needs_teacher:
        return None
    if config.teacher is not None:
        return config.teacher
    plan = plan_without_teacher(relu_twin(config, 0, scratch))
    file = scratch / "teacher.safetensors"
    save_model(plan.build_network(), plan.spec, file)
    return file
