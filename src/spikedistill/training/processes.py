"""The processes that train one network together: which one this is, and what happens to it when the others end."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from torch import distributed

from ..config import TrainerConfig
from ..errors import UserError
from ..run_folder import RunFailed, device_of

_LAUNCHER = "SPIKEDISTILL_LAUNCHER"  # the environment variable with the id of the main process


def check_processes(options: TrainerConfig) -> None:
    """Refuse processes that could not train one network together.

    Raises:
        UserError: for another number of processes than torchrun has started, because each would train alone in the same folder;
            for more processes than a CPU has cores; for processes that would each choose a precision; for machines that could not
            connect again after a restart.
    """
    if options.precision == "auto" and options.devices * options.nodes > 1:
        raise UserError(
            "--trainer.precision auto measures in one process: with several devices or nodes name one, such as bf16-mixed"
        )
    if not started_by_torchrun():
        _check_cores(options)
        return
    started, expected = int(os.environ["WORLD_SIZE"]), options.devices * options.nodes
    if started != expected:
        raise UserError(
            f"torchrun started {started} processes, but --trainer.devices {options.devices} on --trainer.nodes {options.nodes} "
            f"means {expected}: set them to its --nproc-per-node and --nnodes"
        )
    # each machine counts only its own restarts, so that number cannot tell apart the keys of a common store
    if options.nodes > 1 and shares_store_of_torchrun() and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        raise UserError(
            "torchrun restarts processes on several machines that then find the addresses of killed ones: start it with "
            "--rdzv-backend c10d and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, or without --max-restarts"
        )


def _check_cores(options: TrainerConfig) -> None:
    """Refuse more processes than a CPU has cores, which would take turns; two are always allowed, to try them."""
    on_cpu = options.accelerator in ("auto", "cpu") and device_of(options).type == "cpu"
    cores = os.cpu_count() or 1
    if on_cpu and options.devices > max(cores, 2):
        raise UserError(
            f"--trainer.devices {options.devices} on a CPU starts {options.devices} processes, and this machine has {cores} "
            f"core{'s' if cores > 1 else ''}: expected {max(cores, 2)} or fewer"
        )


def is_main_process(options: TrainerConfig) -> bool:
    """Whether this is the first of the processes that train together, or the only one."""
    if options.devices * options.nodes == 1:
        return True
    if "RANK" in os.environ:  # set by torchrun, which may number machines in another order than the user
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def shares_store_of_torchrun() -> bool:
    """Whether torchrun's processes exchange addresses in its own store, the same one after every restart."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def stop_with_launcher() -> None:
    """Stop this process as soon as the one that started it has ended: torchrun, or the main process."""
    if started_by_torchrun():
        launcher = os.getppid()
    elif os.environ.get("LOCAL_RANK", "0") != "0" and _LAUNCHER in os.environ:
        launcher = int(os.environ[_LAUNCHER])
    else:
        os.environ[_LAUNCHER] = str(os.getpid())  # for processes that Lightning will start
        return
    threading.Thread(target=_outlive, args=(launcher,), daemon=True).start()


def _outlive(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def depending_on_others(options: TrainerConfig) -> Iterator[None]:
    """Within this context, a process trains together with others.

    Raises:
        RunFailed: if one of them has ended, or does not respond for `options.timeout_seconds`.
    """
    try:
        yield
    except RuntimeError as error:
        if options.devices * options.nodes == 1 or not _is_of_communication(error):
            raise
        raise RunFailed(
            f"another process of this run has ended, or has not responded in time (--trainer.timeout-seconds "
            f"{options.timeout_seconds:g}); --resume auto goes on from the last checkpoint. {' '.join(str(error).split())}"
        ) from error


def _is_of_communication(error: RuntimeError) -> bool:
    """Whether an error comes from the exchange between processes. Gloo's errors have no class of their own; all but one name it."""
    said = str(error).lower()
    return isinstance(error, distributed.DistError) or "gloo" in said or "caused pair closure" in said
