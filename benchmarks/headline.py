"""Works through a list of runs as far as the minutes go, and goes on with it at the next call.

Each run has a process of its own, as in a comparison. When the minutes are up, or too few are left for another epoch, it is asked
to stop as a person would ask it: it saves a checkpoint and ends, and the next call goes on from there.
"""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikedistill.comparisons.planned_runs import Runs
from spikedistill.config import Config
from spikedistill.evaluation.comparison.records import LostRun, Records, RunRecord
from spikedistill.files import alone_in
from spikedistill.run_folder import RunFailed, RunFolder
from spikedistill.training.run import check_same_run

from .headline_runs import RUNS, Choices, Run, Study, config_of, write_noise
from .headline_stay import bring
from .headline_table import write_tables
from .headline_teacher import keep_teacher

BEGIN = 20.0  # seconds that a run takes to begin: with fewer left none does
END = 15.0  # seconds kept for the tables
LOOK = 0.2  # seconds between two looks at the clock


_MEASURED = ("kernels", "run")  # files that other commands write beside the tables


@dataclass
class Clock:
    """Says how long there is to go on, and asks this process to stop in time.

    Args:
        seconds: of training.
    """

    seconds: float
    begun: float = field(default_factory=time.monotonic)
    is_over: bool = False

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.begun)

    @contextlib.contextmanager
    def watching(self, count_epochs: Callable[[], int], epochs: int) -> Iterator[None]:
        """Inside, KeyboardInterrupt is raised when the time is up, or too short for the epoch that has just begun.

        Args:
            count_epochs: how many the run has finished.
            epochs: how many it is to have.
        """
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done, count_epochs, epochs), daemon=True)
        # a shell has its background processes ignore SIGINT
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        watch.start()
        try:
            yield
        finally:
            done.set()
            watch.join()
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)

    def _watch(self, done: threading.Event, count_epochs: Callable[[], int], epochs: int) -> None:
        finished, since = count_epochs(), time.monotonic()
        while not done.wait(LOOK):
            now, needed = count_epochs(), 0.0
            if now > finished:  # the next one has begun, and will take as long
                needed = (time.monotonic() - since) / (now - finished) if now < epochs else 0.0
                finished, since = now, time.monotonic()
            if self.left <= needed:
                self.is_over = True
                # to the main thread, whose waiting it ends; a signal to the process may reach another
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return


def work(runs: Sequence[Run], out: Path, minutes: float, choices: Choices) -> dict[str, str]:
    """Train what is left of a list, in its order, for so many minutes.

    What fails is said, and the rest goes on: a data set that is not there should not cost the others their time.

    Args:
        runs: a teacher comes before those it teaches.
        out: folder of all runs, with one `records.jsonl`.
        minutes: of this call, tables included; 0 trains nothing.
        choices: about all runs.

    Returns:
        Why runs failed or were left out, in words, by name.

    Raises:
        KeyboardInterrupt: where a person, and not the clock, asked this process to stop.
        ValueError: where a run was begun with other choices.
    """
    clock, faults = Clock(60 * minutes - END if minutes else 0.0), dict[str, str]()
    with alone_in(out, wait=True):
        _check_choices(runs, out, choices)
        for number, run in enumerate(runs, 1):
            config, records = config_of(run, out, choices), Records(out)
            if run.name in records.runs():
                keep_teacher(run, config, out)
                continue
            if clock.left < BEGIN:
                break
            if fault := _cannot_begin(config):
                faults[run.name] = fault
                continue
            print(f"[{number} of {len(runs)}] {run.name}, {clock.left / 60:.1f} minutes left", flush=True)
            try:
                _train(config, Runs(records), clock)
            except KeyboardInterrupt:
                if not clock.is_over:
                    raise
                print(f"the minutes are up: {run.name} is stopped, and the same command goes on", flush=True)
                break
            except (RunFailed, ValueError, OSError) as error:
                faults[run.name] = str(error)
                print(f"{run.name}: {error}", flush=True)
                continue
            keep_teacher(run, config, out)
    return faults


