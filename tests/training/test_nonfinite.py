"""A number that becomes NaN or infinite is found in its step, nothing is updated by it, and the run says where it was."""

import copy
import csv
import json
import math
import multiprocessing
import os
import re
import socket
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from quick_runs import assert_resumes_to_the_same_bytes, quick

from spikedistill import train
from spikedistill.cli import main
from spikedistill.config import DataConfig
from spikedistill.data import TensorSamples
from spikedistill.evaluation import collect_logits
from spikedistill.models import create_model, save_model
from spikedistill.objectives import Objective, Term
from spikedistill.run_folder import RunDiverged, RunFolder
from spikedistill.training import run as running
from spikedistill.training.callbacks import EpochRecord, MovingAverage
from spikedistill.training.checkpoints import read_checkpoint
from spikedistill.training.constant_layers import constant_layers
from spikedistill.training.finite import not_finite
from spikedistill.training.mixed_timesteps import drawn_timesteps
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan
from spikedistill.training.run import fit, make_trainer
from spikedistill.training.teacher import MeanLogits

NAN, INF = math.nan, math.inf
FIRST_CONV, FIRST_NORM = "features.0.0", "features.0.1"


def settings(name="digits-sce", **trainer):
    """One epoch of 4 steps of 60 digits."""
    optimizer = trainer.pop("optimizer", {})
    config = quick(name, timesteps=2)
    return config.model_copy(
        update={
            "trainer": config.trainer.model_copy(update=trainer),
            "optimizer": config.optimizer.model_copy(update=optimizer),
        }
    )


def module_of(config, *, every=None, objective=None, images=None):
    """A module that has not been trained; `images(images, targets)` returns other training samples."""
    plan = make_plan(config)
    if objective is not None:
        plan = replace(plan, objective=objective)
    if images is not None:
        stored = plan.train.inputs(torch.arange(len(plan.train))).float() / 255
        images(stored, plan.train.targets)
        plan = replace(plan, train=TensorSamples(stored, plan.train.targets))
    return DistillationModule(plan, every=every)


def trained(module, folder, *callbacks):
    fit(make_trainer(module.plan, folder, list(callbacks)), module)
    return module


def diverges(module, folder, *callbacks):
    """What the run says as it stops, which is one line and what `diverged.json` holds."""
    with pytest.raises(RunDiverged) as caught:
        trained(module, folder, *callbacks)
    found = caught.value.details
    assert found.keys() == {"step", "epoch", "what", "layer", "terms", "samples", "message"}
    assert str(caught.value) == found["message"]
    assert "\n" not in found["message"]
    assert f"became NaN or infinite in step {found['step']}, epoch {found['epoch']}" in found["message"]
    json.dumps(found, allow_nan=False)
    return found


def at_batch(module, number, act):
    """Have `act(value)` return the objective's value at one batch of the first epoch, each time that it is computed."""
    prepared, value_of = module.prepared, module.value_of
    now = []

    def preparing(samples, target, batch_index):
        now[:] = [module.current_epoch, batch_index]
        return prepared(samples, target, batch_index)

    def valuing(*arguments):
        value, scores = value_of(*arguments)
        return (act(value) if now == [0, number] else value), scores

    module.prepared, module.value_of = preparing, valuing
    return module


def state_of(module):
    """Weights, running statistics and what the optimiser keeps, copied."""
    optimizer = module.trainer.optimizers[0].state_dict()["state"]
    return copy.deepcopy((module.state_dict(), optimizer, module.means.as_sums(), module.means.seen))


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def damage(kind):
    """A function of a module that spoils the third batch by a number of that kind."""

    def root_of_zero(value):
        zero = value.total - value.total.detach()
        return value._replace(total=value.total + zero.sqrt())  # as large as before, of infinite slope

    def spoil(module):
        if kind == "input":  # the last of its 60 samples, in the order of the epoch
            samples = module.plan.train
            place = next(iter(_places(module, 2)))
            samples.data[place].view(-1)[-1] = INF
        elif kind == "running statistic":
            norm = dict(module.network.named_modules())["module.network." + FIRST_NORM]
            number = [0]

            def overflow(layer, inputs, output):
                number[0] += layer.training
                if number[0] == 3:
                    layer.running_var[1] = INF

            norm.register_forward_hook(overflow)
        elif kind == "loss":
            at_batch(module, 2, lambda value: value._replace(total=value.total * NAN))
        else:
            at_batch(module, 2, root_of_zero)
        return module

    return spoil


