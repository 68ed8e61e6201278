"""Benchmarks of layers on spikes: networks at densities of trained ones, layers over the density, runs with penalties."""

import json

import pytest
import torch
from benchmarks import over_density, sparsity, trained_weights
from benchmarks.__main__ import main
from benchmarks.over_density import Layer, crossing_of
from benchmarks.workloads import NetworkWorkload
from quick_runs import quick

from spikedistill import create_model, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the digits, without and with a penalty on spikes."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for weight in (0.0, 5.0):
        config = quick("digits-sce", out=folder / str(weight))
        objective = config.objective.model_copy(update={"firing_weight": weight})
        found.append(train(config.model_copy(update={"objective": objective})))
    return found


def test_a_wider_network_fires_as_the_narrow_one_does():
    """Each channel comes twice, and a sum over twice as many inputs has half the weights: by hand for one linear layer."""
    narrow, wide = torch.nn.Linear(1, 2), torch.nn.Linear(2, 4)
    trained_weights.widen({"weight": torch.tensor([[2.0], [6.0]]), "bias": torch.tensor([1.0, 3.0])}, wide)
    assert wide.weight.tolist() == [[1.0, 1.0], [3.0, 3.0], [1.0, 1.0], [3.0, 3.0]]
    assert wide.bias.tolist() == [1.0, 3.0, 1.0, 3.0]
    with pytest.raises(ValueError, match="no multiple"):
        trained_weights.widen({"weight": torch.zeros(1, 1), "bias": torch.zeros(3)}, narrow)
    small, large = (
        create_model("resnet18", num_classes=10, image_size=16, width=w).module.eval() for w in (0.125, 0.25)
    )
    trained_weights.widen(small.state_dict(), large)
    images = torch.rand(2, 3, 16, 16)
    expected = trained_weights.rates_of(small, images, 3)
    assert trained_weights.rates_of(large, images, 3) == pytest.approx(expected, abs=0.01)


def test_a_density_is_reached_in_every_layer():
    work = NetworkWorkload(width=0.25, batch=4, image_size=16, density=0.1, threads=1)
    network = work.at_density(work.network().train(), 4)
    rates = trained_weights.rates_of(network, work.images(), 4)
    assert len(rates) == 17
    assert all(abs(rate - 0.1) < 0.02 for rate in rates.values())


def test_the_profile_of_a_run(runs, tmp_path, capsys):
    out = tmp_path / "profile.json"
    assert main(["profile", str(runs[0]), "--out", str(out), "--images", "20"]) == 0
    written = json.loads(out.read_text())
    assert "mean" in capsys.readouterr().out
    assert written["recipe"] == "digits-sce"
    assert written["mean"] > 0
    for rate, half, whole in zip(
        written["rates"].values(), *(written["within"][d].values() for d in ("0.5", "1.0")), strict=True
    ):
        assert 0 <= rate < 1
        assert 0 <= half <= whole <= 1


def test_layers_over_the_density(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(over_density, "DENSITIES", (0.1, 0.9))
    out, plot = tmp_path / "densities.jsonl", tmp_path / "densities.svg"
    layers = (Layer(channels=8, size=8, timesteps=2, batch=2),)
    for _ in range(2):  # the second time nothing is left to measure
        over_density.measure_layers(out, 2, 1, "the command", layers)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line.get("density") for line in lines] == [None, 0.1, 0.9, 0.1, 0.9]
    assert lines[0]["command"] == "the command"
    for line in lines[1:]:
        least, most = line["auto_to_dense"][1:]
        assert 0 <= least <= most > 0
        assert min(line[f"{mode}_ms"] for mode in over_density.MODES) > 0
    assert "of dense" in capsys.readouterr().out
    pytest.importorskip("matplotlib")
    assert main(["densities", "--out", str(out), "--plot", str(plot)]) == 0
    assert "8 channels, 8x8, T=2, batch 2" in plot.read_text()


@pytest.mark.parametrize("density", over_density.DENSITIES)
def test_currents_fire_at_their_density(density):
    currents = over_density._currents(Layer(channels=32, size=16, timesteps=3, batch=4), density)
    fired = (currents >= 1).double()
    assert fired.mean() == pytest.approx(density, abs=0.02)
    assert fired.amin(0).mean() >= density / 2 - 0.02


def test_where_two_curves_cross():
    rows = [{"density": d, "always_ms": a, "never_ms": 2.0} for d, a in ((0.1, 1.0), (0.3, 3.0), (0.2, 1.5))]
    assert crossing_of(rows) == pytest.approx(0.2 + 0.1 / 3)
    assert crossing_of(rows[:1]) is None


def test_runs_with_penalties_of_different_strength(runs, tmp_path, capsys):
    out, plot = tmp_path / "digits.jsonl", tmp_path / "sparsity.svg"
    options = ["--out", str(out), "--rounds", "2", "--batch", "4", "--threads", "1"]
    assert main(["sparsity", *map(str, runs), *options]) == 0
    said = capsys.readouterr().out
    assert said.startswith("weight 0: ")
    assert "weight 5: " in said
    plain, pressed = sparsity.table_of(out)
    assert pressed["density"] < plain["density"]
    assert plain["seeds"] == 1
    assert min(plain["ms"], plain["dense_ms"]) > 0
    pytest.importorskip("matplotlib")
    assert main(["sparsity", str(out), "--plot", str(plot)]) == 0
    assert "accuracy" in plot.read_text()
