"""What a reader of "Your own neuron" does: save the files, run the commands, load the network, exit early."""

import json
import shlex

import pytest
import torch
from pages import DOCS, fences, put_files

from spikedistill import SpikingNeuron, UserError, load
from spikedistill.cli import main
from spikedistill.data import load_dataset
from spikedistill.evaluation import AnytimeClassifier
from spikedistill.neurons import NEURONS
from spikedistill.registry import USER_MODULES
from spikedistill.run_folder import RunFolder

PAGE = DOCS / "your_own" / "neuron.md"
SMALL = shlex.split("--epochs 1 --timesteps 3 --data.train-samples 100 --model.width 0.25 --trainer.accelerator cpu")
LARGER = [*SMALL, "--data.train-samples", "400", "--data.batch-size", "16"]


@pytest.fixture
def page(tmp_path, monkeypatch, fresh_names):
    """The page's commands by the file that they import, in a folder with its files."""
    put_files(PAGE, tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line)[1:] for fence in fences(PAGE, "sh") for line in fence.code.splitlines()]
    return lambda file: [words for words in commands if file in words]


def test_a_neuron_is_trained_evaluated_and_exits_early(page):
    (train, evaluate) = page("my_neurons.py")
    assert main([*train, *LARGER]) == 0
    assert main(evaluate) == 0
    run = RunFolder("runs/adaptive")
    config = run.config()
    assert (config.model.neuron, config.model.neuron_options["jump"], config.imported) == (
        "adaptive",
        0.2,
        ("my_neurons.py",),
    )
    assert "Firing rates" in run.report.read_text()
    assert json.loads(run.results.read_bytes())["last"]["ensemble"][-1]["accuracy"] > 0.3
    model = load("runs/adaptive")
    layers = [module for module in model.module.modules() if isinstance(module, SpikingNeuron)]
    assert {type(layer).__name__ for layer in layers} == {"Adaptive"}
    assert any(not torch.equal(layer.jump, torch.full_like(layer.jump, 0.2)) for layer in layers), "it is learned"
    images = load_dataset("digits").test.inputs(torch.arange(20)).float() / 255
    at_once = model(images, timesteps=1).detach().softmax(-1).amax(-1).median()
    answers = AnytimeClassifier(model, "confidence", float(at_once), 3)(images)
    assert 1 == answers.exit_times.min() < answers.exit_times.max() <= 3
    assert {path.rpartition(".")[2] for path in model.step(images)[1]} == {"v", "rise"}
    del NEURONS._known["adaptive"], USER_MODULES["my_neurons"]  # as in another process; `fresh_names` forgets both
    with pytest.raises(UserError, match=r"'adaptive'.* --import my_neurons\.py"):
        load("runs/adaptive")


def test_settings_of_lif_are_refused_beside_it(page, capsys):
    train, _ = page("my_neurons.py")
    assert main([*train, *SMALL, "--overwrite", "--model.lif.decay", "0.9"]) == 2
    assert (
        "--model.neuron adaptive has its own --model.neuron-options, and not --model.lif.decay 0.9"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("file", ["my_surrogate.py", "my_augmentation.py"])
def test_a_surrogate_and_an_augmentation_are_trained_with(file, page):
    (train,) = page(file)
    assert main([*train, *SMALL, "--out", "run"]) == 0
    assert RunFolder("run").config().imported == (file,)
