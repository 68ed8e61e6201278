"""Settings that do nothing beside each other, or cannot be meant together: refused by name before any work."""

from dataclasses import replace

import pytest
import torch
from quick_runs import quick

from spikedistill.cli import main
from spikedistill.comparisons.planned_runs import with_teachers, without_foreign_settings
from spikedistill.config import NeuronConfig
from spikedistill.data import TensorSamples, list_datasets, usual_settings
from spikedistill.models import create_model, save_model
from spikedistill.objectives import Objective, Term, create_objective, list_objectives, objective_options, twce, twsd
from spikedistill.recipes import recipe
from spikedistill.recipes.settings import parse_config, variant
from spikedistill.training import plan as plans
from spikedistill.training.plan import make_plan, plan_without_teacher
from spikedistill.training.teacher import relu_twin

# Command lines behind `spikedistill train`, and the whole of what is said.
REFUSED = {
    # the teacher
    "digits-sce --teacher-model convnet": "--teacher-model convnet names the network of a weights file: add that file, --teacher "
    "FILE.safetensors, or leave it out",
    "digits-skd --teacher-model convnet": "--teacher-model convnet names the network of a weights file: add that file, --teacher "
    "FILE.safetensors, or leave it out",
    "digits-skd --teacher runs/x --teacher-model convnet": "--teacher runs/x is no safetensors file, and a run records which "
    "network it holds: leave --teacher-model convnet out",
    "digits-sce --teacher runs/x": "objective 'sce' learns from no teacher: leave it out (runs/x)",
    "digits-sce --teacher-logits cached": "objective 'sce' learns from no teacher: leave --teacher-logits cached out",
    # the network
    "digits-sce --model.branch-count 1": "--model.branch-count is the number of auxiliary heads: add --model.branches, or leave "
    "it out",
    # the optimiser and its schedule
    "digits-sce --optimizer.warmup-epochs 31": "--optimizer.warmup-epochs 31 is more than --epochs 30, so that the learning rate "
    "would never reach its highest value: expected fewer",
    "digits-sce --epochs 2 --optimizer.warmup-epochs 2.5": "--optimizer.warmup-epochs 2.5 is more than --epochs 2, so that the "
    "learning rate would never reach its highest value: expected fewer",
    "digits-sce --optimizer.name adamw --optimizer.momentum 0.8": "--optimizer.momentum 0.8 is only for sgd, and this run has "
    "--optimizer.name adamw: leave it out",
    "digits-sce --optimizer.step-epochs 10": "--optimizer.step-epochs 10 is only for the step schedule, and this run has "
    "--optimizer.schedule cosine: leave it out, or add --optimizer.schedule step",
    "digits-sce --optimizer.schedule constant --optimizer.step-factor 0.5": "--optimizer.step-factor 0.5 is only for the step "
    "schedule, and this run has --optimizer.schedule constant: leave it out, or add --optimizer.schedule step",
    "digits-sce --optimizer.schedule constant --optimizer.schedule-per epoch": "--optimizer.schedule-per epoch is only for the "
    "cosine, and this run has --optimizer.schedule constant, which changes between epochs or never: leave it out",
    "digits-sce --optimizer.schedule step": "--optimizer.schedule step takes its first step after 30 epochs, and --epochs is 30: "
    "set --optimizer.step-epochs to fewer",
    "digits-sce --trainer.accumulate 24": "--trainer.accumulate 24 is more than the batches of an epoch: 1442 samples make 23 "
    "with --data.batch-size 64; expected 23 or fewer",
    "digits-sce --data.train-samples 100 --trainer.accumulate 3": "--trainer.accumulate 3 is more than the batches of an "
    "epoch: 100 samples make 2 with --data.batch-size 64; expected 2 or fewer",
    # images
    "digits-sce --data.mix-alpha 0.2": "--data.mix-alpha 0.2 has no effect without mixing: add --data.mix mixup or cutmix, or "
    "leave it out",
    # time
    "digits-sce --segments 2": "segments=2 only means something under gradient='rate'; this is gradient='bptt'",
    "digits-sce --chunk 2": "chunk=2 only means something under gradient='rate'; this is gradient='bptt'",
    "digits-rate --no-recompute": "recompute=False only means something with chunk: give chunk, the timesteps to compute at a time",
    "digits-sce --no-recompute": "recompute=False only means something under gradient='rate'; this is gradient='bptt'",
    # neurons
    "digits-ann --model.lif.decay 0.3": "--model.neuron relu has no spiking neurons to take --model.lif.decay 0.3: leave it out",
    "digits-sce --model.neuron relu --model.lif.v-init half --model.lif.decay learned": "--model.neuron relu has no spiking "
    "neurons to take --model.lif.decay learned, --model.lif.v-init half: leave it out",
    "digits-dsr --model.lif.surrogate arctan": "--gradient dsr does not use --model.lif.surrogate: leave it out",
    "digits-sce --model.lif.v-init 5": "v_init is 5.0: without any input a neuron fires at the first timestep, because decay 0.5 "
    "times v_init reaches the threshold 1.0; expected less",
    "digits-sce --model.lif.v-reset 1 --model.lif.decay 1": "v_reset is 1.0: without any input a neuron fires for ever once it "
    "has, because decay 1.0 times v_reset reaches the threshold 1.0; expected less",
    # heads and data
    "digits-sce --model.branches": "objective 'sce' does not train auxiliary heads, so they would learn nothing: "
    "leave --model.branches out, or use --objective.name esd",
    "digits-sce --data.size 16": "digits takes no 'size', which is an option of arrays, cifar10_dvs, "
    "dvs_gesture, event_folder, image_folder, imagenet, ncaltech101, tiny_imagenet; leave it out",
    "digits-sce --data.slicing time": "digits takes no 'slicing', which is an option of cifar10_dvs, "
    "dvs_gesture, event_folder, ncaltech101, nmnist; leave it out",
    # weights
    "digits-skd --objective.options.alpha -0.2": "alpha must be a number from 0 to 1,000,000,000; got -0.2",
    "digits-esd --objective.options.factor 0": "objective 'esd' has no weight above 0 and would learn nothing: raise one",
}
ALONE = [name for name in list_objectives() if create_objective(name).compares_submodels]


