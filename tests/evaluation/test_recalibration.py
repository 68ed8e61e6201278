"""Batch-norm statistics computed anew: by hand on small networks, of other libraries' kind, and of runs."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from quick_runs import quick
from torch import nn

from spikedistill import LIF, UserError, evaluate, load, temporal, train
from spikedistill.cli import main
from spikedistill.data import load_dataset
from spikedistill.evaluation import AnytimeClassifier, recalibrate, recalibrated
from spikedistill.evaluation.results import read_results
from spikedistill.models import TimestepBatchNorm
from spikedistill.report import write_report
from spikedistill.report.blocks import Table
from spikedistill.report.run.reading import read_run
from spikedistill.report.run.sections.accuracy import accuracy_section
from spikedistill.run_folder import RunFolder
from spikedistill.through_time import synchronise_batch_norm

T = 4


def network() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), LIF()
    net = temporal(nn.Sequential(*first, nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), LIF(), nn.Flatten(), nn.Linear(96, 3)))
    for _ in range(20):
        net.train()(torch.rand(16, 1, 8, 8), T)
    return net.eval()


def batches(count: int = 5) -> list[torch.Tensor]:
    return list(torch.rand(count, 20, 1, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_statistics_are_means_over_batches_and_everything_else_stays():
    net, given = network(), batches()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.module[1].momentum = 0.3
    assert recalibrate(net, given, lambda own, x: own(x, 1)) == 2
    currents = [net.module[0](x) for x in given]
    mean = torch.stack([current.mean((0, 2, 3)) for current in currents]).mean(0)
    variance = torch.stack([current.var((0, 2, 3)) for current in currents]).mean(0)
    torch.testing.assert_close(net.module[1].running_mean, mean)
    torch.testing.assert_close(net.module[1].running_var, variance)
    assert net.module[1].momentum == 0.3
    assert not any(module.training for module in net.modules())
    for name, value in net.state_dict().items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, before[name]), name


def test_a_smaller_batch_counts_less():
    norm = nn.BatchNorm1d(3)
    values = torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
    recalibrate(norm, [values[:40], values[40:]])
    torch.testing.assert_close(norm.running_mean, values.mean(0))
    variances = [part.var(0) for part in (values[:40], values[40:])]
    torch.testing.assert_close(norm.running_var, (4 * variances[0] + variances[1]) / 5)
    assert not norm._forward_pre_hooks


class SharedNorm(nn.Module):
    """One batch-norm under two paths, which a pass comes to twice."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.first, self.second, self.neurons = norm, norm, LIF()

    def forward(self, x):
        return self.second(self.neurons(self.first(x)))


class ShiftedNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


def test_a_batch_norm_with_two_paths_is_one_and_one_of_another_kind_is_refused():
    network, x = temporal(SharedNorm(nn.BatchNorm2d(2))).eval(), torch.rand(20, 2, 5, 5) * 4
    recalibrate(network, [x], lambda own, x: own(x, 1))
    with torch.no_grad():
        spikes = temporal(LIF())(F.batch_norm(x, None, None, training=True), 1)[0]
    assert spikes.mean() > 0.05
    torch.testing.assert_close(network.module.first.running_mean, (x.mean((0, 2, 3)) + spikes.mean((0, 2, 3))) / 2)
    twice = copy.deepcopy(network)
    recalibrate(twice, [x], lambda own, x: own(x, 1), norms=[twice.module.first, twice.module.second])
    torch.testing.assert_close(twice.module.first.running_mean, network.module.first.running_mean)
    assert isinstance(recalibrated(synchronise_batch_norm(network), [x], T).module.first, TimestepBatchNorm)
    made = recalibrated(network, [x], T)
    assert made.module.first is made.module.second
    assert isinstance(made.module.first, TimestepBatchNorm)
    with pytest.raises(UserError, match="first is a ShiftedNorm with a forward of its own"):
        recalibrated(temporal(SharedNorm(ShiftedNorm(2))).eval(), [x], T)


