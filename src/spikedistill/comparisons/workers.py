"""Runs in their order: each after its teacher, as many at a time as there are workers."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from ..config import Config
from ..run_folder import RunFailed


class Ended(NamedTuple):
    """How a run has ended on its worker.

    Attributes:
        config: the run.
        diverged: whether it diverged.
        failure: what went wrong, in words; None if it finished or diverged.
    """

    config: Config
    diverged: bool = False
    failure: str | None = None


class Workers(Protocol):
    """Trains runs, each in a process of its own."""

    def open(self, runs: Collection[Config]) -> None:
        """Get ready to start these runs.

        Raises:
            UserError: if these workers cannot be reached, or cannot train here.
        """

    def close(self) -> None:
        """Stop the runs that are not finished; each saves a checkpoint."""

    def has_room(self) -> bool:
        """Whether another run can start now."""

    def start(self, config: Config) -> None:
        """Start a run."""

    def wait(self) -> list[Ended]:
        """Wait until a run ends; returns those that have ended since."""


def train_all(runs: Mapping[str, Config], workers: Workers, ended: Callable[[Config], None]) -> None:
    """Train runs, each after its teacher.

    If a run diverges, the others go on, except those that it was to teach.

    Args:
        runs: configurations by the line that is printed when a run starts.
        workers: what trains them.
        ended: called with each configuration whose run has finished or diverged.

    Raises:
        RunFailed: if a run failed, after the runs at the same time have ended; no further ones are started.
        KeyboardInterrupt: if this process was interrupted; the runs have saved a checkpoint.
    """
    left, waiting, running = len(runs), dict(runs), dict[str, Config]()
    failed: list[str] = []
    if not runs:
        return
    workers.open(runs.values())
    begun = time.monotonic()
    try:
        while running or (waiting and not failed):
            open_runs = {config.run_folder for config in (*waiting.values(), *running.values())}
            ready = (line for line, config in waiting.items() if config.teacher not in open_runs)
            if not failed and workers.has_room() and (line := next(ready, None)) is not None:
                print(line, flush=True)
                running[line] = waiting.pop(line)
                workers.start(running[line])
                continue
            for run in workers.wait():
                running = {line: config for line, config in running.items() if config is not run.config}
                if run.failure is not None:
                    failed.append(run.failure)
                    continue
                ended(run.config)
                if run.diverged:
                    for line in [line for line, taught in waiting.items() if taught.teacher == run.config.run_folder]:
                        del waiting[line]
                        left -= 1
                if waiting and not failed:
                    print(time_left(time.monotonic() - begun, left, len(waiting), len(running)), flush=True)
    finally:
        workers.close()
    if failed:
        raise RunFailed(f"{failed[0]}; the same command goes on from there")


def time_left(seconds: float, runs: int, waiting: int, running: int) -> str:
    """An estimate after `seconds`, which assumes that all runs take equally long and that running ones are halfway."""
    done, left = runs - waiting - running / 2, waiting + running / 2
    minutes = seconds / done * left / 60
    about = f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(1, round(minutes))} min"
    return f"trained {runs - waiting - running} of the {runs} that were left, about {about} to go"