def _places(module, number):
    """Places in the training set of the samples of a batch of the first epoch."""
    from spikedistill.data import Batches

    config = module.plan.config
    batches = Batches(module.plan.train, config.data.batch_size, config.seed, lambda: (0, number))
    return next(iter(batches))[2].tolist()


# The case that was found


CASE = ["train", "digits-sce", "--epochs", "12", "--timesteps", "2", "--model.width", "0.25"]
CASE += ["--data.train-samples", "300", "--trainer.accelerator", "cpu", "--trainer.no-progress"]


@pytest.mark.parametrize("more", [[], ["--optimizer.name", "adamw"], ["--trainer.on-nonfinite", "skip"]])
def test_a_learning_rate_far_too_high_stops_and_the_last_good_checkpoint_stays(more, tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    rate = [
        "--optimizer.lr",
        "1e30" if "adamw" in more else "1e12",
        "--trainer.checkpoint-seconds",
        "0",
        "--epochs",
        "3",
    ]
    assert main([*CASE, *rate, *more, "--out", str(run.path)]) == 1
    message = capsys.readouterr().err
    details = json.loads(run.diverged.read_text(), parse_constant=pytest.fail)
    assert message.splitlines()[-1] == f"spikedistill train: {details['message']}"
    assert "the terms of the loss are sce " in message
    assert not run.model.is_file()
    if run.checkpoint.is_file():
        checkpoint = read_checkpoint(run.checkpoint)
        assert checkpoint["global_step"] < details["step"]
        assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
    else:
        assert details["epoch"] == 1


# Where it happens


CASES = [
    ("digits-sce", {}, "input"),
    ("digits-sce", {"precision": "bf16-mixed"}, "loss"),
    ("digits-sce", {"precision": "64-true"}, "input"),
    ("digits-sce", {"precision": "64-true"}, "gradient"),
    ("digits-sce", {"optimizer": {"name": "adamw", "lr": 0.01}}, "gradient"),
    ("digits-sce", {"optimizer": {"name": "adamw", "lr": 0.01}}, "running statistic"),
    ("digits-rate", {}, "gradient"),
    ("digits-rate", {}, "running statistic"),
    ("digits-dsr", {"accumulate": 3}, "gradient"),
    ("digits-s2w", {"ema": 0.9, "accumulate": 2}, "loss"),
    ("digits-sltt", {"clip": 1.0}, "gradient"),
    ("digits-esd", {"clip": 1.0}, "loss"),
    ("digits-joint-asnn-unofficial", {}, "gradient"),
    ("digits-joint-asnn-unofficial", {}, "input"),
]


@pytest.mark.parametrize(("name", "options", "kind"), CASES)
def test_a_step_that_is_not_finite_is_stopped_before_its_update_and_left_out_where_asked(name, options, kind, tmp_path):
    accumulate = options.get("accumulate", 1)
    bad_step = 2 // accumulate + 1
    for on_nonfinite in ("stop", "skip"):
        module = module_of(settings(name, on_nonfinite=on_nonfinite, **options), images=lambda *_: None)
        damage(kind)(module)
        begin, update, before, after = module.training_step, module.optimizer_step, [], []

        def training_step(batch, batch_idx, module=module, begin=begin, before=before):
            if batch_idx % accumulate == 0:
                before.append(state_of(module))
            return begin(batch, batch_idx)

        def optimizer_step(*arguments, module=module, update=update, after=after, **named):
            update(*arguments, **named)
            after.append(state_of(module))

        module.training_step, module.optimizer_step = training_step, optimizer_step
        callbacks = [MovingAverage(decay=0.9)] if "ema" in options else []
        if on_nonfinite == "stop":
            found = diverges(module, tmp_path, *callbacks)
            assert (found["step"], found["epoch"], len(after)) == (bad_step, 1, bad_step - 1)
            weights = {
                name: value for name, value in before[-1][0].items() if "running" not in name and "num_b" not in name
            }
            assert all(torch.equal(module.state_dict()[name], value) for name, value in weights.items())
            assert found["what"].startswith(f"the {kind}")
            if kind == "running statistic":
                assert found["what"] == f"the running statistic {FIRST_NORM}.running_var"
            expected = _places(module, 2)
            assert found["samples"] == ([expected[0]] if kind == "input" else sorted(expected))
            continue
        average = []
        if callbacks:
            averaged = callbacks[0].on_train_batch_end

            def batch_end(trainer, pl_module, *arguments, averaged=averaged, callback=callbacks[0], average=average):
                averaged(trainer, pl_module, *arguments)
                average.append(copy.deepcopy(callback._average_model.state_dict()))

            callbacks[0].on_train_batch_end = batch_end
        trained(module, tmp_path, *callbacks)
        assert module.skipped == 1
        assert [same(*pair) for pair in zip(before, after, strict=True)] == [
            number == bad_step - 1 for number in range(len(after))
        ]
        assert all(value.isfinite().all() for value in (*module.state_dict().values(), module.means.totals))
        assert module.means.seen == 240 - 60 * min(accumulate, 4 - (bad_step - 1) * accumulate)
        if callbacks:
            changed = [not same(*pair) for pair in pairwise(average)]
            assert changed == [True, False, False], "the first of two updates; the second is left out"


def test_a_step_has_the_number_that_it_has_in_the_whole_run_and_a_run_goes_on_once_the_reason_is_gone(
    tmp_path, monkeypatch
):
    config = settings(checkpoint_seconds=0.0, ema=0.9).model_copy(update={"epochs": 3, "resume": "auto"})
    whole = RunFolder(train(config.model_copy(update={"out": tmp_path / "whole"})))
    config = config.model_copy(update={"out": tmp_path / "run"})
    value_of = DistillationModule.value_of

    def spoiled(module, *arguments):
        value, scores = value_of(module, *arguments)
        bad = module.trainer.global_step == 6
        return (value._replace(total=value.total * INF) if bad else value), scores

    run = RunFolder(config.run_folder)
    for _ in range(2):  # the second time from the checkpoint, and at the same step
        with monkeypatch.context() as patch:
            patch.setattr(DistillationModule, "value_of", spoiled)
            with pytest.raises(
                RunDiverged, match=r"^the loss became NaN or infinite in step 7, epoch 2; the outputs of all"
            ):
                train(config)
        assert read_checkpoint(run.checkpoint)["global_step"] == 6
        assert json.loads(run.diverged.read_text())["step"] == 7
    train(config)
    assert run.model.read_bytes() == whole.model.read_bytes()
    assert run.metrics.read_bytes() == whole.metrics.read_bytes()
    assert not run.diverged.is_file()


def with_overflowing_update(module, number):
    """A module whose optimiser decays the first weights, which are large, by far too much at one batch."""
    weight = dict(module.network.named_parameters())[f"module.network.{FIRST_CONV}.weight"]
    weight.data.mul_(1e14)  # which the batch-norm behind divides by
    update = module.optimizer_step

    def optimizer_step(epoch, batch_index, optimizer, closure):
        groups = optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = 1e30 if batch_index == number else group["lr"]
        update(epoch, batch_index, optimizer, closure)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    module.optimizer_step = optimizer_step
    return module


def test_a_run_that_stopped_goes_on_as_if_it_had_skipped_from_the_beginning(tmp_path, monkeypatch):
    value_of = DistillationModule.value_of

    def spoiled(module, *arguments):
        value, scores = value_of(module, *arguments)
        bad = module.trainer.global_step == 6
        return (value._replace(total=value.total * NAN) if bad else value), scores

    monkeypatch.setattr(DistillationModule, "value_of", spoiled)
    stop, skip = (
        settings(on_nonfinite=on_nonfinite).model_copy(update={"epochs": 2, "resume": "auto"})
        for on_nonfinite in ("stop", "skip")
    )
    whole = RunFolder(train(skip.model_copy(update={"out": tmp_path / "whole"})))
    with pytest.raises(RunDiverged):
        train(stop.model_copy(update={"out": tmp_path / "run"}))
    run = RunFolder(train(skip.model_copy(update={"out": tmp_path / "run"})))
    assert run.metrics.read_bytes() == whole.metrics.read_bytes()
    assert run.model.read_bytes() == whole.model.read_bytes()
    with pytest.raises(ValueError, match="on_nonfinite was 'skip' and is now 'stop'"):
        train(stop.model_copy(update={"out": tmp_path / "run"}))


@pytest.mark.parametrize("every", [None, 4])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_weight_that_its_update_makes_infinite_is_found_in_that_step(name, every, tmp_path):
    config = settings(optimizer={"name": name, "lr": 1e-3})
    found = diverges(with_overflowing_update(module_of(config, every=every), 1), tmp_path)
    assert (found["step"], found["layer"]) == (2, FIRST_CONV)
    assert found["what"] == f"the weight {FIRST_CONV}.weight"


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_update_that_makes_weights_infinite_is_undone_where_the_step_is_left_out(name, tmp_path):
    config = settings(on_nonfinite="skip", optimizer={"name": name, "lr": 1e-3})
    module, states = with_overflowing_update(module_of(config), 2), []
    update = module.optimizer_step

    def optimizer_step(*arguments):
        update(*arguments)
        states.append(state_of(module))

    module.optimizer_step = optimizer_step
    trained(module, tmp_path)
    assert [same(*pair) for pair in pairwise(states)] == [False, True, False]
    assert module.skipped == 1


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_steps_that_are_left_out_are_counted_in_metrics(kind, tmp_path, monkeypatch):
    start = DistillationModule.on_fit_start
    monkeypatch.setattr(DistillationModule, "on_fit_start", lambda module: (start(module), damage(kind)(module)))
    config = settings(on_nonfinite="skip").model_copy(update={"epochs": 2, "out": tmp_path / "run"})
    rows = list(csv.DictReader(RunFolder(train(config)).metrics.read_text().splitlines()))
    assert [row["skipped_steps"] for row in rows] == ["1", "0"]
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)