class TwoWays(nn.Module):
    """Of its two batch-norms a pass comes to the first."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.used(x)


def test_statistics_that_no_pass_or_a_failed_one_computes_stay_as_they_were():
    network = TwoWays()
    for norm in (network.used, network.unused):
        norm.running_mean.fill_(4.0)
        norm.num_batches_tracked.fill_(20)

    def broken():
        yield torch.rand(8, 3)
        raise OSError("the disk is gone")

    for batches, error in (([], UserError), (broken(), OSError), ([torch.rand(8, 3), torch.rand(1, 3)], ValueError)):
        with pytest.raises(error):
            recalibrate(network, batches)
        assert network.used.running_mean.tolist() == [4.0] * 3
        assert network.used.num_batches_tracked == 20
        assert network.used.momentum == 0.1
    batch = torch.rand(8, 3)
    recalibrate(network, [batch])
    torch.testing.assert_close(network.used.running_mean, batch.mean(0))
    recalibrate(network, [batch[:0], batch, batch[:0]])
    torch.testing.assert_close(network.used.running_mean, batch.mean(0))
    made = recalibrated(temporal(network).eval(), [batch], T)
    torch.testing.assert_close(made.module.unused.running_mean, torch.full((T, 3), 4.0))
    assert network.unused.running_mean.tolist() == [4.0] * 3


def test_every_timestep_by_itself_and_in_shares():
    net, given = network(), batches()
    whole = recalibrated(net, given, T, shares=[1.0] * T)
    norms = [module for module in whole.modules() if isinstance(module, TimestepBatchNorm)]
    assert [norm.running_mean.shape for norm in norms] == [(T, 4), (T, 6)]
    current = torch.stack([net.module[0](x) for x in given])
    mean = current.mean((1, 3, 4)).mean(0)
    for t in range(T):  # the first layer's currents are the same at every timestep
        torch.testing.assert_close(norms[0].running_mean[t], mean)
    # the second layer's differ: membranes begin empty, so that fewer neurons fire at first
    assert (norms[1].running_mean[0] - norms[1].running_mean[-1]).abs().max() > 0.01
    nothing = recalibrated(net, given, T, shares=[0.0] * T)
    x = torch.rand(7, 1, 8, 8)
    torch.testing.assert_close(nothing(x, T), net(x, T))
    half = recalibrated(net, given, T, shares=[0.5, 0.5, 0.25, 0.0])
    own, old = norms[1], net.module[4]
    found = half.module[4]
    for t, share in enumerate([0.5, 0.5, 0.25, 0.0]):
        expected = share * own.running_mean[t] + (1 - share) * old.running_mean
        torch.testing.assert_close(found.running_mean[t], expected)
        second = share * (own.running_var[t] + own.running_mean[t] ** 2)
        second = second + (1 - share) * (old.running_var + old.running_mean**2)
        torch.testing.assert_close(found.running_var[t], second - expected**2)  # that of the mixture
    usual = recalibrated(net, given, T).module[4]
    torch.testing.assert_close(usual.running_mean[-1], old.running_mean)
    torch.testing.assert_close(usual.running_mean[0], 0.75 * own.running_mean[0] + 0.25 * old.running_mean)


def test_a_recalibrated_network_streams_as_it_runs_whole_and_the_given_one_stays():
    net, given = network(), batches()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = recalibrated(net, given, T)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    x, state, steps = torch.rand(6, 1, 8, 8), None, []
    for _ in range(T):
        logits, state = made.step(x, state)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps), made(x, T))
    frames = torch.stack([x] * T)
    torch.testing.assert_close(recalibrated(net, [torch.stack([b] * T) for b in given], T)(frames), made(x, T))


def test_a_network_of_any_library():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2)).train()
    data = [torch.randn(30, 5) + 3 for _ in range(4)]
    recalibrate(net, data)
    expected = torch.stack([net[0](x).mean(0) for x in data]).mean(0)
    torch.testing.assert_close(net[1].running_mean, expected)
    assert net.training
    assert net[2].training


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: recalibrate(nn.Linear(2, 2), [torch.rand(3, 2)]), "no batch-norm with running statistics"),
        (lambda: recalibrate(network(), []), "held no batch"),
        (lambda: recalibrated(network(), [], T), "held no batch"),
        (lambda: recalibrated(network(), batches(), T, k=5), "k is 5"),
        (lambda: recalibrated(network(), batches(), T, shares=[0.5]), "expected 4 numbers from 0 to 1"),
        (lambda: recalibrated(temporal(nn.Sequential(nn.Linear(2, 2), LIF())), batches(), T), "nothing to recalibrate"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(train(quick("digits-sce", out=tmp_path_factory.mktemp("runs") / "run", epochs=12, timesteps=T)))


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "new.safetensors", ""])
def test_nothing_of_the_run_is_overwritten(run: Path, name: str, capsys):
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert main(["recalibrate", str(run), "--out", str(run / name)]) == 2
    said = capsys.readouterr().err
    assert "name another file, such as every.safetensors" in said
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_run_is_scored_with_other_statistics_and_writes_a_file_that_is_loaded(run: Path, tmp_path: Path, capsys):
    trained = [score["accuracy"] for score in evaluate(run)["last"]["ensemble"]]
    found = evaluate(run, recalibrate=200)
    assert [score["accuracy"] for score in found["last"]["ensemble"]] == trained
    other = found["recalibrated"]
    assert other["samples"] == 200
    assert other["each_k"][0] > trained[0], "which is poor after one timestep"
    assert main(["evaluate", str(run), "--recalibrate", "200"]) == 0
    said = capsys.readouterr().out
    assert "With batch-norm statistics of 200 training samples" in said
    assert f"{100 * other['each_k'][0]:.2f}" in said
    assert read_results(RunFolder(run)).recalibrated.mixture == other["mixture"]
    assert "Statistics of each timestep" in write_report(run).read_text()
    table = next(block for block in accuracy_section(read_run(run)).blocks if isinstance(block, Table))
    for key in ("each_k", "mixture"):
        assert [row[key] for row in table.rows] == other[key]
    file = tmp_path / "mixture.safetensors"
    assert main(["recalibrate", str(run), "--out", str(file), "--samples", "200"]) == 0
    said = capsys.readouterr().out
    assert f"recalibrated: {100 * other['mixture'][0]:.2f} % at k=1" in said
    images = load_dataset("digits").test
    x = images.inputs(torch.arange(len(images))) / 255
    model = load(file)
    right = (model(x, T).cumsum(0).argmax(-1) == images.targets).double().mean(1)
    assert right.tolist() == pytest.approx(other["mixture"])
    AnytimeClassifier(model, "confidence", 0.9, T)(x[:5])
    one = tmp_path / "one.safetensors"
    assert main(["recalibrate", str(run), "--out", str(one), "--timesteps", "1", "--samples", "200"]) == 0
    assert load(one).timesteps == 1
    accuracy = (load(one)(x, 1)[0].argmax(-1) == images.targets).double().mean()
    assert float(accuracy) == pytest.approx(other["each_k"][0])
    for words, what in (
        (["--timesteps", "9"], "timesteps is 9, expected 1 to 4"),
        (["--samples", "1"], "samples is 1"),
    ):
        assert main(["recalibrate", str(run), "--out", str(tmp_path / "x"), *words]) == 2
        assert what in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert main(["evaluate", str(run), "--recalibrate", "1"]) == 2
    results = json.loads((run / "results.json").read_text())
    assert results["recalibrated"]["samples"] == 200
