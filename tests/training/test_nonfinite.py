"""A number that becomes NaN or infinite is found in its step, nothing is updated by it, and the run says where it was."""

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quick_runs import quick

from spikedistill import train
from spikedistill.cli import main
from spikedistill.config import Config
from spikedistill.data import TensorSamples
from spikedistill.models import create_model, save_model
from spikedistill.run_folder import RunDiverged, RunFolder
from spikedistill.training.checkpoints import read_checkpoint
from spikedistill.training.constant_layers import constant_layers
from spikedistill.training.finite import Watch, first_not_finite
from spikedistill.training.module import DistillationModule, make_optimizer
from spikedistill.training.plan import make_plan
from spikedistill.training.run import make_batches, make_trainer

CASE = ["train", "digits-sce", "--epochs", "12", "--timesteps", "2", "--model.width", "0.25"]
CASE += ["--data.train-samples", "300", "--trainer.accelerator", "cpu", "--trainer.no-progress"]


def with_trainer(config: Config, **options) -> Config:
    return config.model_copy(update={"trainer": config.trainer.model_copy(update=options)})


def fitted(config: Config, tmp_path: Path, change=None, callbacks=()) -> DistillationModule:
    """A module after training; `change(module)` before it begins."""
    plan = make_plan(config)
    module, trainer = DistillationModule(plan), make_trainer(plan, tmp_path, list(callbacks))
    if change is not None:
        change(module)
    with pytest.MonkeyPatch.context():
        import warnings

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            trainer.fit(module, make_batches(module.plan, trainer))
    return module


def poisoned(module: DistillationModule, step: int, kind: str) -> None:
    """Put NaN into the loss, the gradient or a running statistic of one step, counted from 0."""
    training_step = module.training_step

    def poison(batch, batch_idx):
        loss = training_step(batch, batch_idx)
        if module.current_epoch * int(module.trainer.num_training_batches) + batch_idx != step:
            return loss
        if kind == "loss":
            module.watch.window[-1] = module.watch.window[-1]._replace(loss=loss.detach() * torch.nan)
            return loss * torch.nan
        if kind == "gradient":
            parameter = next(module.parameters())
            return (
                loss + (parameter.flatten()[0] - parameter.flatten()[0].detach()).clamp(min=0).sqrt()
            )  # 0, of slope inf
        _, statistic = next(item for item in module.named_buffers() if item[0].endswith("running_var"))
        statistic[0] = torch.inf
        return loss

    module.training_step = poison


def test_a_learning_rate_far_too_high_stops_at_the_first_step_that_is_not_finite(tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    assert main([*CASE, "--optimizer.lr", "1e12", "--out", str(run.path)]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "became NaN or infinite in step" in message
    assert "terms of the loss: sce" in message
    details = json.loads(run.diverged.read_text())
    assert details.keys() == {"step", "epoch", "what", "layer", "terms", "samples", "message"}
    assert details["step"] < 60
    assert not run.model.is_file()
    assert not run.is_complete


def test_the_last_good_checkpoint_stays_and_goes_on_where_the_reason_is_gone(tmp_path, monkeypatch):
    config = with_trainer(quick("digits-sce", out=tmp_path / "run", epochs=3, resume="auto"), checkpoint_seconds=0.0)
    whole = RunFolder(train(config.model_copy(update={"out": tmp_path / "whole"})))
    on_fit_start = DistillationModule.on_fit_start
    with monkeypatch.context() as patch:

        def start(module):
            on_fit_start(module)
            poisoned(module, 6, "gradient")

        patch.setattr(DistillationModule, "on_fit_start", start)
        with pytest.raises(RunDiverged, match=r"the gradient of .* became NaN or infinite in step 7, epoch 2"):
            train(config)
    run = RunFolder(config.run_folder)
    assert read_checkpoint(run.checkpoint)["global_step"] == 6
    assert all(torch.isfinite(tensor).all() for tensor in read_checkpoint(run.checkpoint)["state_dict"].values())
    assert run.diverged.is_file()
    train(config)
    assert run.model.read_bytes() == whole.model.read_bytes()
    assert not run.diverged.is_file()


@pytest.mark.parametrize("kind", ["loss", "gradient", "running statistic"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits-sce", {}),
        ("digits-rate", {}),
        ("digits-esd", {"clip": 1.0}),
        ("digits-joint-asnn-unofficial", {}),
        ("digits-dsr", {"accumulate": 2}),
        ("digits-s2w", {"ema": 0.9}),
        ("digits-sce", {"precision": "bf16-mixed"}),
    ],
)
def test_the_update_does_not_happen(name, options, kind, tmp_path):
    modules = []

    def change(module):
        modules.append(module)
        poisoned(module, 2, kind)

    config = with_trainer(quick(name, out=tmp_path / "run", epochs=1), **options)
    with pytest.raises(RunDiverged, match=rf"^the {kind}") as error:
        fitted(config, tmp_path, change)
    # as after the steps before it
    assert error.value.details["step"] == (2 if options.get("accumulate") == 2 else 3)
    assert all(torch.isfinite(p).all() for p in modules[0].parameters())


def test_a_weight_that_the_update_makes_infinite_is_found_in_that_step(tmp_path):
    config = quick("digits-sce", out=tmp_path / "run")
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"schedule": "constant"})})

    def change(module):
        configure = module.configure_optimizers

        def overflowing():
            found = configure()
            found["optimizer"].param_groups[0]["lr"] = 1e38
            found["optimizer"].param_groups[0]["initial_lr"] = 1e38
            found.pop("lr_scheduler")
            with torch.no_grad():
                next(module.parameters()).mul_(1e3)
            return found["optimizer"]

        module.configure_optimizers = overflowing

    with pytest.raises(RunDiverged, match=r"^the (weight|loss|running|gradient)") as error:
        fitted(config, tmp_path, change)
    assert error.value.details["step"] <= 2


