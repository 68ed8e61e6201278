"""The study of use: a ReLU network in bits, an ordinary network with exits, and the whole in small."""

from pathlib import Path

import pytest
import torch
from benchmarks import early_exit_ann, useful
from benchmarks.early_exit_ann import EarlyExitAnn, as_timesteps, parts_of
from benchmarks.frozen import Frozen
from benchmarks.plans import Plan
from benchmarks.relu_in_bits import ReluInBits
from benchmarks.useful import draw, study, to_markdown
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit

from spikedistill.evaluation import AnytimeClassifier
from spikedistill.evaluation.comparison.record_format import Answers
from spikedistill.models import create_model
from spikedistill.models.layers import Normalize
from spikedistill.models.layouts.resnet import BasicBlock
from spikedistill.objectives.submodels import prefix_means

NONE = Normalize([0.0], [1.0])


def relu_network():
    torch.manual_seed(0)
    network = create_model(
        "resnet18", in_channels=1, image_size=(16, 16), num_classes=10, neuron="relu", width=0.25
    ).module
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def test_a_network_in_float32_is_the_trained_one():
    network, images = relu_network(), torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(ReluInBits(NONE, network)(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bits_compute_what_whole_numbers_do(bits):
    """Layer by layer in plain PyTorch: the activations rounded to levels of the same size."""
    network, images = relu_network(), torch.rand(20, 1, 16, 16)
    held = ReluInBits(NONE, network)
    held.hold_in_bits(bits, images)
    sizes = iter(held._sizes)

    def rounded(currents):
        size = next(sizes)
        return (currents / size).round().clamp(0, 2**bits - 1) * size

    x = rounded(network.stem[0](images))
    for block in (block for block in network.modules() if isinstance(block, BasicBlock)):
        inside = rounded(block.body[0](x))
        x = rounded(block.body[2](inside) + block.shortcut(x))
    # currents that lie between two levels may round either way
    near = (held(images) - network.classify(x)).abs().flatten().sort().values
    assert near[int(0.9 * len(near))] < 1e-2 * network.classify(x).abs().max()
    if bits == 8:
        assert (held(images) - network(images)).abs().max() < 0.1 * network(images).abs().max()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_function_is_what_it_was_and_none_runs_eagerly_instead():
    layers, x = [nn.Linear(3, 2).eval() for _ in range(3)], torch.rand(1, 3)
    torch._dynamo.reset()
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=2):
        for layer in layers[:2]:
            frozen = Frozen(layer)
            for _ in range(2):
                torch.testing.assert_close(frozen(x), layer(x))
        with pytest.raises(FailOnRecompileLimitHit):
            Frozen(layers[2])(x)
    torch._dynamo.reset()


def test_the_study_in_small(tmp_path, monkeypatch):
    # compiling takes a minute, and tests of early exit do it
    monkeypatch.setattr(useful, "AnytimeClassifier", lambda *given, compiled=False: AnytimeClassifier(*given))
    monkeypatch.setattr(useful, "SPIKING", ("twkd",))
    monkeypatch.setattr(useful, "_SHOWN", 8)
    monkeypatch.setattr(useful, "WIDTHS", (0.125,))
    monkeypatch.setattr(useful, "WIDTH", 0.125)
    monkeypatch.setattr(
        useful, "_SETTINGS", tuple(w for w in useful._SETTINGS if w not in ("--data.augment", "crop", "flip"))
    )
    monkeypatch.setattr(useful, "Frozen", lambda function: function)
    monkeypatch.setattr(early_exit_ann, "Frozen", lambda function: function)
    plan = Plan(Path(), tmp_path / "runs", "digits", (0, 1), 600, 3, 1)
    file = tmp_path / "useful.jsonl"
    (first,) = study(plan._replace(seeds=(0,)), file, 2, "a command")
    networks = {row["network"] for row in first["rows"]}
    assert networks == {"ANN of width 0.125", "ANN with exits", "twkd"}
    seeds = {name: config.seed for name, config in useful.configs(plan, 1).items()}
    assert seeds.pop("teacher") not in seeds.values(), "a teacher does not begin where its student does"
    for row in first["rows"]:
        assert 0 < row["ms_q1"] <= row["ms"] <= row["ms_q3"]
        assert 20 < row["accuracy"] <= 100, row
        assert 1 <= row["steps"] <= 4
        assert row["accuracy"] == pytest.approx(100 * Answers(**row["right"]).unpacked().mean())
    by_way = {(row["network"], row["way"]): row for row in first["rows"]}
    assert by_way["twkd", "T=4, dense"]["accuracy"] == by_way["twkd", "T=4, on spikes"]["accuracy"]
    assert (
        abs(
            by_way["ANN of width 0.125", "PyTorch"]["accuracy"]
            - by_way["ANN of width 0.125", "ONNX Runtime, 8 bits"]["accuracy"]
        )
        < 3
    )
    assert "| twkd | early exit, dense, compiled |" in to_markdown([first])
    several = to_markdown([first, first, first]).splitlines()
    ways = {
        way: [line.count("[") for line in several if f"twkd | T=4, {way} |" in line] for way in ("as chosen", "dense")
    }
    assert ways == {"as chosen": [1], "dense": [0]}, "from three seeds on, and once for equal answers"
    draw([first], tmp_path / "useful.svg")
    assert (tmp_path / "useful.svg").read_text().count("twkd: ") == sum(
        row["network"] == "twkd" for row in first["rows"]
    )

    network = EarlyExitAnn(plan.out / "seed0" / "ANN with exits", threshold=0.0)
    image = torch.rand(1, 1, 8, 8)
    assert network(image)[1] == 1, "any confidence is enough"
    network.threshold = 1.1
    label, heads = network(image)
    assert (label, heads) == (int(network.logits(image)[-1].argmax()), 4), "none is"
    normalize, resnet = parts_of(plan.out / "seed0" / "ANN with exits")
    torch.testing.assert_close(network.logits(image)[-1], resnet(normalize(image)))
    torch.testing.assert_close(prefix_means(as_timesteps(network.logits(image))), network.logits(image).double())
    elsewhere = EarlyExitAnn(plan.out / "seed0" / "ANN with exits", 1.1, "ONNX Runtime")
    assert elsewhere(image) == (label, 4)
    torch.testing.assert_close(elsewhere.logits(image), network.logits(image), rtol=1e-3, atol=1e-4)

    before = file.read_text()
    assert study(plan._replace(seeds=(0,)), file, 2, "a command") == [first]
    assert file.read_text() == before, "nothing is left to do"
    with pytest.raises(ValueError, match="choose another --out"):
        study(plan, file, 3, "a command")
