"""Methods that change the network rather than the objective: what they change, and that training and teachers know of it."""

import math

import pytest
import torch
from quick_runs import quick
from torch import nn

from spikedistill import LIF, load
from spikedistill.config import Config, ModelConfig, NeuronConfig
from spikedistill.data import list_datasets, usual_settings
from spikedistill.models import create_model
from spikedistill.recipes import recipe
from spikedistill.recipes.catalogue import with_network
from spikedistill.recipes.settings import parse_config
from spikedistill.run_folder import RunFolder
from spikedistill.training import train
from spikedistill.training.plan import make_plan
from spikedistill.training.teacher import relu_twin

CHANGED = {"tdbn": "norm: tdbn", "dspike": "surrogate: dspike"}


@pytest.mark.parametrize("method", CHANGED)
@pytest.mark.parametrize("dataset", [name for name in list_datasets() if usual_settings(name) is not None])
def test_it_is_sce_with_one_line_of_the_configuration_changed(dataset, method):
    plain, other = (recipe(f"{dataset}-{name}").to_yaml().splitlines() for name in ("sce", method))
    different = [(before, after) for before, after in zip(plain, other, strict=True) if before != after]
    assert [after.strip() for _, after in different] == [f"recipe: {dataset}-{method}", CHANGED[method]]


def test_s2w_under_attack_has_the_setting_that_regularised_adversarial_training_is_published_with():
    config = recipe("cifar100-s2w-rat")
    assert (config.model.name, config.timesteps, config.epochs, config.data.batch_size) == ("vgg11_fc", 8, 300, 256)
    lif, optimizer, objective = config.model.lif, config.optimizer, config.objective
    assert (lif.decay, lif.threshold, lif.v_reset, lif.surrogate) == (1.0, 1.0, 0.0, "triangular")
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.decayed) == ("sgd", 0.1, 5e-4, "all")
    assert optimizer.orthogonal == 0.001
    attack = (objective.adversarial, objective.adversarial_eps, objective.adversarial_step, objective.adversarial_steps)
    assert (objective.name, *attack) == ("s2w", "pgd", 2.0, 1.0, 2)


@pytest.mark.parametrize("value", ["norm: layer", "norm: tdBN", "surrogate: arctang"])
def test_other_names_are_refused_with_those_that_there_are(value):
    text = recipe("digits-sce").to_yaml()
    option = value.split(":")[0]
    known = {"norm": "'batch', 'timestep_batch' or 'tdbn'", "surrogate": "no surrogate is called 'arctang'.* 'arctan'"}[
        option
    ]
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{option}:")]
    with pytest.raises(ValueError, match=known):
        make_plan(Config.from_yaml(text.replace(line, line.split(option)[0] + value)))


def batch_norms(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_a_run_trains_the_network_that_tdbn_names_and_its_file_says_so(tmp_path):
    options = {"norm": "tdbn", "width": 0.25, "lif": NeuronConfig(threshold=0.5)}
    residual = quick("cifar10-tdbn", model=ModelConfig(name="resnet18", **options))
    start = {value for norm in batch_norms(make_plan(residual).build_network()) for value in norm.weight.tolist()}
    assert sorted(start) == pytest.approx([0.5 / math.sqrt(2), 0.5])
    run = RunFolder(train(quick("digits-tdbn", out=tmp_path / "run", model=ModelConfig(**options))))
    assert run.config().model.norm == "tdbn"
    network = load(run.path)
    assert network(torch.rand(2, 1, 8, 8), timesteps=3).isfinite().all()
    assert all((norm.weight != 0.5).any() for norm in batch_norms(network)), "the weights learn"


def test_a_run_trains_the_neurons_that_dspike_names():
    network = make_plan(quick("digits-dspike")).build_network()
    neurons = [module for module in network.modules() if isinstance(module, LIF)]
    assert {neuron.surrogate for neuron in neurons} == {"dspike"}


def test_the_teacher_of_a_tdbn_network_is_an_ordinary_ann(tmp_path):
    twin = relu_twin(quick("digits-tdbn"), 0, tmp_path)
    assert (twin.model.neuron, twin.model.norm) == ("relu", "batch")
    assert {value for norm in batch_norms(make_plan(twin).build_network()) for value in norm.weight.tolist()} == {1.0}
    with pytest.raises(ValueError, match="the ReLU twin has none"):
        make_plan(quick("digits-ann", model=ModelConfig(neuron="relu", norm="tdbn")))
    assert relu_twin(quick("digits-sce", model=ModelConfig(norm="timestep_batch")), 0, tmp_path).model.norm == (
        "timestep_batch"
    )


def test_the_layout_for_imagenet_is_refused_by_name_of_others_to_use():
    model = recipe("image_folder-tdbn", protocol="esd").model
    assert model.name == "resnet34"
    with pytest.raises(ValueError, match="a layout such as resnet18 or spiking_resnet34"):
        create_model(model.name, num_classes=10, image_size=64, width=1 / 16, norm=model.norm)
    create_model("spiking_resnet34", num_classes=10, image_size=64, width=1 / 16, norm=model.norm)


@pytest.mark.parametrize(("network", "heads"), [("convnet", 3), ("resnet18", 4), ("resnet19", 3), ("resnet34", 4)])
def test_the_loss_of_esd_is_a_sum_over_the_heads_of_whichever_network(network, heads):
    """The mean over the heads, times how many there are; also where the network changes after the recipe was made."""
    network_of_run = create_model(network, num_classes=10, width=0.1, branches=True)
    assert len(network_of_run.heads(torch.rand(2, 3, 32, 32), 1)[1]) == heads
    assert with_network(recipe("digits-esd"), network).objective.options["factor"] == heads
    assert with_network(recipe("cifar10-esd"), network).objective.options["factor"] == heads
    assert parse_config(recipe("cifar10-esd"), ["--model.name", network]).objective.options["factor"] == heads
    misspelt = recipe("digits-esd").model_copy(update={"model": ModelConfig(name="convent")})
    assert with_network(misspelt, network).model.name == network
    assert with_network(recipe("digits-esd"), "convent").objective == recipe("digits-esd").objective
    # a protocol sums over the heads itself
    assert with_network(recipe("cifar10-esd", "esd"), network).objective == recipe("cifar10-esd", "esd").objective
