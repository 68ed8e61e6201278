"""The whole step that a GPU records, run on the CPU as it is: the same function, bit for bit what the ordinary steps compute."""

import copy
import csv
import math
from dataclasses import replace

import pytest
import torch
from quick_runs import quick
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from waiting import DEVICE, NoWaiting

from spikedistill.config import DataConfig
from spikedistill.data import TensorSamples
from spikedistill.run_folder import RunDiverged, RunFolder
from spikedistill.training.callbacks import EpochRecord, MovingAverage
from spikedistill.training.finite import Watch
from spikedistill.training.means import EpochMeans
from spikedistill.training.module import DistillationModule
from spikedistill.training.optimizers import make_optimizer
from spikedistill.training.plan import make_plan
from spikedistill.training.progress import ProgressBar, Speedometer
from spikedistill.training.run import fit, make_trainer
from spikedistill.training.whole_step import StaticStep, WholeStep, can_be_whole

SETTINGS = {
    "clipped and averaged": {"trainer.clip": 0.5, "trainer.ema": 0.9},
    "augmented": {"data.augment": ("crop", "cutout"), "gradient_scale": "1/T"},
    # in float32 exactly, as the whole step has the learning rate: AdamW multiplies it by others in float64
    "adamw": {"optimizer.name": "adamw", "optimizer.lr": 2**-7, "optimizer.schedule": "constant"},
    "ranked timesteps": {"objective.name": "s2w"},
    "heads": {"objective.name": "esd", "model.branches": True},
    "rate": {"gradient": "rate"},
}


def settings(**changes):
    """Two epochs of 130 digits in batches of 44, 43 and 43."""
    config = quick(
        "digits-sce", epochs=2, timesteps=2, data=DataConfig(name="digits", batch_size=60, train_samples=130)
    )
    for name, value in changes.items():
        section, _, field = name.rpartition(".")
        if section:
            value = {section: getattr(config, section).model_copy(update={field: value})}
        config = config.model_copy(update=value if section else {field: value})
    return config


def trained(config, folder, *, whole, spoil=None):
    """The module, and its metrics or why it diverged; `spoil` is the kind of number that is not finite in the third step."""
    plan = make_plan(config)
    if spoil == "input":
        images = plan.train.inputs(torch.arange(len(plan.train))).float() / 255
        images[7] = math.nan
        plan = replace(plan, train=TensorSamples(images, plan.train.targets))
    module = DistillationModule(plan, every=4, whole=whole)
    if spoil in ("loss", "weight"):
        spoil_third_step(module, spoil)
    folder.mkdir()
    callbacks = [EpochRecord(RunFolder(folder), plan, {})]
    if config.trainer.ema is not None:
        callbacks.insert(0, MovingAverage(decay=config.trainer.ema))
    trainer = make_trainer(plan, folder, callbacks)
    try:
        fit(trainer, module)
    except RunDiverged as error:
        return module, error.details
    with (folder / "metrics.csv").open() as file:
        return module, list(csv.reader(file))


def spoil_third_step(module, kind):
    """Make the loss of its batch infinite, or let decay do so with the first weights."""
    if kind == "weight":
        next(module.network.parameters()).data.mul_(1e14)  # which the batch-norm behind divides by
    preparing, valuing, numbers = module.prepared, module.value_of, []

    def prepared(samples, target, number):
        numbers.append(number)
        if kind == "weight" and number == 2:
            for group in module.optimizer.param_groups:
                group["lr"] = 1e30
        return preparing(samples, target, number)

    def value_of(*arguments):
        value, scores = valuing(*arguments)
        infinite = kind == "loss" and numbers[-1] == 2
        return (value._replace(total=value.total * math.inf) if infinite else value), scores

    module.prepared, module.value_of = prepared, value_of


def everything(module):
    return copy.deepcopy((module.state_dict(), module.trainer.optimizers[0].state_dict()["state"]))


@pytest.mark.parametrize("name", list(SETTINGS))
def test_whole_steps_leave_what_ordinary_steps_do(name, tmp_path):
    config = settings(**SETTINGS[name])
    (plain, rows), (whole, whole_rows) = (
        trained(config, tmp_path / str(is_whole), whole=is_whole) for is_whole in (False, True)
    )
    assert plain.whole is None
    assert isinstance(whole.whole, WholeStep)
    torch.testing.assert_close(everything(whole), everything(plain), rtol=0, atol=0)
    assert whole_rows == rows
    assert len(rows) == 3, "a header and two epochs"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recording needs a GPU")