@pytest.mark.parametrize(("value", "kind"), [(torch.nan, "NaN"), (torch.inf, "infinity")])
def test_samples_that_hold_it_are_named_by_their_place_in_the_training_set(value, kind, tmp_path):
    def change(module):
        images = module.plan.train.inputs(torch.arange(240)).float() / 255
        images[[17, 101]] = value
        module.plan = replace(module.plan, train=TensorSamples(images, module.plan.train.targets))

    config = quick(
        "digits-sce", out=tmp_path / "run", data=quick("digits-sce").data.model_copy(update={"batch_size": 240})
    )
    with pytest.raises(RunDiverged, match="the first layer to return it is the input, on samples") as error:
        fitted(config, tmp_path, change)
    assert sorted(error.value.details["samples"]) == [17, 101]


def test_the_first_layer_is_named_though_spikes_hide_it(tmp_path):
    def change(module):
        network = dict(module.network.named_modules())
        name = next(name for name in network if name.endswith("features.2.0"))
        with torch.no_grad():
            network[name].weight[0, 0, 0, 0] = torch.nan

    with pytest.raises(RunDiverged) as error:
        fitted(quick("digits-sce", out=tmp_path / "run"), tmp_path, change)
    assert error.value.details["layer"] == "features.2.0"
    assert error.value.details["step"] == 1


@pytest.mark.parametrize("kind", ["loss", "gradient", "running statistic"])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip": 0.5}])
def test_skip_leaves_the_step_out_as_if_it_had_not_been(options, kind, tmp_path):
    """The weights after it are those before it; the count is in metrics.csv."""
    states = []

    def change(module):
        poisoned(module, 2, kind)
        update = module.optimizer_step

        def stepping(*arguments, **named):
            before = (
                copy.deepcopy(module.state_dict()),
                copy.deepcopy(module.trainer.optimizers[0].state_dict()["state"]),
            )
            update(*arguments, **named)
            states.append(
                (before, (copy.deepcopy(module.state_dict()), module.trainer.optimizers[0].state_dict()["state"]))
            )

        module.optimizer_step = stepping

    config = with_trainer(quick("digits-sce", out=tmp_path / "run"), on_nonfinite="skip", **options)
    module = fitted(config, tmp_path, change)
    assert module.skipped == 1
    of_step = 1 if options.get("accumulate") == 2 else 2
    for number, (before, after) in enumerate(states):
        same = all(torch.equal(before[0][name], after[0][name]) for name in before[0] if "num_batches" not in name)
        # running statistics of the step itself have moved before its update begins
        weights = [name for name in before[0] if "running" not in name and "num_batches" not in name]
        assert all(torch.equal(before[0][name], after[0][name]) for name in weights) == (number == of_step)
        assert not same or number == of_step
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    assert module.seen == 240 - (120 if options.get("accumulate") == 2 else 60)
    assert all(torch.isfinite(value) for value in module.sums.values())


def test_skipped_steps_are_counted_in_metrics_and_an_epoch_of_nothing_else_stops(tmp_path, monkeypatch):
    on_fit_start = DistillationModule.on_fit_start

    def start(module):
        on_fit_start(module)
        poisoned(module, 1, "gradient")

    monkeypatch.setattr(DistillationModule, "on_fit_start", start)
    run = RunFolder(train(with_trainer(quick("digits-sce", out=tmp_path / "run", epochs=2), on_nonfinite="skip")))
    rows = list(csv.DictReader(run.metrics.read_text().splitlines()))
    assert [row["skipped_steps"] for row in rows] == ["1", "0"]
    monkeypatch.undo()
    high = ["--optimizer.lr", "1e12", "--trainer.on-nonfinite", "skip", "--out", str(tmp_path / "high")]
    assert main([*CASE, *high]) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", [None, "loss", "gradient"])
