"""Training in separate processes of this machine, several at a time."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from ..config import Config
from ..errors import said_of
from ..imports import import_all, to_import
from ..run_folder import RunDiverged, RunFailed, RunFolder, RunStopped
from ..stopping import stoppable
from ..training.run import train
from .workers import Ended

DIVERGED = 3  # exit code of a process whose run diverged


def fresh_processes() -> ForkServerContext:
    """Makes processes that share no memory with this one, and have the slow imports done."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["spikedistill.training.callbacks"])
    return processes


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as SIGINT does, so that processes below this one can be stopped with it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler can be set in this thread
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class Processes:
    """Processes of this machine, which share the cores, or take one GPU each if there are several; they draw no progress bars.

    Args:
        count: how many at a time.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._running: dict[int, tuple[BaseProcess, Config]] = {}

    def open(self, runs: Collection[Config]) -> None:
        self._processes = fresh_processes()

    def has_room(self) -> bool:
        return len(self._running) < self.count

    def start(self, config: Config) -> None:
        place = min(set(range(self.count)) - self._running.keys())
        process = self._processes.Process(target=_train, args=(config, place, self.count, to_import()))
        self._running[place] = process, config  # first, so that an interrupt during the start stops it too
        process.start()

    def wait(self) -> list[Ended]:
        wait([process.sentinel for process, _ in self._running.values()])
        gone = {place: run for place, run in self._running.items() if not run[0].is_alive()}
        for place in gone:
            del self._running[place]
        return [outcome_of(config, process.exitcode) for process, config in gone.values()]

    def close(self) -> None:
        begun = [process for process, _ in self._running.values() if process.pid is not None]
        for process in begun:
            process.terminate()  # each then saves; at a terminal all have received the signal already
        for process in begun:
            process.join()
        self._running.clear()


def outcome_of(config: Config, exit_code: int | None) -> Ended:
    """How a run has ended, by the exit code of its process."""
    if exit_code == DIVERGED and RunFolder(config.run_folder).diverged.is_file():
        return Ended(config, diverged=True)
    return Ended(config, failure=how_it_failed(config.run_folder, exit_code) if exit_code != 0 else None)


def how_it_failed(run: Path, exit_code: int | None) -> str:
    """The message about a run whose process ended with an exit code, negative for a signal."""
    if exit_code == -signal.SIGKILL:
        return (
            f"the run in {run} was killed (SIGKILL), as the system does when memory runs out: train fewer runs at a time "
            "(--jobs), or with a smaller --data.batch-size in another --out"
        )
    return f"the run in {run} failed"


def _train(config: Config, place: int, jobs: int, imported: Mapping[str, str]) -> None:
    """Train in this process, with its share of the machine."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    if jobs > 1:
        take_share(place, jobs)
        config = without_progress(config)
    sys.exit(trained(config, imported))


def without_progress(config: Config) -> Config:
    """The run without a progress bar, for one of several at a time."""
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"progress": False})})


def trained(config: Config, imported: Mapping[str, str]) -> int:
    """Train in this process, and return an exit code; for further devices Lightning starts further processes by repeating the
    command line."""
    command = [
        "train",
        str(RunFolder(config.run_folder).config_file),
        "--out",
        str(config.run_folder),
        "--resume",
        "auto",
    ]
    sys.argv = [str(Path(__file__).parents[1] / "__main__.py"), *command, *(f"--import={word}" for word in imported)]
    try:
        import_all(imported)
        with stoppable(grace=config.trainer.grace_seconds):
            train(config)
    except (RunStopped, KeyboardInterrupt):
        return 1
    except RunDiverged as error:
        print(f"{config.run_folder}: {error}", file=sys.stderr)
        return DIVERGED
    except Exception as error:
        said = str(error) if isinstance(error, RunFailed) else said_of(error)
        if said is None:
            raise
        print(f"{config.run_folder}: {said}", file=sys.stderr)
        return 1 if isinstance(error, RunFailed) else 2
    return 0


def _stop_with_parent() -> None:
    """Stop this process when its parent is gone, for example killed: no process would wait for its run any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def take_share(place: int, jobs: int) -> None:
    """Take this process's share of the cores and GPUs: it is number `place` of `jobs` processes."""
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    devices = visible.split(",")
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