@pytest.mark.parametrize("line", REFUSED)
def test_it_is_refused_in_one_line_and_nothing_is_left_behind(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *line.split()]) == 2
    assert capsys.readouterr().err == f"spikedistill train: {REFUSED[line]}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
@pytest.mark.parametrize("name", ALONE)
def test_one_timestep_has_no_other_to_learn_from(name, gradient):
    config = recipe(f"digits-{name}").model_copy(update={"timesteps": 1, "gradient": gradient})
    with pytest.raises(
        ValueError, match=f"^objective '{name}' lets timesteps teach each other, and --timesteps 1 has only one"
    ):
        plan_without_teacher(config)
    assert plan_without_teacher(config.model_copy(update={"timesteps": 2, "gradient": "bptt"}))


def test_the_ones_that_need_two_timesteps_are_those_with_a_weight_on_it():
    assert set(ALONE) >= {"s2w", "w2s", "s2w-w2s", "etc", "mps-guidance", "twce-twsd", "twkd"}
    without = recipe("digits-twkd").objective.model_copy(update={"options": {"beta": 0.0}})
    assert plan_without_teacher(recipe("digits-twkd").model_copy(update={"timesteps": 1, "objective": without}))
    assert not Objective("mine", [Term("a", 1.0, twce), Term("b", 0.0, twsd)]).compares_submodels
    assert Objective("mine", [Term("a", 1.0, twce), Term("b", 0.0, twsd, end_weight=1.0)]).compares_submodels


FLOATS = [
    (name, option)
    for name in list_objectives()
    for option, default in objective_options(name).items()
    if isinstance(default, float)
]


@pytest.mark.parametrize(("name", "option"), FLOATS)
def test_no_option_of_an_objective_may_be_negative_huge_or_no_number(name, option):
    """Weights, shares and temperatures alike: the entropies that methods subtract have weights of 0 or more too."""
    for value in (-0.5, float("nan"), float("inf"), -float("inf"), 1e30, 10**400):
        with pytest.raises(ValueError, match=rf"^{option} must (be|lie)") as refused:
            create_objective(name, **{option: value})
        assert "\n" not in str(refused.value)


def test_every_entropy_that_is_rewarded_keeps_its_negative_weight():
    rewarded = {
        name: term.weight for name in list_objectives() for term in create_objective(name).terms if term.weight < 0
    }
    assert rewarded == {"entropy-regularisation": -0.1, "tser-unofficial": -0.1}


