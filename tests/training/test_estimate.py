"""How long a run will take, said before it starts; the run is the same to the bit with and without it."""

import re

import pytest
import torch
from quick_runs import quick

from spikedistill import train
from spikedistill.config import DataConfig, TrainerConfig
from spikedistill.run_folder import RunFolder
from spikedistill.training import estimate
from spikedistill.training.estimate import about, estimate_line, trial
from spikedistill.training.plan import make_plan

LINE = r"about [\d.]+ (s|min) an epoch, [\d.]+ (s|min) in all \(measured on 3 steps\)"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.1 s"), (0.44, "0.4 s"), (34.6, "35 s"), (150, "2.5 min"), (6000, "1.7 h"), (200_000, "2.3 days")],
)
def test_times_in_words(seconds, said):
    assert about(seconds) == said


def test_an_estimate_leaves_the_run_as_it_is_to_the_bit(tmp_path, capsys, monkeypatch):
    """With augmentation, timesteps drawn at random, a moving average and held-out samples; beside a run that is not estimated."""
    runs = []
    for name, fewest in (("with", 1), ("without", 10_000)):
        monkeypatch.setattr(estimate, "FEWEST_STEPS", fewest)
        data = DataConfig(name="digits", batch_size=60, train_samples=240, augment=("crop", "flip"), holdout=0.1)
        trainer = TrainerConfig(accelerator="cpu", ema=0.9)
        config = quick("digits-sltt-k", out=tmp_path / name, data=data, trainer=trainer, epochs=2)
        torch.manual_seed(7)
        runs.append((RunFolder(train(config)), torch.rand(3), capsys.readouterr().out))
    (first, drawn, said), (second, drawn_without, unsaid) = runs
    assert re.search(LINE, said)
    assert "measured on" not in unsaid
    for file in ("metrics.csv", "model.safetensors", "logits.safetensors"):
        assert (first.path / file).read_bytes() == (second.path / file).read_bytes()
    assert torch.equal(drawn, drawn_without)


def test_a_trial_draws_nothing_from_the_generators():
    plan = make_plan(quick("digits-sltt-k"))
    before = torch.get_rng_state()
    with trial(plan) as step:
        assert step(60) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_run_is_estimated_from_where_it_stands():
    plan = make_plan(quick("digits-sce", epochs=40))  # of 4 steps each
    assert re.fullmatch(LINE, estimate_line(plan))
    assert "for the 30 epochs that are left" in estimate_line(plan, steps_done=41)
    assert estimate_line(plan, steps_done=84) is None, "76 steps are left"


def test_short_runs_and_several_devices_are_not_estimated():
    assert estimate_line(make_plan(quick("digits-sce", epochs=19))) is None
    several = TrainerConfig(accelerator="cpu", devices=2)
    assert estimate_line(make_plan(quick("digits-sce", epochs=40, trainer=several))) is None


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_steps_on_trial_take_every_precision_and_a_teacher(precision):
    def teacher(images):
        return images.flatten(1)[:, :10]

    trainer = TrainerConfig(accelerator="cpu", precision=precision)
    for logits in ("computed", "cached"):
        plan = make_plan(quick("digits-skd", trainer=trainer, teacher_logits=logits), teacher)
        with trial(plan) as step:
            assert step(8) > 0