@pytest.mark.parametrize("name", list(SETTINGS))
def test_recorded_steps_of_both_sizes_of_batches_leave_what_ordinary_steps_do(name, tmp_path, caplog):
    config = settings(**SETTINGS[name] | {"trainer.accelerator": "gpu"})
    (plain, _), (whole, _) = (trained(config, tmp_path / str(is_whole), whole=is_whole) for is_whole in (False, True))
    assert "recorded in parts only" not in caplog.text
    assert not whole.whole.failed
    torch.testing.assert_close(everything(whole), everything(plain), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", ["input", "loss", "weight"])
def test_a_step_that_is_not_finite_is_reported_as_by_ordinary_steps_and_nothing_is_updated_after(kind, tmp_path):
    config = settings(**{"optimizer.weight_decay": 5e-4})
    (plain, report), (whole, whole_report) = (
        trained(config, tmp_path / str(is_whole), whole=is_whole, spoil=kind) for is_whole in (False, True)
    )
    assert whole_report == report
    assert report["samples"] == [7] if kind == "input" else report["step"] == 3
    assert kind in report["message"]
    torch.testing.assert_close(everything(whole), everything(plain), rtol=0, atol=0, equal_nan=True)
    if kind != "weight":
        assert all(p.isfinite().all() for p in whole.parameters())


# PyTorch's statistics of batch-norm, which the rate rule takes, are not there for meta tensors
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "rate"])
def test_nothing_in_a_whole_step_waits_for_the_device_or_reads_the_host(name, tmp_path, monkeypatch):
    monkeypatch.setattr(StaticStep, "_update", lambda *_: None)  # PyTorch's fused optimisers take no meta tensors
    config = settings(**SETTINGS[name])
    plan = make_plan(config)
    module = DistillationModule(plan, every=4, whole=True).to(DEVICE)
    trainer = make_trainer(plan, tmp_path, [])
    trainer.strategy.connect(module)
    module.trainer = trainer
    trainer.strategy.optimizers = [make_optimizer(module, config.optimizer)]
    module.watch = Watch(module, skip=False, lazily=True)
    average = MovingAverage(decay=0.9)
    average.setup(trainer, module, "fit")
    average.begun = True
    module.update_average = lambda: average.update(module)
    inputs, labels = torch.rand(6, 1, 8, 8, device=DEVICE), torch.zeros(6, dtype=torch.int64, device=DEVICE)
    step = StaticStep(module, inputs, labels, labels)
    with NoWaiting() as seen:
        for _ in range(2):
            step.take(inputs, labels, labels, torch.zeros(5, device=DEVICE))
            step.compute()
    assert seen.copies == 0
    assert step.values.device == DEVICE


def test_the_moving_average_is_that_of_lightning_bit_for_bit(tmp_path):
    module = DistillationModule(make_plan(settings()))
    callback = MovingAverage(decay=0.9)
    callback.setup(make_trainer(module.plan, tmp_path, []), module, "fit")
    reference = AveragedModel(module, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)
    for step in range(4):
        for number, tensor in enumerate([*module.parameters(), *module.buffers()]):
            tensor.data += (0.1 * step + 0.01 * number) if tensor.is_floating_point() else 3 * step
        callback.update(module)
        reference.update_parameters(module)
    torch.testing.assert_close(callback._average_model.state_dict(), reference.state_dict(), rtol=0, atol=0)


def test_means_go_on_from_a_checkpoint_by_name():
    means = EpochMeans()
    means.load({"train_accuracy": 3.0, "train_loss": 8.0, "gone": 5.0, "ce_single_1": 0.0}, seen=4)
    step = {"train_loss": torch.tensor(1.0), "train_accuracy": torch.tensor(0.5), "ce_single": torch.tensor([2.0, 4.0])}
    before = means.state()
    means.add(step, 2)
    means.restore(before)  # a step that is left out
    means.add(step, 2)
    assert means.as_sums() == {"train_loss": 10.0, "train_accuracy": 4.0, "ce_single_1": 4.0, "ce_single_2": 8.0}
    means.seen = 8
    assert means.so_far().tolist() == [10 / 8, 4 / 8, 4 / 8], "means over the epoch, not the last batch"
    totals = means.totals
    means.reset()
    means.add(step, 1)
    assert means.totals is totals, "a recorded step finds them where they were"
    assert totals.tolist() == [1.0, 0.5, 2.0, 4.0]


def test_the_progress_bar_shows_loss_accuracies_and_speed(tmp_path, capfd):
    config = settings(**{"trainer.progress": True})
    plan = make_plan(config)
    trainer = make_trainer(plan, tmp_path, [ProgressBar(), Speedometer()])
    fit(trainer, DistillationModule(plan))
    shown = "".join(capfd.readouterr())
    assert all(f"{name}=" in shown for name in ("loss", "acc", "acc@1", "images/s"))
    assert "v_num" not in shown


def test_steps_in_which_python_decides_are_not_whole():
    assert can_be_whole(make_plan(settings()))
    for changes in (
        {"trainer.precision": "16-mixed"},
        {"trainer.on_nonfinite": "skip"},
        {"trainer.accumulate": 2},
        {"trainer.capture": False},
    ):
        assert not can_be_whole(make_plan(settings(**changes))), changes
