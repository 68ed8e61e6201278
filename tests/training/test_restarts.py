"""Processes that torchrun starts again, and those that are left when others die."""

import multiprocessing
import os
import signal
import time

import pytest
from torch import distributed

from spikedistill.config import TrainerConfig
from spikedistill.run_folder import RunFailed
from spikedistill.training.processes import check_processes, depending_on_others, stop_with_launcher
from spikedistill.training.strategy import make_strategy

# A process that has everything imported forks the others.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["lightning", "spikedistill.training.callbacks"])


def meet(rank: int, restart: int, port: int) -> None:
    """Open the group of two processes as torchrun's, and be killed in it."""
    import lightning as L

    os.environ |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True", "PYTHONWARNINGS": "ignore"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RESTART_COUNT": str(restart)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    options = TrainerConfig(devices=2, timeout_seconds=120)
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy=make_strategy(options), logger=False, barebones=True)
    trainer.strategy.setup_environment()
    trainer.strategy.barrier()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_restarted_process_waits_for_the_other_one_not_for_the_killed_one():
    """The store, which is torchrun's, holds the address of the rank 0 that was killed when the new rank 1 asks for it."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for restart in (0, 1):
        keys, patience = store.num_keys(), time.monotonic() + 10
        second = PROCESSES.Process(target=meet, args=(1, restart, store.port), daemon=True)
        second.start()
        while store.num_keys() == keys and time.monotonic() < patience:
            time.sleep(0.01)  # until its own address is there
        first = PROCESSES.Process(target=meet, args=(0, restart, store.port), daemon=True)
        first.start()
        for process in (first, second):
            process.join(60)
            assert process.exitcode == -signal.SIGKILL, f"rank met the other after {restart} restarts"


def test_a_process_whose_launcher_is_killed_is_asked_to_stop():
    reading, writing = PROCESSES.Pipe(duplex=False)
    launcher = PROCESSES.Process(target=launch_one, args=(writing,))
    launcher.start()
    assert reading.poll(60)
    assert reading.recv() == "begun"
    launcher.kill()
    assert reading.poll(60)
    assert reading.recv() == "asked"


def launch_one(said) -> None:
    """Start a process as Lightning starts a further rank, and wait."""
    stop_with_launcher()  # of the main process, which nobody launched
    if os.fork() == 0:

        def asked(*_) -> None:
            said.send("asked")
            os._exit(0)

        signal.signal(signal.SIGTERM, asked)
        os.environ["LOCAL_RANK"] = "1"
        stop_with_launcher()
        said.send("begun")
    while True:
        time.sleep(0.1)


def test_only_what_others_cause_is_said_of_them():
    several, lost = TrainerConfig(devices=2), "[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"
    for said in (lost, "Application timeout caused pair closure"):
        with pytest.raises(RunFailed, match="another process of this run has ended"), depending_on_others(several):
            raise RuntimeError(said)
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), depending_on_others(several):
        raise RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match=r"^\[gloo"), depending_on_others(TrainerConfig()):
        raise RuntimeError(lost)


@pytest.mark.parametrize(
    ("restarts", "shared", "refused"), [(3, "True", True), (0, "True", False), (3, "False", False)]
)
def test_machines_restart_only_with_a_store_of_their_own(restarts, shared, refused, monkeypatch):
    """Each machine counts its own restarts, so their keys in a common store would differ."""
    for name, value in {"RUN_ID": "none", "MAX_RESTARTS": str(restarts), "USE_AGENT_STORE": shared}.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    if refused:
        with pytest.raises(ValueError, match="--rdzv-backend c10d and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
            check_processes(TrainerConfig(nodes=2))
    else:
        check_processes(TrainerConfig(nodes=2))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    check_processes(TrainerConfig(devices=2))  # on one machine all are restarted together