def test_an_epoch_in_which_every_step_is_left_out_stops_the_run(tmp_path):
    module = module_of(settings(on_nonfinite="skip"))
    weight = dict(module.network.named_parameters())[f"module.network.{FIRST_CONV}.weight"]
    weight.data[0, 0, 0, 0] = NAN
    record = EpochRecord(RunFolder(tmp_path / "run"), module.plan, {})
    found = diverges(module, tmp_path, record)
    assert found["message"].startswith("every step of epoch 1 was skipped; in the last one the running statistic")
    assert (found["step"], found["layer"]) == (4, FIRST_CONV)
    assert "on-nonfinite" not in found["message"]
    assert not record.run.metrics.is_file()


# Why it happens


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_samples_are_named_by_their_place_in_the_training_set(value, tmp_path):
    def images(stored, targets):
        stored[[17, 101], 0, 3, 3] = value

    config = settings(accumulate=4)
    found = diverges(module_of(config, images=images), tmp_path)
    number = next(n for n in range(4) if {17, 101} & {*_places(module_of(config), n)})
    assert found["what"] == "the input"
    assert found["samples"] == sorted({17, 101} & {*_places(module_of(config), number)})
    assert "repair or remove these samples" in found["message"]


def test_statistics_that_overflow_are_named_with_the_layer_before(tmp_path):
    found = diverges(module_of(settings(), images=lambda stored, targets: stored.mul_(1e30)), tmp_path)
    assert found["step"] == 1
    assert (found["what"], found["layer"]) == (f"the running statistic {FIRST_NORM}.running_var", FIRST_NORM)
    assert "on all 60 samples of the batch" in found["message"]


