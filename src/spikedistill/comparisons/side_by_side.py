"""Training in separate processes, several at a time."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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


@sigterm_interrupts()
def train_side_by_side(runs: Mapping[str, Config], jobs: int, ended: Callable[[Config], None]) -> None:
    """Train runs, `jobs` at a time, each after its teacher.

    Runs at the same time share the cores, or take one GPU each if there are several, and draw no progress bars. If a
    run diverges, the others go on, except those that it was to teach.

    Args:
        runs: configurations by the line that is printed when a run starts.
        jobs: how many at a time.
        ended: called with each configuration whose run has finished or diverged.

    Raises:
        RunFailed: if a run failed, after the runs at the same time have ended; no further ones are started.
        KeyboardInterrupt: if this process received SIGINT or SIGTERM; the runs have saved a checkpoint.
    """
    processes = fresh_processes()
    left, waiting, running = len(runs), dict(runs), dict[int, tuple[BaseProcess, Config]]()
    failed: list[str] = []
    begun = time.monotonic()
    try:
        while running or (waiting and not failed):
            open_runs = {
                config.run_folder for config in (*waiting.values(), *(config for _, config in running.values()))
            }
            ready = (line for line, config in waiting.items() if config.teacher not in open_runs)
            if not failed and len(running) < jobs and (line := next(ready, None)) is not None:
                config = waiting.pop(line)
                print(line, flush=True)
                place = min(set(range(jobs)) - running.keys())
                process = processes.Process(target=_train, args=(config, place, jobs, to_import()))
                running[place] = process, config  # first, so that an interrupt during the start stops it too
                process.start()
                continue
            wait([process.sentinel for process, _ in running.values()])
            for place, (done, config) in list(running.items()):
                if not done.is_alive():
                    del running[place]
                    diverged = done.exitcode == DIVERGED and RunFolder(config.run_folder).diverged.is_file()
                    if done.exitcode != 0 and not diverged:
                        failed.append(how_it_failed(config.run_folder, done.exitcode))
                        continue
                    ended(config)
                    if diverged:
                        for line in [line for line, taught in waiting.items() if taught.teacher == config.run_folder]:
                            del waiting[line]
                            left -= 1
                    if waiting and not failed:
                        print(time_left(time.monotonic() - begun, left, len(waiting), len(running)), flush=True)
    except BaseException:
        begun_ones = [process for process, _ in running.values() if process.pid is not None]
        for interrupted in begun_ones:
            interrupted.terminate()  # each then saves; at a terminal all have received the signal already
        for interrupted in begun_ones:
            interrupted.join()
        raise
    if failed:
        raise RunFailed(f"{failed[0]}; the same command goes on from there")


def how_it_failed(run: Path, exit_code: int | None) -> str:
    """The message about a run whose process ended with an exit code, negative for a signal."""
    if exit_code == -signal.SIGKILL:
        return (
            f"the run in {run} was killed (SIGKILL), as the system does when memory runs out: train fewer runs at a time "
            "(--jobs), or with a smaller --data.batch-size in another --out"
        )
    return f"the run in {run} failed"


def time_left(seconds: float, runs: int, waiting: int, running: int) -> str:
    """An estimate after `seconds`, which assumes that all runs take equally long and that running ones are halfway."""
    done, left = runs - waiting - running / 2, waiting + running / 2
    minutes = seconds / done * left / 60
    about = f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(1, round(minutes))} min"
    return f"trained {runs - waiting - running} of the {runs} that were left, about {about} to go"


def _train(config: Config, place: int, jobs: int, imported: Mapping[str, str]) -> None:
    """Train in this process; for further devices Lightning starts further processes by repeating the command line."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    if jobs > 1:
        take_share(place, jobs)
        config = config.model_copy(update={"trainer": config.trainer.model_copy(update={"progress": False})})
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
        sys.exit(1)
    except RunDiverged as error:
        print(f"{config.run_folder}: {error}", file=sys.stderr)
        sys.exit(DIVERGED)
    except Exception as error:
        said = str(error) if isinstance(error, RunFailed) else said_of(error)
        if said is None:
            raise
        print(f"{config.run_folder}: {said}", file=sys.stderr)
        sys.exit(1 if isinstance(error, RunFailed) else 2)


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
