"""A run from its configuration to its folder."""

import csv
import json
import math

import lightning as L
import pytest
import torch
from quick_runs import quick
from safetensors.torch import load_file, save_file

from spikedistill import load, train
from spikedistill.config import OptimizerConfig, TrainerConfig
from spikedistill.data import load_dataset
from spikedistill.evaluation import evaluate, timestep_metrics
from spikedistill.models import create_model
from spikedistill.run_folder import RunFolder
from spikedistill.training.module import DistillationModule
from spikedistill.training.optimizers import learning_rate_factor, make_optimizer
from spikedistill.training.plan import make_plan
from spikedistill.training.run import make_batches, make_trainer


def rows_of(run: RunFolder) -> list[dict[str, str]]:
    return list(csv.DictReader(run.metrics.read_text().splitlines()))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return RunFolder(train(quick("digits-twsd", epochs=2, out=tmp_path_factory.mktemp("runs") / "twsd")))


def test_a_run_folder_holds_what_the_contract_names(run):
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "config.yaml", "metrics.csv", "checkpoints", "model.safetensors", "results.json", "logits.safetensors", "report.html"
    }  # fmt: skip
    assert not list(run.path.rglob("*.partial"))
    assert run.config() == quick("digits-twsd", epochs=2, out=run.path)


def test_results_are_the_metrics_of_the_saved_logits_at_every_k(run):
    results = json.loads(run.results.read_text())
    saved = load_file(run.logits)
    dataset = load_dataset("digits")
    assert saved["logits"].shape == (3, len(dataset.test), 10)
    assert torch.equal(saved["targets"], dataset.test.targets)
    assert results["schema"] == 1
    assert results["timesteps"] == 3
    assert [entry["k"] for entry in results["last"]["ensemble"]] == [1, 2, 3]
    expected = timestep_metrics(saved["logits"], saved["targets"])
    for kind in ("ensemble", "single"):
        assert results["last"][kind] == expected[kind]
    right = (saved["logits"][:2].double().mean(0).argmax(-1) == saved["targets"]).double().mean().item()
    assert results["last"]["ensemble"][1]["accuracy"] == pytest.approx(right, abs=1e-12)
    assert results["cost"]["images_per_s"] > 0
    assert results["cost"]["peak_mib"] > 0


def test_the_loaded_model_computes_the_saved_logits_from_images(run):
    model, dataset = load(run.path), load_dataset("digits")
    assert not model.training
    images = dataset.test.inputs(torch.arange(5)).float() / 255
    with torch.no_grad():
        assert torch.allclose(model(images, timesteps=3), load_file(run.logits)["logits"][:, :5], atol=1e-5)


def test_evaluating_again_writes_the_same_bytes(run):
    before = run.results.read_bytes(), run.logits.read_bytes()
    evaluate(run.path)
    assert (run.results.read_bytes(), run.logits.read_bytes()) == before


def test_metrics_have_a_row_per_epoch_with_each_term_and_timestep(run):
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    last = {key: float(value) for key, value in rows[-1].items()}
    assert last["train_loss"] == pytest.approx(last["loss/twce"] + 0.5 * last["loss/twsd"], rel=1e-5)
    singles = [last[f"ce_single_{k}"] for k in (1, 2, 3)]
    assert last["loss/twce"] == pytest.approx(sum(singles) / 3, rel=1e-5)
    assert last["ce_prefix_1"] == pytest.approx(last["ce_single_1"], rel=1e-6)
    assert 0 <= last["train_accuracy_1"] <= 1


def test_the_same_seed_repeats_bit_for_bit_and_another_does_not(tmp_path):
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        return load_file(RunFolder(train(quick("digits-s2w", seed=seed, out=tmp_path / name))).model)

    first, again, other = weights("a", 1), weights("b", 1), weights("c", 2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["network.head.weight"], other["network.head.weight"])
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


# Losses of the 20 steps below, in float64 so that no rounding decides about a spike. A change that moves them changes training.
STORED_LOSSES = [
    2.415310140972,
    2.269595797356,
    2.272456257323,
    2.164631119763,
    2.084375313811,
    2.015522087494,
    1.921369794401,
    1.884465031244,
    1.78555202742,
    1.67710988803,
    1.646244582554,
    1.571570107694,
    1.467734475093,
    1.418145951004,
    1.429328772386,
    1.477596929231,
    1.355732321563,
    1.381290885432,
    1.299804035036,
    1.364014085033,
]


