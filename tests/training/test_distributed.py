"""Training in several processes."""

import json
import os
import subprocess
import sys

import torch

from spikedistill.run_folder import RunFolder


def test_two_processes_train_one_network_on_shares_of_each_batch(tmp_path):
    """S2W ranks timesteps over both processes; the run folder is that of a single process."""
    arguments = ["train", "digits-s2w", "--epochs", "2", "--timesteps", "3", "--out", str(tmp_path / "run")]
    arguments += ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--data.train-samples", "400"]
    result = subprocess.run(
        [sys.executable, "-m", "spikedistill", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("test samples at every number of timesteps") == 1, "one process prints"
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.results.read_text())["last"]["ensemble"][-1]["accuracy"] > 0.3
    checkpoint = torch.load(run.checkpoint, weights_only=False)
    assert checkpoint["global_step"] == 2 * 7, "ceil(400 / 64) batches an epoch, shared by two"