def test_a_device_that_is_asked_seldom_updates_nothing_after_the_first_bad_step(optimizer, kind, tmp_path):
    """The way of a GPU, on a CPU: the fused optimiser reads a flag, and the batch is computed again once the flag is read."""
    config = quick("digits-sce", out=tmp_path / "run", epochs=3)
    config = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"name": optimizer, "lr": 0.01})}
    )
    weights = []

    def lazily(module):
        make, begin = make_optimizer, module.on_fit_start

        def configure():
            return make(module, config.optimizer, fused=True)

        def start():
            begin()
            module.watch = Watch(module, skip=False, lazily=True, every=4)
            if kind is not None:
                poisoned(module, 5, kind)

        update = module.optimizer_step

        def stepping(*arguments, **named):
            update(*arguments, **named)
            weights.append(next(module.parameters()).detach().clone())

        module.configure_optimizers, module.on_fit_start, module.optimizer_step = configure, start, stepping

    if kind is None:
        module = fitted(config, tmp_path, lazily)
        module.watch.settle()
        assert len(weights) == 12
        assert not torch.equal(weights[-1], weights[-2])
        return
    with pytest.raises(RunDiverged, match=r"in step 6, epoch 2") as error:
        fitted(config, tmp_path, lazily)
    assert error.value.details["step"] == 6
    assert len(weights) == 7, "it is found at the eighth step"
    assert torch.equal(weights[4], weights[5]), "the sixth update does nothing"
    assert torch.equal(weights[5], weights[6]), "nor does the next"
    assert not torch.equal(weights[3], weights[4])


def test_a_window_of_accumulation_is_divided_by_the_batches_that_it_holds(tmp_path):
    """Five batches in windows of four: the second window holds one, and has the gradient of that batch."""
    gradients = {}

    def record_into(name):
        def change(module):
            found = gradients.setdefault(name, [])
            look = module.on_before_optimizer_step

            def looking(optimizer):
                found.append([p.grad.clone() for p in module.parameters()])
                optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.0  # so that weights stay
                look(optimizer)

            module.on_before_optimizer_step = looking

        return change

    data = quick("digits-sce").data.model_copy(update={"batch_size": 48})
    config = quick("digits-sce", out=tmp_path / "run", data=data)
    config = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"momentum": 0.0, "weight_decay": 0.0})}
    )
    fitted(with_trainer(config, accumulate=4), tmp_path, record_into("windows"))
    fitted(config, tmp_path, record_into("each"))
    assert [len(found) for found in gradients.values()] == [2, 5]
    mean = [torch.stack(parts).mean(0) for parts in zip(*gradients["each"][:4], strict=True)]
    for found, expected in ((gradients["windows"][0], mean), (gradients["windows"][1], gradients["each"][4])):
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-7)


def test_a_network_with_nan_is_refused_as_a_run_and_as_a_teacher(tmp_path, capsys):
    spec = {"name": "convnet", "num_classes": 10, "in_channels": 1, "image_size": 8, "neuron": "relu", "width": 0.25}
    for kind in ("weight", "running_var"):
        network = create_model(**spec)
        name, tensor = next(item for item in network.module.state_dict().items() if item[0].endswith(kind))
        tensor.flatten()[0] = torch.nan
        save_model(network, spec, tmp_path / "teacher.safetensors")
        arguments = ["train", "digits-skd", "--teacher", str(tmp_path / "teacher.safetensors")]
        assert main([*arguments, "--out", str(tmp_path / "student")]) == 2
        assert f"in {name} that are NaN or infinite" in capsys.readouterr().err
    run = RunFolder(train(quick("digits-sce", out=tmp_path / "run")))
    network = run.load_network(run.model)
    next(iter(network.parameters())).data.flatten()[0] = torch.nan
    plan = make_plan(quick("digits-sce", out=tmp_path / "run"))
    with run.rewriting(run.model):
        plan.save(network, run.model)
    assert main(["evaluate", str(run.path)]) == 2
    assert "that are NaN or infinite" in capsys.readouterr().err


def test_sums_that_overflow_are_no_numbers_that_are_not_finite():
    large = torch.full((4,), 3e38)
    assert first_not_finite([("large", large)]) is None
    assert first_not_finite([("large", large), ("nan", torch.tensor([1.0, torch.nan]))]) == "nan"
    assert first_not_finite([("both", torch.tensor([torch.inf, -torch.inf]))]) == "both"
    assert first_not_finite([]) is None


def test_layers_that_never_or_always_fire_are_named_while_training_and_in_the_report(tmp_path, caplog):
    config = quick("digits-sce", out=tmp_path / "run")
    lif = config.model.lif.model_copy(update={"threshold": 1e6})
    run = RunFolder(train(config.model_copy(update={"model": config.model.model_copy(update={"lif": lif})})))
    said = [record.message for record in caplog.records if "fires" in record.message]
    assert len(said) == 1
    assert said[0].startswith("epoch 1: features.1, features.3")
    assert said[0].endswith("never fires on 32 training samples")
    assert "never fire on the test set" in run.report.read_text()
    network, plan = create_model(**plan_spec()), make_plan(quick("digits-sce", out=tmp_path / "other"))
    state = torch.get_rng_state()
    before = copy.deepcopy(network.state_dict())
    constant_layers(network.train(), plan.train, "image", 2)
    assert network.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def plan_spec() -> dict:
    return {"name": "convnet", "num_classes": 10, "in_channels": 1, "image_size": 8, "width": 0.25}