class _Losses(L.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.values.append(float(outputs["loss"]))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_twenty_steps_reproduce_the_stored_losses(tmp_path):
    config = quick(
        "digits-twsd",
        epochs=5,
        trainer=TrainerConfig(accelerator="cpu", progress=False, precision="64-true"),
        out=tmp_path,
    )
    plan, losses = make_plan(config), _Losses()
    trainer = make_trainer(plan, tmp_path, [losses])
    trainer.fit(DistillationModule(plan), make_batches(plan, trainer))
    assert losses.values == pytest.approx(STORED_LOSSES, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["digits-ann", "digits-rate", "digits-sltt", "digits-dsr", "digits-s2w", "digits-prefix", "digits-w2s"]
)
def test_recipes_train_to_a_finite_result_better_than_chance(name, tmp_path):
    config = quick(name, out=tmp_path / "run", epochs=4)
    results = json.loads(RunFolder(train(config)).results.read_text())
    final = results["last"]["ensemble"][-1]
    assert final["accuracy"] > 0.2, "chance is 0.1"
    assert math.isfinite(final["nll"])


def test_a_trained_ann_teaches_and_stays_as_it_was(tmp_path):
    ann = RunFolder(train(quick("digits-ann", out=tmp_path / "ann", epochs=4)))
    before = ann.model.read_bytes()
    student = RunFolder(train(quick("digits-twkd", out=tmp_path / "student", teacher=ann.path)))
    rows = rows_of(student)
    assert float(rows[0]["loss/twkl"]) > 0
    assert ann.model.read_bytes() == before
    checkpoint = torch.load(student.checkpoint, weights_only=False)
    assert all(key.startswith("network.module.") for key in checkpoint["state_dict"])
    # the teacher sees the student's own batch: its term is the divergence from the ANN's logits on it
    plan = make_plan(quick("digits-twkd", out=tmp_path / "x", teacher=ann.path))
    module, images = DistillationModule(plan), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(
            module.plan.teacher.look(images, "image")[0],
            load(ann.path)(images, timesteps=1)[0],
            atol=1e-5,
        )
    assert not any(p.requires_grad for p in plan.teacher.function.parameters())


def test_cached_logits_are_those_of_every_batch_and_computed_once(tmp_path):
    ann = RunFolder(train(quick("digits-ann", out=tmp_path / "ann", epochs=2)))
    network, seen = load(ann.path), []

    def teacher(images):
        seen.append(len(images))
        with torch.no_grad():
            return network(images, timesteps=1)[0]

    losses = {}
    for kind in ("computed", "cached"):
        seen.clear()
        run = RunFolder(
            train(quick("digits-twkd", out=tmp_path / kind, epochs=3, teacher_logits=kind), teacher=teacher)
        )
        losses[kind] = [float(row["train_loss"]) for row in rows_of(run)]
        # each of the 240 images in every epoch, or once; and one to see that the function fits
        assert sum(seen) == 1 + 240 * {"computed": 3, "cached": 1}[kind]
    assert losses["cached"] == pytest.approx(losses["computed"], rel=1e-4)


@pytest.mark.parametrize("name", ["digits-twkd", "digits-kdsnn"])
def test_a_teacher_in_float32_teaches_a_student_in_float64(name, tmp_path):
    ann = train(quick("digits-ann", out=tmp_path / "ann"))
    config = quick(name, out=tmp_path / "run", teacher=ann)
    config = config.model_copy(update={"trainer": config.trainer.model_copy(update={"precision": "64-true"})})
    (row,) = rows_of(RunFolder(train(config)))
    assert math.isfinite(float(row["train_loss"]))


def test_a_run_on_cached_logits_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    ann = train(quick("digits-ann", out=tmp_path / "ann"))
    options = {"teacher": ann, "teacher_logits": "cached", "epochs": 2, "resume": "auto"}
    whole = RunFolder(train(quick("digits-skd", out=tmp_path / "whole", **options)))
    first = DistillationModule.on_train_epoch_start

    def break_off(module):
        first(module)
        if module.current_epoch == 1:
            raise InterruptedError

    monkeypatch.setattr(DistillationModule, "on_train_epoch_start", break_off)
    with pytest.raises(InterruptedError):
        train(quick("digits-skd", out=tmp_path / "broken", **options))
    monkeypatch.undo()
    resumed = RunFolder(train(quick("digits-skd", out=tmp_path / "broken", **options)))
    assert resumed.model.read_bytes() == whole.model.read_bytes()


@pytest.mark.parametrize(
    ("name", "augment", "message"),
    [
        ("digits-twsd", (), "learns from no teacher: leave --teacher-logits cached out"),
        ("digits-kdsnn", (), "learns from features, which come with the logits of every batch"),
        ("digits-skd", ("crop",), r"augmented at random \(crop\), and the teacher gets the same images as the student"),
    ],
)
def test_logits_that_cannot_be_cached_are_refused(name, augment, message, tmp_path):
    ann = train(quick("digits-ann", out=tmp_path / "ann"))
    config = quick(name, out=tmp_path / "run", teacher=None if name == "digits-twsd" else ann, teacher_logits="cached")
    config = config.model_copy(update={"data": config.data.model_copy(update={"augment": augment})})
    with pytest.raises(ValueError, match=message):
        make_plan(config)


@pytest.mark.parametrize("name", ["digits-s2w", "digits-w2s", "digits-s2w-w2s"])
def test_how_often_each_timestep_was_strongest_and_weakest_is_recorded(name, tmp_path):
    (row,) = rows_of(RunFolder(train(quick(name, out=tmp_path / "run"))))
    for role in ("strongest", "weakest"):
        shares = [float(row[f"{role}_{k}"]) for k in (1, 2, 3)]
        assert sum(shares) == pytest.approx(1)
        assert all(share * 4 == pytest.approx(round(share * 4)) for share in shares), "of 4 batches of 60"


def test_the_first_timestep_is_the_strongest_where_the_measure_says_so(tmp_path):
    config = quick("digits-s2w", out=tmp_path / "run")
    options = config.objective.options | {"measure": "first_to_last"}
    config = config.model_copy(update={"objective": config.objective.model_copy(update={"options": options})})
    (row,) = rows_of(RunFolder(train(config)))
    assert (row["strongest_1"], row["weakest_3"]) == ("1.0", "1.0")


def test_weights_from_elsewhere_and_any_function_can_teach(tmp_path):
    ann = RunFolder(train(quick("digits-ann", out=tmp_path / "ann")))
    weights = {k.removeprefix("network."): v for k, v in load_file(ann.model).items() if not k.startswith("normalize")}
    save_file(weights, tmp_path / "weights.safetensors")
    outcomes = []
    teacher = {"teacher": tmp_path / "weights.safetensors", "teacher_model": "convnet"}
    model = load(ann.path)
    for changes, function in (({"teacher": ann.path}, None), ({}, lambda images: model(images, timesteps=3).mean(0))):
        config = quick("digits-twkd", out=tmp_path / f"student{len(outcomes)}", **changes)
        outcomes.append(load_file(RunFolder(train(config, teacher=function)).model))
    assert all(torch.equal(outcomes[0][key], outcomes[1][key]) for key in outcomes[0])
    wide = quick("digits-ann", out=tmp_path / "wide").model.model_copy(update={"width": 1.0})
    wide_ann = RunFolder(train(quick("digits-ann", out=tmp_path / "wide", model=wide)))
    weights = {
        k.removeprefix("network."): v for k, v in load_file(wide_ann.model).items() if not k.startswith("normalize")
    }
    save_file(weights, tmp_path / "weights.safetensors")
    assert make_plan(quick("digits-twkd", **teacher)).teacher is not None
    save_file({"w": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="holds the weights of another network"):
        make_plan(quick("digits-twkd", **teacher))


def test_nothing_is_lost_where_a_run_stands_already(run, tmp_path):
    config = quick("digits-twsd", epochs=2, out=run.path)
    before = run.model.stat().st_mtime_ns
    with pytest.raises(FileExistsError, match=r"--resume auto .* --overwrite"):
        train(config)
    assert train(config.model_copy(update={"resume": "auto"})) == run.path
    assert run.model.stat().st_mtime_ns == before, "a complete run is not trained again"
    with pytest.raises(ValueError, match=r"epochs was 2 and is now 3"):
        train(config.model_copy(update={"resume": "auto", "epochs": 3}))
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="no run folder"):
        train(quick("digits-twsd", out=tmp_path, overwrite=True))
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_weight_decay_is_on_weights_of_convolutions_and_linear_layers_alone():
    learned = {"decay": "learned", "threshold": "learned_per_channel", "v_init": "learned"}
    network = create_model("convnet", num_classes=10, in_channels=1, image_size=8, **learned)
    decayed, others = make_optimizer(network, OptimizerConfig(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    names = {id(p): name for name, p in network.named_parameters()}
    assert len(decayed["params"]) == 4, "three convolutions and the head"
    assert all(names[id(p)].endswith("weight") for p in decayed["params"])
    assert len(others["params"]) == 2 * 3 + 3 * 3 + 1, (
        "three batch-norms, what three layers of neurons learn, the head's bias"
    )
    for name in ("sgd", "adamw"):
        groups = make_optimizer(network, OptimizerConfig(name=name, weight_decay=0.1, decayed="all")).param_groups
        assert [group["weight_decay"] for group in groups] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("options", "epoch", "factor"),
    [
        ({"schedule": "cosine"}, 0, 1.0),
        ({"schedule": "cosine"}, 5, 0.5),  # half of 10 epochs: 0.5 (1 + cos(pi / 2))
        ({"schedule": "cosine"}, 10, 0.0),
        ({"schedule": "cosine", "warmup_epochs": 2}, 1, 0.5),  # half-way up
        ({"schedule": "cosine", "warmup_epochs": 2}, 6, 0.5),  # half of the remaining 8
        ({"schedule": "step", "step_epochs": 3}, 2.9, 1.0),
        ({"schedule": "step", "step_epochs": 3}, 7, 0.01),  # two steps of a tenth
        ({"schedule": "constant"}, 9, 1.0),
        ({"schedule_per": "epoch"}, 0.9, 1.0),  # the whole first epoch
        ({"schedule_per": "epoch"}, 5, 0.5),
        ({"schedule_per": "epoch"}, 5.9, 0.5),
        ({"schedule_per": "epoch"}, 9.9, 0.0244717418524232),  # 0.5 (1 + cos(0.9 pi)), never 0
        ({"schedule_per": "epoch", "warmup_epochs": 2}, 1, 0.5),
        ({"schedule_per": "epoch", "warmup_epochs": 2}, 6.5, 0.5),
        ({"schedule_per": "epoch", "warmup_epochs": 2.5}, 2.7, 1.0),  # until the next epoch begins
    ],
)
def test_learning_rate_schedules(options, epoch, factor):
    assert learning_rate_factor(epoch, 10, OptimizerConfig(**options)) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "rate"}, "under rate m=1 all timesteps share .*: use --gradient rate with --segments 2 or more, or"),
        ({"gradient": "dsr"}, "under dsr all timesteps share .*: use --gradient rate with --segments 2 or more, or"),
        ({"gradient": "dsr", "segments": 2}, "segments=2 only means something under gradient='rate'; this is gradient='dsr'"),
    ],
)  # fmt: skip
def test_timesteps_that_share_one_gradient_cannot_teach_each_other(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_plan(quick("digits-twsd", out=tmp_path, **options))
    assert make_plan(quick("digits-twsd", out=tmp_path, gradient="rate", segments=2))


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"surrogate": "arctan"}, "--model.lif.surrogate: leave it out"),
        ({"surrogate": "arctan", "detach_reset": True}, "--model.lif.surrogate and --model.lif.detach-reset: leave them out"),
    ],
)  # fmt: skip
def test_what_dsr_does_not_use_is_refused_under_it(changes, flags, tmp_path):
    config = quick("digits-dsr", out=tmp_path)
    lif = config.model.lif.model_copy(update=changes)
    config = config.model_copy(update={"model": config.model.model_copy(update={"lif": lif})})
    with pytest.raises(ValueError, match=f"^--gradient dsr does not use {flags}$"):
        make_plan(config)
