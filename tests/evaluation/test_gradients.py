"""The gradient microscope: rules against BPTT on one batch, on a run, and from the command line."""

import copy
import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_lif import PRIMITIVES, plain_lif
from torch import nn

from spikedistill import LIF, create_model, load, temporal
from spikedistill.cli import main
from spikedistill.config import Config, DataConfig, ModelConfig
from spikedistill.data import balanced_order, load_dataset, split_holdout
from spikedistill.evaluation import GradientRule, compare_gradients, gradient_microscope, gradient_rules
from spikedistill.evaluation.gradients import ALL
from spikedistill.models import save_model
from spikedistill.neurons import path_of, uncompiled
from spikedistill.neurons.loops import paths
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.through_time import Rate
from spikedistill.training.plan import make_plan


def small_network(**options):
    """A convnet of 4, 8 and 16 channels for images of 8x8, and a batch of 12 for it."""
    torch.manual_seed(0)
    network = create_model("convnet", num_classes=10, in_channels=1, image_size=8, width=0.25, **options)
    return network, torch.rand(12, 1, 8, 8), torch.randint(10, (12,))


def by_layer(rows, rule):
    return {row["layer"]: (row["cosine"], row["ratio"]) for row in rows if row["rule"] == rule}


def cosine_and_ratio(ours, theirs):
    """The definitions, of two lists of gradients joined to one vector each."""
    a, b = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (ours, theirs))
    return float(F.cosine_similarity(a, b, dim=0)), float(a.norm() / b.norm())


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_bptt_is_itself_whatever_rule_the_network_was_made_with(gradient):
    network, x, y = small_network(gradient=gradient, surrogate="arctan")
    rows = compare_gradients(network, x, y, timesteps=3, rules=[GradientRule()])
    assert [row["layer"] for row in rows] == ["features.0.0", "features.2.0", "features.4.0", "head", ALL]
    for row in rows:
        assert (row["rule"], row["cosine"], row["ratio"]) == ("bptt", pytest.approx(1, abs=1e-12), 1.0)


def test_the_rules_are_all_that_the_network_and_its_timesteps_allow():
    network, _, _ = small_network(surrogate="triangular")
    names = [rule.name for rule in gradient_rules(network, 4)]
    others = ["bptt with arctan", "bptt with dspike", "bptt with rectangular", "bptt with sigmoid"]
    assert names == ["sltt", "rate m=1", "rate m=2", "rate m=4", *others]
    assert [rule.name for rule in gradient_rules(network, 3, [3, 8])] == ["sltt", "rate m=3", *others]


def test_as_many_segments_as_timesteps_are_sltt():
    network, x, y = small_network()
    rows = compare_gradients(
        network, x, y, timesteps=3, rules=[GradientRule("sltt"), *(GradientRule(Rate(m)) for m in (1, 2, 3))]
    )
    sltt = by_layer(rows, "sltt")
    for layer, numbers in by_layer(rows, "rate m=3").items():
        assert numbers == pytest.approx(sltt[layer], abs=1e-6)
    assert sltt["features.0.0"][0] < 0.999, "the case is one where the rules differ"
    assert by_layer(rows, "rate m=1")["features.0.0"] != pytest.approx(sltt["features.0.0"], abs=1e-3)
    assert by_layer(rows, "rate m=2")["features.0.0"] != pytest.approx(sltt["features.0.0"], abs=1e-3)


def test_a_single_timestep_has_no_paths_through_time_to_tell_rules_apart():
    network, x, y = small_network()
    rows = compare_gradients(network, x, y, timesteps=1)
    for row in rows:
        if row["rule"] in ("sltt", "rate m=1"):
            assert (row["cosine"], row["ratio"]) == pytest.approx((1, 1), abs=1e-6)
    assert by_layer(rows, "bptt with rectangular")["features.0.0"][0] < 0.99, "but a surrogate matters"


