"""What selects and what does not: the hold-out, the test set, and what is written down about each."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file

from spikedistill import train
from spikedistill.config import Config, DataConfig, TrainerConfig
from spikedistill.data import load_dataset
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.training.plan import make_plan


def config(data: dict | None = None, trainer: dict | None = None, **changes) -> Config:
    base = recipe("digits-twsd")
    small = {
        "epochs": 4,
        "timesteps": 2,
        "data": DataConfig(name="digits", batch_size=60, **(data or {})),
        "model": base.model.model_copy(update={"width": 0.25}),
        "trainer": TrainerConfig(accelerator="cpu", progress=False, **(trainer or {})),
    }
    return base.model_copy(update=small | changes)


def rows_of(run: RunFolder) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(run.metrics.read_text().splitlines())]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    out = tmp_path_factory.mktemp("protocol") / "run"
    return RunFolder(train(config({"holdout": 0.2}, {"track_test": True}, out=out)))


def test_the_holdout_is_kept_aside_whatever_the_seed():
    first, second = make_plan(config({"holdout": 0.25}, seed=1)), make_plan(config({"holdout": 0.25}, seed=2))
    assert first.holdout is not None
    assert torch.equal(first.holdout.targets, second.holdout.targets)
    n = len(load_dataset("digits").train)
    assert len(first.train) + len(first.holdout) == n
    assert len(first.holdout) == -(-n // 4)

    def images(samples) -> set[bytes]:
        return {image.numpy().tobytes() for image in samples.inputs(torch.arange(len(samples)))}

    assert not images(first.train) & images(first.holdout)
    assert make_plan(config()).holdout is None


def test_the_selected_epoch_is_the_first_best_on_the_holdout(run):
    rows = rows_of(run)
    accuracies = [row["holdout_accuracy_2"] for row in rows]
    results = json.loads(run.results.read_text())
    best = rows[accuracies.index(max(accuracies))]
    assert results["selected"]["ensemble"][1]["accuracy"] == pytest.approx(best["test_accuracy_2"], abs=1e-12)
    assert results["last"]["ensemble"][1]["accuracy"] == pytest.approx(rows[-1]["test_accuracy_2"], abs=1e-12)
    assert results["last"]["single"][0]["nll"] == pytest.approx(rows[-1]["test_ce_single_1"], rel=1e-12)


def test_the_best_test_epoch_is_only_shown(run, tmp_path):
    rows, results = rows_of(run), json.loads(run.results.read_text())
    accuracies = [row["test_accuracy_2"] for row in rows]
    assert results["best_test"] == {"epoch": 1 + accuracies.index(max(accuracies)), "accuracy": max(accuracies)}
    untracked = RunFolder(train(config({"holdout": 0.2}, out=tmp_path / "run")))
    assert "best_test" not in json.loads(untracked.results.read_text())
    assert not any(key.startswith("test") for key in rows_of(untracked)[0])
    assert untracked.model.read_bytes() == run.model.read_bytes(), "looking at the test set changes nothing"


def test_temperatures_are_fitted_on_the_holdout_per_number_of_timesteps(run):
    last = json.loads(run.results.read_text())["last"]
    assert [entry["k"] for entry in last["calibrated"]] == [1, 2]
    saved = load_file(run.logits)
    scores = saved["holdout_logits"].double()[:1].mean(0)

    def nll(temperature: float) -> float:
        return torch.nn.functional.cross_entropy(scores / temperature, saved["holdout_targets"]).item()

    fitted = last["calibrated"][0]["temperature"]
    assert nll(fitted) <= min(nll(fitted * 1.02), nll(fitted * 0.98))


def test_beyond_the_trained_timesteps_is_kept_apart(run):
    last = json.loads(run.results.read_text())["last"]
    assert [entry["k"] for entry in last["ensemble"]] == [1, 2]
    assert [entry["k"] for entry in last["beyond"]] == [3, 4, 5, 6, 7, 8]
    saved = load_file(run.logits)
    assert len(saved["logits"]) == 2
    shares = saved["beyond_right"].double().mean(1).tolist()
    assert shares == pytest.approx([entry["accuracy"] for entry in last["beyond"]])


def test_firing_rates_are_those_of_a_recorded_pass(run):
    from spikedistill import load
    from spikedistill.evaluation import record

    layers = json.loads(run.results.read_text())["last"]["firing_rates"]
    assert [layer["layer"] for layer in layers] == ["features.1", "features.3", "features.5"]
    model, test = load(run.path), load_dataset("digits").test
    images = test.inputs(torch.arange(len(test))).float() / 255
    with torch.no_grad(), record(model) as recording:
        model(images, timesteps=2)
    for layer, rates in zip(layers, recording.rates.values(), strict=True):
        assert layer["rates"] == pytest.approx(rates.tolist(), abs=1e-6)


def test_training_options_of_lightning_reach_it(tmp_path):
    """Accumulating two batches of 30 is one step of 60 but for batch-norm; here only that it steps half as often."""
    options = {"accumulate": 2, "clip": 1.0, "logger": "csv", "precision": "bf16-mixed"}
    run = RunFolder(train(config({"train_samples": 240}, options, epochs=1, out=tmp_path / "run")))
    assert torch.load(run.checkpoint, weights_only=False)["global_step"] == 2, "240 / 60 / 2"
    assert list(run.path.rglob("lightning_logs/*/metrics.csv"))


@pytest.mark.parametrize(
    ("data", "trainer", "said"),
    [
        ({}, {"logger": "wandb"}, "pip install wandb"),
        ({"augment": ("mirror",)}, {}, "choose one of autoaugment, crop"),
        ({"augment": ("autoaugment",)}, {}, "colour"),
        ({"holdout": 0.999}, {}, "hold-out"),
    ],
)
def test_wrong_options_are_named(data, trainer, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        train(config(data, trainer, out=tmp_path / "run"))