@pytest.mark.parametrize("options", [{}, {"gradient": "rate"}, {"gradient": "rate", "chunk": 1}, {"gradient": "dsr"}])
def test_the_first_layer_is_named_though_spikes_hide_it(options, tmp_path):
    module = module_of(settings().model_copy(update=options))
    layers = dict(module.network.named_modules())
    layers["module.network.features.2.0"].weight.data[0, 0, 0, 0] = NAN
    found = diverges(module, tmp_path)
    assert (found["step"], found["layer"]) == (1, "features.2.0")


def test_a_weight_made_of_shared_factors_is_named_by_its_layer(tmp_path):
    module = module_of(settings("digits-joint-asnn-unofficial"))
    layers = dict(module.network.named_modules())
    layers["module.network.features.2.0"].parametrizations.weight.original.data[0, 0, 0] = NAN
    assert diverges(module, tmp_path)["layer"] == "features.2.0"


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_event_recordings_are_named_by_their_place_too(precision, tmp_path):
    generator = np.random.default_rng(0)
    for split, label, number in product(("train", "test"), "ab", range(6)):
        folder = tmp_path / "data" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{number}.npz", frames=generator.integers(0, 3, (2, 2, 8, 8)))
    config = settings(precision=precision)
    data = DataConfig(name="event_frames", root=tmp_path / "data", batch_size=4, augment=())
    plan = make_plan(config.model_copy(update={"data": data}))
    frames = plan.train.inputs(torch.arange(12))
    frames[5, 1] = NAN
    plan = replace(plan, train=TensorSamples(frames, plan.train.targets))
    found = diverges(DistillationModule(plan), tmp_path)
    assert (found["what"], found["samples"]) == ("the input", [5])


