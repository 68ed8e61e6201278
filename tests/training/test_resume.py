"""Runs that are killed, stopped or interrupted anywhere end as if nothing had happened."""

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spikedistill import train
from spikedistill.cli import main
from spikedistill.config import Config, DataConfig, TrainerConfig
from spikedistill.files import alone_in
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.training.progress import Speedometer

# A process that has everything imported forks the ones that are killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["lightning", "sklearn.datasets", "spikedistill.training.callbacks", "plotly.graph_objects"]
)


def config(out: Path, **trainer) -> Config:
    """Three epochs of 12 steps on 240 digits; a checkpoint after every step."""
    base = recipe("digits-s2w")
    options = {"accelerator": "cpu", "progress": False, "checkpoint_seconds": 0.0} | trainer
    return base.model_copy(
        update={
            "epochs": 3,
            "timesteps": 2,
            "out": out,
            "resume": "auto",
            "data": DataConfig(name="digits", batch_size=20, train_samples=240, augment=("crop",), holdout=0.1),
            "model": base.model.model_copy(update={"width": 0.25}),
            "trainer": TrainerConfig(**options),
        }
    )


def begin(settings: Config) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["PYTHONWARNINGS"] = "ignore"
    train(settings)


def outcome(folder: Path) -> dict[str, bytes]:
    """Everything that a run leaves, byte for byte; its cost is a measurement, and checkpoints hold paths and counters."""
    run = RunFolder(folder)
    files = (run.model, run.selected_model, run.metrics, run.logits)
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = PROCESSES.Process(target=begin, args=(config(folder),))
    process.start()
    process.join()
    assert process.exitcode == 0
    return outcome(folder)


def kill_after(seconds: float, settings: Config) -> bool:
    """Start the run and kill it after so long; whether it was still running."""
    process = PROCESSES.Process(target=begin, args=(settings,))
    process.start()
    process.join(seconds)
    alive = process.is_alive()
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


def wait_for(run: RunFolder, process) -> None:
    """Until a run has saved its first checkpoint; it must not end before."""
    alive = process.is_alive if hasattr(process, "is_alive") else lambda: process.poll() is None
    while not run.checkpoint.is_file():
        assert alive(), "no checkpoint was ever written"
        time.sleep(0.01)


def test_a_run_folder_is_one_process_s_at_a_time_and_free_when_that_is_killed(uninterrupted, tmp_path):
    settings, run = config(tmp_path), RunFolder(tmp_path)
    process = PROCESSES.Process(target=begin, args=(settings,))
    process.start()
    try:
        wait_for(run, process)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(BlockingIOError, match=f"another process is at work in {tmp_path}: wait until it has ended"):
            train(settings)
        with pytest.raises(BlockingIOError, match="another process"):
            train(settings.model_copy(update={"resume": "never", "overwrite": True}))
        assert run.checkpoint.is_file(), "what the other process has is not deleted"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert not run.is_complete
    assert not kill_after(600, settings)
    assert outcome(tmp_path) == uninterrupted


def test_kills_at_random_moments_change_nothing(uninterrupted, tmp_path):
    start = time.monotonic()
    assert not kill_after(600, config(tmp_path / "timed"))
    duration = time.monotonic() - start
    moments, kills, attempt = random.Random(7), 0, 0
    while kills < 5:
        attempt += 1
        settings = config(tmp_path / f"run{attempt}")
        if not kill_after(moments.uniform(0, duration), settings):
            continue  # it was faster
        kills += 1
        assert not kill_after(600, settings), "the resumed run ends by itself"
        assert outcome(settings.out) == uninterrupted


def test_a_run_killed_again_and_again_still_arrives(uninterrupted, tmp_path):
    settings, moments = config(tmp_path / "run"), random.Random(8)
    for _ in range(6):
        kill_after(moments.uniform(0.2, 1.2), settings)
    assert not kill_after(600, settings)
    assert outcome(settings.out) == uninterrupted


def test_averaged_weights_survive_a_kill_too(tmp_path):
    for folder, seconds in ((tmp_path / "whole", 600.0), (tmp_path / "killed", 0.9)):
        kill_after(seconds, config(folder, ema=0.9))
    assert not kill_after(600, config(tmp_path / "killed", ema=0.9))
    whole, killed = (load_file(RunFolder(tmp_path / name).model) for name in ("whole", "killed"))
    assert all((whole[key] == killed[key]).all() for key in whole)


