"""Training in several processes, on one machine or on several, whoever starts them."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torchrun_kills import ranks_below

from spikedistill import train
from spikedistill.config import Config, TrainerConfig
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.training import is_main_process

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TABLE = "test samples, the first k timesteps together"

# A process that has everything imported forks those that need no command line.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["lightning", "sklearn.datasets", "spikedistill.training.callbacks"])


def start(*launcher: str, out: Path, devices: int = 2, nodes: int = 1, extra: tuple[str, ...] = ()) -> subprocess.Popen:
    """Begin the run of this file: 2 epochs of 7 steps, with a checkpoint after each."""
    arguments = ["-m", "spikedistill", "train", "digits-s2w", "--epochs", "2", "--timesteps", "3", "--out", str(out)]
    arguments += ["--data.train-samples", "400", "--trainer.accelerator", "cpu", "--trainer.no-progress"]
    arguments += ["--trainer.checkpoint-seconds", "0", *extra]
    arguments += ["--trainer.devices", str(devices), "--trainer.nodes", str(nodes)]
    return subprocess.Popen(
        [*launcher, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
    )


def finish(process: subprocess.Popen) -> str:
    """What a run that ends well has printed."""
    printed, complaints = process.communicate(timeout=240)
    assert process.returncode == 0, complaints
    return printed


def outcome(folder: Path) -> dict[str, bytes]:
    """What a run has learned and measured, byte for byte."""
    run = RunFolder(folder)
    return {file.name: file.read_bytes() for file in (run.model, run.metrics, run.logits)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """The run in two processes that the command starts by itself."""
    folder = tmp_path_factory.mktemp("together") / "run"
    printed = finish(start(sys.executable, out=folder))
    assert printed.count(TABLE) == 1, "one process prints"
    return folder


def test_two_processes_train_one_network_on_shares_of_each_batch(together):
    """S2W ranks timesteps over both processes; the run folder is that of a single process."""
    run = RunFolder(together)
    assert json.loads(run.results.read_text())["last"]["ensemble"][-1]["accuracy"] > 0.3
    checkpoint = torch.load(run.checkpoint, weights_only=False)
    assert checkpoint["global_step"] == 2 * 7, "ceil(400 / 64) batches an epoch, shared by two"


def test_torchrun_trains_the_same_network_also_when_it_is_stopped_and_resumed(together, tmp_path):
    def begin():
        return start(*TORCHRUN, "--nproc-per-node", "2", out=tmp_path / "run", extra=("--resume", "auto"))

    run, stopped = RunFolder(tmp_path / "run"), begin()
    while not run.checkpoint.is_file() and stopped.poll() is None:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    assert "the same command with --resume auto goes on" in stopped.communicate(timeout=240)[1]
    assert not run.model.is_file()
    assert finish(begin()).count(TABLE) == 1, "one process prints"
    assert outcome(run.path) == outcome(together)


def test_a_run_goes_on_whichever_rank_is_killed(together, tmp_path):
    """Rank 1 is killed while it trains, and rank 0 as it has just been started again."""
    run = RunFolder(tmp_path / "run")
    torchrun = start(
        *TORCHRUN, "--nproc-per-node", "2", "--max-restarts", "2", out=run.path, extra=("--resume", "auto")
    )
    while not run.checkpoint.is_file() and torchrun.poll() is None:
        time.sleep(0.01)
    killed = ranks_below(torchrun.pid)
    os.kill(killed[1], signal.SIGKILL)
    while (ranks := ranks_below(torchrun.pid)).keys() != {0, 1} or set(ranks.values()) & set(killed.values()):
        assert torchrun.poll() is None, torchrun.communicate()[1]
        time.sleep(0.01)
    os.kill(ranks[0], signal.SIGKILL)
    printed, complaints = torchrun.communicate(timeout=240)
    assert torchrun.returncode == 0, complaints
    assert printed.count(TABLE) == 1
    assert "Traceback" not in complaints
    assert outcome(run.path) == outcome(together)


def test_two_machines_train_the_same_network_over_an_earlier_run(together, tmp_path):
    shutil.copytree(together, tmp_path / "run")
    address = [
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(free_port()),
    ]
    machines = [
        start(
            *TORCHRUN, *address, "--node-rank", rank, out=tmp_path / "run", devices=1, nodes=2, extra=("--overwrite",)
        )
        for rank in ("0", "1")
    ]
    assert [finish(machine).count(TABLE) for machine in machines] == [1, 0]
    assert RunFolder(tmp_path / "run").config().trainer.nodes == 2, "it is the later run"
    assert outcome(tmp_path / "run") == outcome(together)


def settings(out: Path, **changes) -> Config:
    """One epoch of four steps in one process on each of two machines."""
    base = recipe("digits-s2w")
    options = TrainerConfig(accelerator="cpu", progress=False, nodes=2)
    data = base.data.model_copy(update={"train_samples": 200})
    return base.model_copy(update={"epochs": 1, "timesteps": 2, "out": out, "trainer": options, "data": data} | changes)


class Machine:
    """A process that plays one machine of two; it has an `arrived` event and, once it has ended, what it `raised`."""

    def __init__(self, rank: int, port: int, config: Config) -> None:
        self.arrived, self.raised = PROCESSES.Event(), PROCESSES.SimpleQueue()
        self.process = PROCESSES.Process(target=self.run, args=(rank, port, config, self.arrived, self.raised))
        self.process.start()

    @staticmethod
    def run(rank, port, config, arrived, raised) -> None:
        class Arrival(logging.Handler):
            def emit(self, record):
                arrived.set()

        logging.getLogger("lightning.fabric.utilities.distributed").addHandler(Arrival())
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank)}
        os.environ["PYTHONWARNINGS"] = "ignore"
        torch.set_num_threads(1)
        try:
            train(config)
            raised.put("")
        except Exception as error:
            raised.put(str(error))

    def end(self) -> str:
        self.process.join(240)
        return self.raised.get()


def test_a_machine_that_is_early_does_not_go_on_from_the_run_that_is_overwritten(together, tmp_path):
    shutil.copytree(together, tmp_path / "run")
    port, config = free_port(), settings(tmp_path / "run", overwrite=True)
    early = Machine(1, port, config)
    assert early.arrived.wait(60), "it waits for the other"
    late = Machine(0, port, config)
    assert [late.end(), early.end()] == ["", ""]
    assert len(RunFolder(tmp_path / "run").metrics.read_text().splitlines()) == 1 + 1


def test_machines_that_do_not_share_the_run_folder_do_not_begin(together, tmp_path):
    first, second = (settings(tmp_path / name, epochs=3, timesteps=3, resume="auto") for name in ("first", "second"))
    shutil.copytree(together / "checkpoints", tmp_path / "first" / "checkpoints")
    RunFolder(first.out).config_file.write_text(first.to_yaml())
    port = free_port()
    machines = [Machine(0, port, first), Machine(1, port, second)]
    for machine in machines:
        assert "the run folder must be one that all machines share" in machine.end()


def test_a_process_that_waits_in_vain_says_so_in_time(tmp_path):
    """As where another one finds the run complete, or never starts."""
    options = TrainerConfig(accelerator="cpu", progress=False, nodes=2, timeout_seconds=2)
    alone = Machine(0, free_port(), settings(tmp_path / "run", trainer=options))
    said = alone.end()
    assert "has not responded in time (--trainer.timeout-seconds 2); --resume auto goes on" in said
    assert "\n" not in said


def test_of_several_processes_that_diverge_together_one_says_so(tmp_path):
    process = start(sys.executable, out=tmp_path / "run", extra=("--optimizer.lr", "1e12"))
    said = process.communicate(timeout=240)[1]
    assert said.count("became NaN or infinite") == 1
    assert "Traceback" not in said
    assert process.returncode == 1


@pytest.mark.parametrize(("devices", "nodes"), [(1, 1), (4, 1), (1, 2)])
def test_another_number_of_processes_than_torchrun_started_is_refused(devices, nodes, tmp_path, monkeypatch):
    """Two processes that know nothing of each other would write one folder."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=f"torchrun started 3 processes, .*means {devices * nodes}: set them to"):
        train(settings(tmp_path / "run", trainer=TrainerConfig(devices=devices, nodes=nodes)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "main"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True),
        ({"RANK": "1", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "1", "SLURM_PROCID": "1"}, True),  # torchrun numbers anew
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "1", "SLURM_LOCALID": "0"}, False),
    ],
)
def test_one_of_the_processes_that_train_together_is_the_main_one(environment, main, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_main_process(TrainerConfig(devices=2)) == main
    assert is_main_process(TrainerConfig()), "a process that trains alone, whatever else was started"