def slope_of_class(label, loss):
    """A task loss, and a term that is zero and whose gradient is infinite, on samples of one class alone."""

    def root(logits, target):
        chosen = logits[:, target == label, 0]
        return (chosen - chosen.detach()).sqrt().sum()

    return Objective("custom", [Term("sce", 1.0, loss), Term("root", 1.0, root)])


@pytest.mark.parametrize("every", [None, 3])
def test_a_gradient_without_a_number_in_it_that_is_wrong_names_the_parameter_and_the_samples(every, tmp_path):
    from spikedistill.objectives import sce

    module = module_of(settings(), every=every, objective=slope_of_class(7, sce))
    found = diverges(module, tmp_path)
    assert (found["step"], found["layer"]) == (1, None)
    assert found["what"] == "the gradient of head.bias"
    assert found["terms"]["root"] == 0
    assert math.isfinite(found["terms"]["sce"])
    places = _places(module, 0)
    assert found["samples"] == sorted(place for place in places if module.plan.train.targets[place] == 7)


def test_all_passes_of_a_batch_are_repeated(tmp_path):
    """Of which one alone has a gradient that is not finite: that of fewer timesteps than T."""
    from spikedistill.objectives import sce

    config = settings().model_copy(update={"timesteps": 4, "timestep_draws": 2})
    drawn = [drawn_timesteps(make_plan(config), 0, number) for number in range(4)]
    bad = min(k for numbers in drawn for k in numbers)
    number = next(number for number, numbers in enumerate(drawn) if bad in numbers)
    assert {*drawn[number]} > {bad}

    def root(logits, target):
        chosen = logits[:, target == 7, 0]
        return (chosen - chosen.detach()).sqrt().sum() if len(logits) == bad else 0 * chosen.sum()

    module = module_of(config, objective=Objective("custom", [Term("sce", 1.0, sce), Term("root", 1.0, root)]))
    before = {name: id(buffer) for name, buffer in module.named_buffers()}
    found = diverges(module, tmp_path)
    assert (found["step"], found["what"]) == (number + 1, "the gradient of head.bias")
    assert found["samples"] == sorted(p for p in _places(module, number) if module.plan.train.targets[p] == 7)
    assert {name: id(buffer) for name, buffer in module.named_buffers()} == before


def test_a_teacher_that_answers_with_nan_is_named_with_the_samples(tmp_path):
    def teacher(images):
        logits = images.flatten(1)[:, :10].clone()
        logits[images.flatten(1).sum(1) > 21.5] = NAN
        return logits

    plan = make_plan(settings("digits-skd"), teacher)
    found = diverges(DistillationModule(plan), tmp_path)
    bad = plan.train.data.flatten(1).float().div(255).sum(1) > 21.5
    assert found["what"] == "the loss"
    assert "those of the teacher are not" in found["message"]
    assert found["samples"] == sorted(place for place in _places(DistillationModule(plan), 0) if bad[place])
    assert 0 < len(found["samples"]) < 60


