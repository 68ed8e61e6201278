"""Arithmetic and memory format: chosen by measurement, once, and what they change."""

import pytest
import torch
from quick_runs import quick
from safetensors.torch import load_file

from spikedistill import compare, train
from spikedistill.config import TrainerConfig
from spikedistill.run_folder import RunFolder
from spikedistill.training.plan import make_plan


def test_the_fastest_precision_is_chosen_once_and_kept(tmp_path, capsys):
    def run(**changes):
        trainer = TrainerConfig(accelerator="cpu", progress=False, precision="auto")
        return train(quick("digits-twsd", trainer=trainer, out=tmp_path / "run", **changes))

    folder = RunFolder(run())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("precision: ")]
    chosen = folder.config().trainer
    assert chosen.precision in ("32-true", "bf16-mixed")
    assert line.startswith(f"precision: {chosen.precision}{' with channels last' * chosen.channels_last}, ")
    assert line.count("times that") == 3
    folder.report.unlink()
    run(resume="auto")
    assert "precision: " not in capsys.readouterr().out, "what was chosen is not measured again"
    assert folder.is_complete
    assert folder.config().trainer == chosen


def test_channels_last_in_memory_train_the_same_network(tmp_path):
    """In float64, where no rounding decides about a spike; the file does not show the memory format."""
    runs = []
    for last in (False, True):
        trainer = TrainerConfig(accelerator="cpu", progress=False, precision="64-true", channels_last=last)
        runs.append(RunFolder(train(quick("digits-twsd", trainer=trainer, out=tmp_path / str(last)))))
    weights = [load_file(run.model) for run in runs]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-7, atol=1e-9)
    network = make_plan(runs[1].config()).build_network()
    kernels = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_several_processes_do_not_choose_each_for_itself(tmp_path):
    trainer = TrainerConfig(accelerator="cpu", devices=2, precision="auto")
    with pytest.raises(ValueError, match="auto measures in one process: with several devices or nodes name one"):
        train(quick("digits-twsd", trainer=trainer, out=tmp_path / "run"))


def test_runs_that_are_compared_do_not_choose_each_for_itself(tmp_path):
    trainer = TrainerConfig(accelerator="cpu", progress=False, precision="auto")
    configs = [quick(f"digits-{name}", trainer=trainer) for name in ("sce", "twsd")]
    with pytest.raises(ValueError, match="auto would choose for every run separately: name one"):
        compare(configs, seeds=[0], out=tmp_path)
    assert not list(tmp_path.iterdir())
