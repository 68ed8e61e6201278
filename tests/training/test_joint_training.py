"""An ANN trained beside the network: real runs, resumed and averaged ones, and what does not fit."""

import csv
import json

import pytest
import torch
from quick_runs import assert_resumes_to_the_same_bytes, quick
from safetensors import safe_open

from spikedistill import load, train
from spikedistill.models import Branched
from spikedistill.run_folder import RunFolder
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan

NAME = "digits-joint-asnn-unofficial"


def with_holdout(config):
    return config.model_copy(update={"data": config.data.model_copy(update={"holdout": 0.1})})


def test_the_run_learns_from_both_and_leaves_the_network_alone(tmp_path):
    run = RunFolder(train(with_holdout(quick(NAME, out=tmp_path / "run", epochs=12))))
    rows = list(csv.DictReader(run.metrics.read_text().splitlines()))
    for row in rows:
        value = {key: float(cell) for key, cell in row.items()}
        assert value["train_loss"] == pytest.approx(
            0.9 * value["loss/exits_ce"] + 0.1 * value["loss/exits_kd"], rel=1e-4
        )
    assert float(rows[-1]["loss/exits_ce"]) < float(rows[0]["loss/exits_ce"])
    # three exits of the ANN, three of the network, of which the last is the network
    last = {key: float(cell) for key, cell in rows[-1].items()}
    assert last["holdout_head_accuracy_6"] == pytest.approx(last["holdout_accuracy_3"])
    assert last["holdout_head_accuracy_3"] > 0.3, "the ANN's own; chance is 0.1"
    assert json.loads(run.results.read_text())["last"]["ensemble"][-1]["accuracy"] > 0.3
    with safe_open(run.model, framework="pt") as file:
        plain = make_plan(quick("digits-sce", out=tmp_path / "x")).build_network().module.state_dict()
        assert {*file.keys()} == plain.keys()
    assert not isinstance(load(run.path), Branched)
    assert run.report.is_file()


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}])
def test_a_run_that_breaks_off_is_resumed_to_the_same_bytes(options, tmp_path, monkeypatch):
    trainer = quick(NAME).trainer.model_copy(update=options)
    assert_resumes_to_the_same_bytes(quick(NAME, out=tmp_path, trainer=trainer), monkeypatch)


def test_the_ann_learns_what_the_network_does_not(tmp_path):
    """The shared vectors are learned once, by both; singular values, batch-norms and heads by one network each."""
    module = DistillationModule(make_plan(quick(NAME, out=tmp_path)))
    images, target = torch.rand(8, 1, 8, 8), torch.arange(8)
    _, exits, _ = module.look(images, torch.arange(len(images)))
    assert exits.shape == (6, 8, 10)
    module.plan.objective(exits, target).total.backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("digits-sce", {"joint": True}, "objective 'sce' uses no ANN alongside the network: omit --model.joint, or use"),
        (NAME, {"joint": False}, "needs an ANN alongside the network: add --model.joint"),
        (NAME, {"branches": True}, "leave --model.branches out"),
        (NAME, {"neuron": "relu"}, "a joint network is one of spiking neurons"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_training(name, changes, message, tmp_path):
    config = quick(name, out=tmp_path)
    with pytest.raises(ValueError, match=message):
        make_plan(config.model_copy(update={"model": config.model.model_copy(update=changes)}))