def test_a_run_that_sums_up_gradients_is_saved_between_its_steps(tmp_path):
    assert not kill_after(600, config(tmp_path / "whole", accumulate=2))
    settings, moments = config(tmp_path / "killed", accumulate=2), random.Random(9)
    for _ in range(4):
        kill_after(moments.uniform(0.4, 1.0), settings)
    assert not kill_after(600, settings)
    assert outcome(settings.out) == outcome(tmp_path / "whole")


def test_the_selected_epoch_has_the_averaged_weights(tmp_path):
    settings = config(tmp_path, ema=0.9).model_copy(update={"epochs": 1})
    assert not kill_after(600, settings)
    assert RunFolder(tmp_path).selected_model.read_bytes() == RunFolder(tmp_path).model.read_bytes()


def test_a_run_in_pieces_has_the_speed_and_memory_of_all_of_them():
    first, second = Speedometer(), Speedometer()
    first.images, first.seconds, first.peak_mib = 100, 2.0, 1e6
    second.load_state_dict(first.state_dict())
    assert second.cost() == {"training_s": 2.0, "images_per_s": 50.0, "peak_mib": 1e6}


def test_a_comparison_that_is_asked_to_stop_takes_its_runs_along(tmp_path):
    arguments = [
        "compare",
        "--recipes",
        "digits-sce",
        "digits-twce",
        "--jobs",
        "2",
        "--epochs",
        "100000",
        "--seeds",
        "0",
    ]
    command = [sys.executable, "-m", "spikedistill", *arguments, "--out", str(tmp_path), "--trainer.accelerator", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    runs = [RunFolder(tmp_path / f"digits-{name}" / "seed0") for name in ("sce", "twce")]
    deadline = time.monotonic() + 90
    while not all(run.checkpoint.exists() for run in runs) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    _, message = process.communicate(timeout=30)
    assert process.returncode == 1
    assert message.endswith("stopped; the same command goes on\n")
    assert "Traceback" not in message
    rows = [run.metrics.read_text() for run in runs]
    time.sleep(1)
    assert [run.metrics.read_text() for run in runs] == rows, "nothing trains on"


def test_a_comparison_that_is_killed_ends_as_if_nothing_had_happened(tmp_path, capfd):
    arguments = [
        "compare",
        "--recipes",
        "digits-sce",
        "digits-twce",
        "--seeds",
        "0",
        "--epochs",
        "3",
        "--timesteps",
        "2",
    ]
    arguments += ["--data.train-samples", "240", "--model.width", "0.25", "--trainer.accelerator", "cpu"]
    arguments += ["--trainer.checkpoint-seconds", "0", "--trainer.no-progress", "--out"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    run = RunFolder(tmp_path / "killed" / "digits-twce" / "seed0")  # the second
    command = [sys.executable, "-m", "spikedistill", *arguments, str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_for(run, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not run.is_complete
    capfd.readouterr()
    assert main([*arguments, str(tmp_path / "killed")]) == 0
    printed = capfd.readouterr().out
    assert "run 1 of 2" not in printed, "what is finished is not trained again"
    assert "run 2 of 2" in printed
    runs = [Path(f"digits-{name}") / "seed0" for name in ("sce", "twce")]
    for file in ("model.safetensors", "metrics.csv", "logits.safetensors"):
        assert [(tmp_path / "killed" / run / file).read_bytes() for run in runs] == [
            (tmp_path / "whole" / run / file).read_bytes() for run in runs
        ]


def test_the_run_of_a_comparison_that_was_killed_saves_itself_and_stops(tmp_path):
    arguments = ["compare", "--recipes", "digits-sce", "digits-twce", "--epochs", "100000", "--seeds", "0"]
    command = [sys.executable, "-m", "spikedistill", *arguments, "--out", str(tmp_path), "--trainer.accelerator", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = RunFolder(tmp_path / "digits-sce" / "seed0")
    wait_for(run, process)
    process.kill()  # it alone, not the process that trains
    process.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError), alone_in(run.path):
            break
        time.sleep(0.1)
    rows = run.metrics.read_text()
    with alone_in(run.path):
        time.sleep(1)
    assert run.metrics.read_text() == rows, "nothing trains on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(number, tmp_path):
    arguments = [
        "train",
        "digits-sce",
        "--epochs",
        "100000",
        "--out",
        str(tmp_path / "run"),
        "--trainer.accelerator",
        "cpu",
    ]
    command = [sys.executable, "-m", "spikedistill", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = RunFolder(tmp_path / "run").checkpoint
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    before = checkpoint.stat().st_mtime_ns
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--resume auto goes on" in message
    assert "Traceback" not in message
    # a signal that comes while an epoch's checkpoint is written finds nothing more to save
    assert checkpoint.stat().st_mtime_ns > before or "stopped after epoch" in message