def _check_choices(runs: Sequence[Run], out: Path, choices: Choices) -> None:
    """Refuse to go on with a list under other choices than it was begun with.

    Raises:
        ValueError: naming a run and what differs.
    """
    records = Records(out)
    for run in runs:
        config = config_of(run, out, choices)
        folder = RunFolder(config.run_folder)
        if folder.config_file.is_file():
            check_same_run(config, folder.config(), folder.path)
        elif (record := records.find(folder.path)) is not None:
            check_same_run(config, record.config, folder.path)


def _cannot_begin(config: Config) -> str | None:
    """Why a run cannot begin yet; None where it can."""
    if config.teacher is None or config.teacher.is_file():
        return None
    return f"its teacher, {config.teacher}, is not there: the run that trains it failed, or was left out"


def _train(config: Config, runner: Runs, clock: Clock) -> None:
    """Train one run, from where it was stopped."""
    folder = RunFolder(config.run_folder)

    def count_epochs() -> int:
        # a row for each, below the names of the columns
        return max(0, folder.metrics.read_bytes().count(b"\n") - 1) if folder.metrics.is_file() else 0

    with alone_in(folder.path, wait=True):
        pass  # a process that was killed may have left its run behind, which is still saving
    with clock.watching(count_epochs, config.epochs):
        runner.train([config])


def headline(
    out: Path, minutes: float, choices: Choices, runs: Sequence[Run] = RUNS, bring_to: Path | None = None
) -> dict[str, str]:
    """Go on with a list, and write what has come out of it so far.

    Args:
        out: folder of all runs and tables.
        minutes: of this call; 0 trains nothing.
        choices: about all runs.
        runs: the list.
        bring_to: where to copy what leaves the machine, see `bring`; with 0 minutes the run that was stopped too.

    Returns:
        What became of every run, in words, by name.

    Raises:
        KeyboardInterrupt, ValueError: as `work`.
    """
    if choices.dry:
        write_noise(out, runs)
    faults = work(runs, out, minutes, choices)
    studies, became = finished_studies(runs, out), outcomes(runs, out, faults)
    about: dict[str, Any] = {"batch": choices.batch or "as published", "dry_run": choices.dry}
    about |= {name: json.loads(file.read_text()) for name in _MEASURED if (file := out / f"{name}.json").is_file()}
    write_tables(out, studies, became, about)
    if bring_to is not None:
        for name in bring(runs, out, bring_to, unfinished=not minutes):
            print(f"brought {name}")
    return became


def finished_studies(runs: Sequence[Run], out: Path) -> dict[Study, dict[str, list[RunRecord]]]:
    """The records of the finished runs, in the order of the list."""
    records, found = Records(out), dict[Study, dict[str, list[RunRecord]]]()
    for run in runs:
        if isinstance(record := records.find(out / run.name), RunRecord):
            found.setdefault(run.study, {}).setdefault(run.method, []).append(record)
    return found


def outcomes(runs: Sequence[Run], out: Path, faults: dict[str, str]) -> dict[str, str]:
    """What became of every run, in words: "finished", "diverged: why", "begun: epochs", "failed: why" or "left"."""
    records, found = Records(out), {}
    for run in runs:
        folder = RunFolder(out / run.name)
        record = records.find(folder.path)
        if isinstance(record, LostRun):
            found[run.name] = f"diverged: {record.reason}"
        elif record is not None:
            found[run.name] = "finished"
        elif run.name in faults:
            found[run.name] = f"failed: {faults[run.name]}"
        elif folder.config_file.is_file():
            found[run.name] = f"begun: {len(folder.read_rows(folder.metrics))} of {folder.config().epochs} epochs"
        else:
            found[run.name] = "left"
    return found