@pytest.mark.parametrize(
    ("options", "stops"),
    [({}, False), ({"clip": 1.0}, True), ({"optimizer": {"name": "adamw", "lr": 1e-30}}, True)],
)
def test_a_finite_gradient_whose_square_is_not_stops_where_squares_are_taken(options, stops, tmp_path):
    """Clipping would divide by infinity, and AdamW keep an infinite second moment: weights would stay as they are for ever."""
    large = Objective("large", [Term("mean", 1e9, lambda logits, target: logits.mean() * 1e12)])
    config = settings(**{"optimizer": {"lr": 1e-30}} | options)
    if stops:
        assert diverges(module_of(config, objective=large), tmp_path)["what"].startswith("the gradient of")
    else:
        assert trained(module_of(config, objective=large), tmp_path).means.seen == 240


def test_an_infinite_logit_is_no_class_that_is_masked(tmp_path):
    module = module_of(settings())
    module.network.module.network.head.bias.data[:] = torch.tensor([-INF] * 3 + [0.0] * 7)
    found = diverges(module, tmp_path)
    assert (found["step"], found["what"], found["layer"]) == (1, "the loss", "head")


# Several processes


def part_of_two(rank, port, config, value, told):
    """Train in one process of two, with a sample that holds a value."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": str(rank),
        "PYTHONWARNINGS": "ignore",
    }
    torch.set_num_threads(1)
    made = running.plan_of

    def plan_with_it(*arguments):
        plan = made(*arguments)
        images = plan.train.inputs(torch.arange(len(plan.train))).float() / 255
        images[17, 0, 3, 3] = value
        return replace(plan, train=TensorSamples(images, plan.train.targets))

    running.plan_of = plan_with_it
    try:
        train(config)
        told.put("")
    except RunDiverged as error:
        told.put(str(error))


@pytest.mark.parametrize(
    ("options", "value", "said"),
    [
        ({"sync_batch_norm": True}, NAN, "^the input became .* in step 2, epoch 1; on sample 17 of the training set"),
        ({}, 1e30, r"^the running statistic features.0.1.running_var .* step 2, epoch 1; .* on "),
        ({"sync_batch_norm": True, "on_nonfinite": "skip"}, INF, "^$"),
    ],
)
def test_two_processes_of_which_one_has_the_sample_go_the_same_way(options, value, said, tmp_path):
    """S2W ranks timesteps over both: whoever left the step alone would let the other wait."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["lightning", "sklearn.datasets", "spikedistill.training.callbacks"])
    config = settings("digits-s2w", nodes=2, timeout_seconds=120, **options).model_copy(
        update={"out": tmp_path / "run"}
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = processes.SimpleQueue()
    both = [processes.Process(target=part_of_two, args=(rank, port, config, value, told)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(240)
    assert [process.exitcode for process in both] == [0, 0], "a process that failed tells nothing"
    one, other = told.get(), told.get()
    assert one == other
    assert re.search(said, one)
    run = RunFolder(tmp_path / "run")
    if one:
        assert json.loads(run.diverged.read_text())["message"] == one
    else:
        assert next(csv.DictReader(run.metrics.read_text().splitlines()))["skipped_steps"] == "1"


# A device that is asked seldom: a GPU's way, on a CPU


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": {"name": "adamw", "lr": 0.01}}, {"precision": "bf16-mixed", "clip": 1.0}, {"accumulate": 3}],
)
def test_asked_seldom_a_run_without_trouble_is_the_same(options, tmp_path):
    config = settings(**options).model_copy(update={"epochs": 2})
    often, seldom = (trained(module_of(config, every=every), tmp_path) for every in (None, 3))
    assert seldom.trainer.optimizers[0].param_groups[0]["fused"]
    assert not often.trainer.optimizers[0].param_groups[0]["fused"]
    seldom.watch.settle()
    # a fused optimiser rounds otherwise
    for name, value in often.state_dict().items():
        torch.testing.assert_close(seldom.state_dict()[name], value, rtol=0.02, atol=0.02)
    assert often.epoch_means()["train_loss"] == pytest.approx(seldom.epoch_means()["train_loss"], rel=1e-2)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", ["input", "running statistic", "loss", "gradient"])
def test_asked_seldom_a_device_updates_nothing_from_the_first_bad_step_on(name, kind, tmp_path):
    module = module_of(settings(optimizer={"name": name, "lr": 0.01}), every=4, images=lambda *_: None)
    damage(kind)(module)
    update, weights = module.optimizer_step, []

    def optimizer_step(*arguments, **named):
        weights.append(copy.deepcopy(dict(module.named_parameters())))
        update(*arguments, **named)

    module.optimizer_step = optimizer_step
    found = diverges(module, tmp_path)
    assert found["step"] == 3
    assert found["what"].startswith(f"the {kind}")
    assert len(weights) == 4, "it is found when the fourth step has been made"
    assert not same(weights[1], weights[2])
    assert same(weights[2], weights[3])
    assert same(weights[3], dict(module.named_parameters()))
    if kind != "input":
        assert found["samples"] == sorted(_places(module, 2)), "that batch is computed again"


def test_asked_seldom_no_checkpoint_and_no_epoch_comes_after_a_bad_step(tmp_path, monkeypatch):
    made = DistillationModule.__init__
    monkeypatch.setattr(DistillationModule, "__init__", lambda module, plan: made(module, plan, every=16))
    start = DistillationModule.on_fit_start
    monkeypatch.setattr(DistillationModule, "on_fit_start", lambda module: (start(module), damage("loss")(module)))
    for seconds, saved in ((0.0, 2), (300.0, None)):
        run = RunFolder(tmp_path / f"{seconds}")
        config = settings(checkpoint_seconds=seconds).model_copy(update={"out": run.path, "epochs": 2})
        with pytest.raises(RunDiverged, match="in step 3, epoch 1"):
            train(config)
        assert (read_checkpoint(run.checkpoint)["global_step"] if run.checkpoint.is_file() else None) == saved
        assert not run.metrics.is_file()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_checkpoint_goes_on_asked_seldom_or_often(name, tmp_path):
    config = settings(optimizer={"name": name, "lr": 0.01}).model_copy(update={"epochs": 2})
    for first, second in ((None, 3), (3, None)):
        module = module_of(config.model_copy(update={"epochs": 1}), every=first)
        trained(module, tmp_path).trainer.save_checkpoint(tmp_path / "last.ckpt")
        module = module_of(config, every=second)
        fit(make_trainer(module.plan, tmp_path, []), module, tmp_path / "last.ckpt")
        assert bool(module.trainer.optimizers[0].param_groups[0]["fused"]) == (second is not None)
        assert module.trainer.global_step == 8


# Accumulation


def test_a_window_of_accumulation_is_divided_by_the_batches_that_it_holds(tmp_path):
    """Five batches in windows of four: the second window holds one, and has the gradient of that batch."""
    data = quick("digits-sce").data.model_copy(update={"batch_size": 48})
    still = {"lr": 1e-30, "momentum": 0.0, "weight_decay": 0.0}
    gradients = {}
    for accumulate in (4, 2, 3, 1):
        found = gradients[accumulate] = []
        module = module_of(settings(accumulate=accumulate, optimizer=still).model_copy(update={"data": data}))
        look = module.on_before_optimizer_step

        def looking(optimizer, module=module, look=look, found=found):
            found.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
            look(optimizer)

        module.on_before_optimizer_step = looking
        trained(module, tmp_path)
    each = gradients.pop(1)
    for accumulate, windows in gradients.items():
        for window, batches in zip(windows, torch.stack(each).split(accumulate), strict=True):
            torch.testing.assert_close(window, batches.mean(0), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(gradients[4][1], each[4], rtol=1e-5, atol=1e-8)


def test_a_short_window_is_as_long_in_a_run_that_is_resumed(tmp_path, monkeypatch):
    """Five batches in windows of two; the run breaks off before the second window of its second epoch."""
    config = settings(accumulate=2).model_copy(update={"out": tmp_path})
    data = config.data.model_copy(update={"batch_size": 48})
    assert_resumes_to_the_same_bytes(config.model_copy(update={"data": data}), monkeypatch)


# At the border


def test_a_network_with_nan_is_refused_as_a_run_and_as_a_teacher(tmp_path, capsys):
    spec = {"name": "convnet", "num_classes": 10, "in_channels": 1, "image_size": 8, "neuron": "relu", "width": 0.25}
    for kind, value in (("weight", NAN), ("running_var", NAN), ("running_mean", INF), ("bias", -INF)):
        network = create_model(**spec)
        name, tensor = next(item for item in network.module.state_dict().items() if item[0].endswith(kind))
        tensor.flatten()[0] = value
        save_model(network, spec, tmp_path / "teacher.safetensors")
        arguments = ["train", "digits-skd", "--teacher", str(tmp_path / "teacher.safetensors")]
        assert main([*arguments, "--out", str(tmp_path / "student")]) == 2
        assert f"in {name} that are NaN or infinite" in capsys.readouterr().err
        with pytest.raises(
            ValueError, match=f"the teacher holds 1 of .* in network.module.{name} that are NaN or infinite"
        ):
            make_plan(settings("digits-skd"), MeanLogits(network, 1))
    run = RunFolder(train(settings().model_copy(update={"out": tmp_path / "run"})))
    network, plan = run.load_network(run.model), make_plan(settings())
    next(iter(network.parameters())).data.flatten()[0] = NAN
    with run.rewriting(run.model):
        plan.save(network, run.model)
    assert main(["evaluate", str(run.path)]) == 2
    assert f"in network.{FIRST_CONV}.weight that are NaN or infinite" in capsys.readouterr().err


def test_data_with_nan_are_refused_by_the_number_of_the_sample(tmp_path):
    plan = make_plan(settings())
    images = plan.train.inputs(torch.arange(9)).float() / 255
    images[7, 0, 0] = NAN
    with pytest.raises(
        ValueError, match="the input holds 8 values of 256 that are NaN or infinite, in sample 7, counted from 0"
    ):
        collect_logits(plan.build_network(), TensorSamples(images, torch.arange(9)), "image", 2, batch_size=4)


def test_a_sum_that_overflows_is_of_finite_numbers():
    large = torch.full((4,), 3e38)
    assert not not_finite([large, -large])
    assert not_finite([large, torch.tensor([1.0, NAN])])
    assert not_finite([torch.tensor([INF, -INF]), large])
    assert not_finite([torch.ones(2, dtype=torch.float64), torch.tensor(INF, dtype=torch.bfloat16)])
    assert not not_finite([])


# Layers that say nothing


def test_layers_that_never_or_always_fire_are_named_while_training_and_in_the_report(tmp_path, caplog):
    config = settings().model_copy(update={"out": tmp_path / "run", "epochs": 2})
    lif = config.model.lif.model_copy(update={"threshold": 1e6})
    run = RunFolder(train(config.model_copy(update={"model": config.model.model_copy(update={"lif": lif})})))
    said = [record.message for record in caplog.records if "fire" in record.message]
    assert said == ["epoch 1: neurons of features.1, features.3, features.5 never fire on training samples"]
    assert "Neurons of features.1, features.3, features.5 never fire on the test set" in run.report.read_text()


def test_looking_for_such_layers_changes_nothing(tmp_path):
    plan = make_plan(settings())
    network = plan.build_network().train()
    neurons = {name: module for name, module in network.module.named_modules() if name.endswith("features.3")}
    for neuron in neurons.values():
        neuron.threshold, neuron.v_init, neuron.v_reset, neuron.decay = 1e-6, 1e6, 1e6, 1.0
    before, draws = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert constant_layers(network, plan.train, "image", 2)["always fire"] == ["features.3"]
    assert all(module.training for module in network.modules())
    assert torch.equal(draws, torch.get_rng_state())
    assert same(before, network.state_dict())
    ann = make_plan(settings("digits-ann")).build_network()
    ann.register_forward_pre_hook(lambda *_: pytest.fail("an ANN has no such layers"))
    assert constant_layers(ann, plan.train, "image", 1) == {}
    frames = TensorSamples(torch.zeros(3, 2, 2, 8, 8), torch.arange(3))
    events = create_model("convnet", num_classes=3, in_channels=2, image_size=8, width=0.25)
    assert constant_layers(events, frames, "events", 2)["never fire"][0] == "features.1"