def test_a_data_set_of_one_class_has_nothing_to_tell_apart(monkeypatch):
    def of_one_class(config):
        data = plans_dataset(config)
        ones = TensorSamples(data.train.data[:8], torch.zeros(8, dtype=torch.int64))
        return replace(data, train=ones, test=ones, classes=("0",))

    plans_dataset = plans.dataset_of
    monkeypatch.setattr(plans, "dataset_of", of_one_class)
    with pytest.raises(ValueError, match="digits has one class, expected 2 or more to tell apart"):
        make_plan(quick("digits-sce"))


# What is allowed


@pytest.mark.parametrize(
    "line",
    [
        "digits-sce --optimizer.schedule step --optimizer.step-epochs 10 --optimizer.step-factor 0.5",
        "digits-sce --optimizer.name adamw",
        "digits-sce --optimizer.warmup-epochs 30",
        "digits-sce --trainer.accumulate 23",
        "digits-rate --segments 2 --chunk 2 --no-recompute",
        "digits-sce --model.neuron relu",
        "digits-esd --model.neuron lif",
        "digits-sce --model.lif.v-init 1 --model.lif.decay 0.9",
        "digits-sce --model.lif.v-init half --model.lif.decay 1",
        "digits-tser-unofficial --objective.options.gamma 0 --objective.options.alpha 0",
        "digits-esd --objective.options.beta 0",
        "digits-sce --timesteps 1 --gradient-scale 1/T",
    ],
)
def test_what_has_an_effect_is_not_refused(line):
    name, *arguments = line.split()
    assert plan_without_teacher(parse_config(recipe(name), arguments))


@pytest.mark.parametrize("dataset", [name for name in list_datasets() if usual_settings(name) is not None])
def test_an_ann_has_no_settings_of_neurons_whatever_the_recipe_has(dataset, tmp_path):
    """The recipe for folders of images has another decay than the default."""
    assert recipe(f"{dataset}-ann").model.lif == NeuronConfig()
    assert relu_twin(recipe(f"{dataset}-esd"), 0, tmp_path).model.lif == NeuronConfig()
    assert parse_config(recipe(f"{dataset}-sce"), ["--model.neuron", "relu"]).model.lif == NeuronConfig()


COMMON = ["--model.lif.decay", "0.7", "--model.lif.threshold", "0.5", "--teacher-logits", "computed", "--epochs", "2"]


def test_settings_for_all_methods_of_a_comparison_stay_with_those_that_have_a_use_for_them(tmp_path):
    weights = tmp_path / "weights.safetensors"
    spec = {"name": "convnet", "num_classes": 10, "in_channels": 1, "image_size": 8, "neuron": "relu"}
    save_model(create_model(**spec), spec, weights)
    given = [*COMMON, "--teacher", str(weights), "--teacher-model", "convnet", "--optimizer.warmup-epochs", "1"]
    names = ["digits-ann", "digits-sce", "digits-skd", "digits-s2w", "digits-dsr", "digits-esd"]
    configs = [variant(name, given) for name in names]
    planned = {config.recipe: config for config in with_teachers(configs, 0, 0, tmp_path, 2)}
    assert list(planned) == names, "the teacher is given"
    for config in planned.values():
        plan_without_teacher(config)
    assert planned["digits-ann"].model.lif == NeuronConfig()
    assert planned["digits-s2w"].model.lif == NeuronConfig(decay=0.7, threshold=0.5)
    assert [name for name, config in planned.items() if config.teacher_model] == ["digits-skd"]


def test_the_twin_that_teaches_a_comparison_with_other_neurons_can_be_trained(tmp_path):
    twin, student = with_teachers([variant("digits-skd", COMMON)], 0, 0, tmp_path, 2)
    assert (twin.model.neuron, twin.model.lif) == ("relu", NeuronConfig())
    assert student.model.lif.decay == 0.7
    plan_without_teacher(twin)


def test_what_is_left_out_is_nothing_else():
    plain = recipe("digits-skd").model_copy(update={"teacher_logits": "cached"})
    assert without_foreign_settings(plain) == plain
    ann = recipe("digits-ann").model_copy(update={"timestep_draws": 2, "init_membranes": True})
    assert without_foreign_settings(ann) == recipe("digits-ann"), "timesteps and membranes are of spiking networks"
    assert without_foreign_settings(recipe("digits-ann")) == recipe("digits-ann")