def test_numbers_are_those_of_a_plain_loop_in_float64():
    T = 4
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(5, 7), LIF(decay=0.7, surrogate="sigmoid"), nn.Linear(7, 3)).double()
    x, y = 2 * torch.randn(T, 6, 5, dtype=torch.float64), torch.randint(3, (6,))

    def gradients(**options):
        weights = [parameter.detach().clone().requires_grad_() for parameter in net.parameters()]
        spikes = plain_lif(F.linear(x, weights[0], weights[1]), decay=0.7, **options)
        logits = F.linear(spikes, weights[2], weights[3])
        return torch.autograd.grad(F.cross_entropy(logits.mean(0), y), weights)

    bptt = gradients()
    rows = compare_gradients(temporal(net), x, y)
    for rule, ours in {
        "sltt": gradients(cuts=range(1, T)),
        "bptt with arctan": gradients(primitive=PRIMITIVES["arctan"]),
        "bptt with triangular": gradients(primitive=PRIMITIVES["triangular"]),
        "bptt with dspike": gradients(primitive=PRIMITIVES["dspike"]),
    }.items():
        found = by_layer(rows, rule)
        assert list(found) == ["0", "2", ALL]
        assert found["0"] == pytest.approx(cosine_and_ratio(ours[:1], bptt[:1]), abs=1e-12)
        assert found["2"] == pytest.approx((1, 1), abs=1e-12), "nothing spikes between the head and the loss"
        assert found[ALL] == pytest.approx(cosine_and_ratio(ours, bptt), abs=1e-12), "biases count too"
        assert found["0"][0] < 0.999


@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_network_changes(training):
    network, x, y = small_network()
    network(x, timesteps=2).sum().backward()
    network.train(training)
    network.module.head.weight.requires_grad_(False)
    before, grads = copy.deepcopy(network.state_dict()), [parameter.grad.clone() for parameter in network.parameters()]
    state = torch.get_rng_state()
    with torch.no_grad():  # gradients are taken also where they are switched off
        compare_gradients(network, x, y, timesteps=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(network.parameters(), grads, strict=True))
    assert {module.training for module in network.modules()} == {training}
    assert [p.requires_grad for p in network.parameters()].count(False) == 1
    assert {module.surrogate for module in network.modules() if isinstance(module, LIF)} == {"sigmoid"}
    assert torch.equal(torch.get_rng_state(), state)


def test_the_network_is_compared_as_it_trains_in_whichever_mode_it_comes():
    network, x, y = small_network()
    network.train()
    expected = compare_gradients(network, x, y, timesteps=2, rules=[GradientRule("sltt")])
    assert compare_gradients(network.eval(), x, y, timesteps=2, rules=[GradientRule("sltt")]) == expected


def test_every_rule_meets_the_same_dropout_in_every_call():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), nn.Dropout(0.5), LIF(), nn.Linear(20, 3))
    x, y, rules = 3 * torch.randn(9, 6), torch.randint(3, (9,)), [GradientRule("sltt"), GradientRule("rate")]
    for row in compare_gradients(temporal(net), x, y, timesteps=1, rules=rules):
        assert row["cosine"] == pytest.approx(1, abs=1e-6)
    rows = compare_gradients(temporal(net), x, y, timesteps=3, rules=rules)
    torch.manual_seed(1)
    assert compare_gradients(temporal(net), x, y, timesteps=3, rules=rules) == rows


@pytest.mark.parametrize(
    ("own", "other", "ratio"), [("rectangular", "sigmoid", math.nan), ("sigmoid", "rectangular", 0.0)]
)
def test_a_gradient_of_zero_has_no_direction(own, other, ratio):
    torch.manual_seed(0)
    # membranes stay below 3, so that the box of width 1 around the threshold of 9 is never reached
    net = nn.Sequential(nn.Linear(4, 6), LIF(threshold=9.0, surrogate=own), nn.Linear(6, 3))
    x, y = torch.rand(5, 4), torch.randint(3, (5,))
    found = by_layer(compare_gradients(temporal(net), x, y, timesteps=2), f"bptt with {other}")
    assert found["0"] == pytest.approx((math.nan, ratio), nan_ok=True)
    assert found[ALL] == pytest.approx((1, 1), abs=1e-6), "the head's bias alone moves much"


def test_a_network_without_spikes_is_refused():
    network, x, y = small_network(neuron="relu")
    with pytest.raises(ValueError, match="no spiking neurons"):
        compare_gradients(network, x, y, timesteps=2)


def test_layers_that_would_be_compiled_are_not(monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 4)
    monkeypatch.setattr(paths, "compiler_works", lambda: True)
    large = torch.empty(64, dtype=torch.float64)
    assert not path_of(large).is_eager
    with uncompiled():
        assert path_of(large).is_eager
    assert not path_of(large).is_eager


def untrained(folder: Path, config: Config) -> RunFolder:
    """What the microscope reads of a run, without the training."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    plan = make_plan(config)
    run.config_file.write_text(config.to_yaml())
    save_model(plan.build_network(), plan.spec, run.model)
    return run


def tiny(**changes) -> Config:
    model = ModelConfig(name="convnet", width=0.25, **changes.pop("model", {}))
    return recipe("digits-sce").model_copy(update={"timesteps": 3, "model": model} | changes)


def test_a_run_is_compared_on_the_first_samples_that_it_was_trained_on_in_balanced_order(tmp_path):
    data = DataConfig(name="digits", holdout=0.2, train_samples=60)
    run = untrained(tmp_path / "run", tiny(data=data))
    rows = gradient_microscope(run.path, timesteps=[2, 1], segments=[2, 1, 2], batches=2, batch_size=20)

    train = load_dataset("digits").train
    kept, held_out = split_holdout(train.targets, 0.2)
    samples = kept[balanced_order(train.targets[kept])][:40]
    assert not set(samples.tolist()) & set(held_out.tolist())
    assert torch.bincount(train.targets[samples]).tolist() == [4] * 10
    network, found = load(run.path), []
    for indices in samples.split(20):
        images = train.inputs(indices).float() / 255
        found.append(compare_gradients(network, images, train.targets[indices], timesteps=2))
    expected = {
        (of_batch["rule"], of_batch["layer"]): np.array([(r["cosine"], r["ratio"]) for r in pair])
        for pair in zip(*found, strict=True)
        for of_batch in pair[:1]
    }
    at_two = [row for row in rows if row["timesteps"] == 2]
    assert [(row["rule"], row["layer"]) for row in at_two] == list(expected)
    for row in at_two:
        values = expected[row["rule"], row["layer"]]
        # of two values the mean is half their sum, and the standard deviation their distance by the root of 2
        assert (row["cosine"], row["ratio"]) == pytest.approx(tuple(values.sum(0) / 2))
        assert (row["cosine_std"], row["ratio_std"]) == pytest.approx(tuple(abs(values[0] - values[1]) / 2**0.5))
        assert row["batches"] == 2
    assert [row["timesteps"] for row in rows] == sorted(row["timesteps"] for row in rows)
    with pytest.raises(ValueError, match="ask for 61 samples, but this run was trained on 60"):
        gradient_microscope(run.path, batches=1, batch_size=61)


def test_work_is_shown_as_it_is_done_and_one_batch_has_no_spread(tmp_path):
    run, pieces = untrained(tmp_path / "run", tiny()), []

    def track(work):
        for piece in work:
            pieces.append(piece[1])
            yield piece

    rows = gradient_microscope(run.path, timesteps=[1, 2], batches=1, batch_size=4, track=track)
    assert pieces == [1, 2]
    assert {(row["cosine_std"], row["ratio_std"]) for row in rows} == {(0.0, 0.0)}


def test_batch_norm_of_single_timesteps_is_compared_at_no_more_than_it_has(tmp_path):
    run = untrained(tmp_path / "run", tiny(model={"norm": "timestep_batch"}))
    rows = gradient_microscope(run.path, batches=1, batch_size=8)
    assert {row["timesteps"] for row in rows} == {2}, "of 2, 4 and 8 those up to its 3"
    with pytest.raises(ValueError, match="timesteps is 4, but this network's batch-norm has statistics for 3"):
        gradient_microscope(run.path, timesteps=[4], batches=1, batch_size=8)


def test_event_data_have_the_timesteps_of_their_frames(tmp_path):
    generator = np.random.default_rng(0)
    for place in ("train/left", "train/right", "test/left", "test/right"):
        (tmp_path / "data" / place).mkdir(parents=True)
        for name in "abc":
            frames = generator.integers(0, 5, (3, 2, 8, 8))
            np.savez(tmp_path / "data" / place / f"{name}.npz", frames=frames)
    config = tiny(data=DataConfig(name="event_frames", root=tmp_path / "data", augment=()))
    run = untrained(tmp_path / "run", config)
    rows = gradient_microscope(run.path, batches=1, batch_size=6)
    assert {row["timesteps"] for row in rows} == {3}
    assert gradient_microscope(run.path, timesteps=[3], batches=1, batch_size=6) == rows
    with pytest.raises(ValueError, match="timesteps is 2 4, but the recordings of event_frames have 3 frames"):
        gradient_microscope(run.path, timesteps=[2, 4], batches=1, batch_size=6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gradients") / "run"
    quick = ["--epochs", "1", "--timesteps", "2", "--model.width", "0.25", "--data.train-samples", "120"]
    machine = ["--trainer.accelerator", "cpu", "--trainer.no-progress"]
    assert main(["train", "digits-twsd", "--out", str(folder), *quick, *machine]) == 0
    return folder


def test_the_command_writes_every_layer_and_the_report(trained, capsys):
    assert 'id="gradients"' not in (trained / "report.html").read_text()
    before = {path.name: path.read_bytes() for path in trained.glob("*.safetensors")}
    options = ["--timesteps", "1", "4", "--segments", "1", "4", "--batches", "2", "--batch-size", "30"]
    assert main(["gradients", str(trained), *options]) == 0
    printed = capsys.readouterr().out

    with (trained / "gradients.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["timesteps", "rule", "layer", "cosine", "cosine_std", "ratio", "ratio_std", "batches"]
    layers = ["features.0.0", "features.2.0", "features.4.0", "head", ALL]
    surrogates = [f"bptt with {name}" for name in ("arctan", "dspike", "rectangular", "triangular")]
    rules = {"1": ["sltt", "rate m=1", *surrogates], "4": ["sltt", "rate m=1", "rate m=4", *surrogates]}
    expected = [(T, rule, layer) for T in rules for rule in rules[T] for layer in layers]
    assert [(row["timesteps"], row["rule"], row["layer"]) for row in rows] == expected
    assert not list(trained.glob("*.partial"))

    joined = next(row for row in rows if (row["timesteps"], row["rule"], row["layer"]) == ("4", "sltt", ALL))
    assert f"{float(joined['cosine']):.4f} ({float(joined['ratio']):.3f})" in printed
    least = min(float(row["cosine"]) for row in rows if (row["timesteps"], row["rule"]) == ("4", "rate m=1"))
    assert re.search(rf"{least:.4f}.*\n.*features\.", printed), "and below it the name of its layer"
    assert str(trained / "report.html") in printed
    assert 'id="gradients"' in (trained / "report.html").read_text()
    assert {path.name: path.read_bytes() for path in trained.glob("*.safetensors")} == before
    assert not {p.grad for p in load(trained).parameters()} - {None}

    (trained / "report.html").unlink()
    assert main(["report", str(trained)]) == 0
    assert 'id="gradients"' in (trained / "report.html").read_text()


MISTAKES = {
    "no run": (["nowhere"], "nowhere is no folder"),
    "no timesteps": (["RUN", "--timesteps", "2", "0"], "timesteps is 2 0: expected 1 or more"),
    "no segments": (["RUN", "--segments", "0"], "segments is 0: expected 1 or more"),
    "no batches": (["RUN", "--batches", "0"], "batches is 0: expected 1 or more"),
    "a batch of one": (["RUN", "--batch-size", "1"], "batch_size is 1: expected 2 or more"),
    "more samples than there are": (["RUN", "--batches", "9"], "trained on 120"),
    "a ReLU twin": (["ann"], "no spiking neurons"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(mistake, trained, tmp_path, monkeypatch, capsys):
    arguments, said = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    untrained(tmp_path / "ann", tiny(timesteps=1, model={"neuron": "relu"}))
    code = main(["gradients", *(str(trained) if word == "RUN" else word for word in arguments)])
    message = capsys.readouterr().err
    assert code == 2
    assert message.startswith("spikedistill gradients: ")
    assert said in message
    assert len(message.splitlines()) == 1


def test_the_help_says_what_the_numbers_mean(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["gradients", "--help"])
    printed = capsys.readouterr().out
    assert "1 is the same direction" in printed
    assert "twice the learning rate" in printed
