"""Neurons and surrogates by the names under which users register them."""

import pytest
import torch
from plain_lif import cubic_bump
from torch import nn

from spikedistill import (
    LIF,
    Delay,
    SpikingNeuron,
    UserError,
    create_model,
    register_neuron,
    register_surrogate,
    spike,
    temporal,
)
from spikedistill.comparisons.planned_runs import without_foreign_settings
from spikedistill.config import NeuronConfig
from spikedistill.evaluation import gradient_rules
from spikedistill.models import load_model, save_model
from spikedistill.neurons import NEURONS, SURROGATES, lif, list_neurons
from spikedistill.objectives import create_objective
from spikedistill.recipes import recipe
from spikedistill.recipes.settings import parse_config, variant
from spikedistill.through_time import UnsupportedOperationError
from spikedistill.training.combinations import check_together

SMALL = {"name": "convnet", "num_classes": 4, "in_channels": 1, "image_size": 8, "width": 0.25}


class Slow(SpikingNeuron):
    def __init__(self, channels, decay: float = 0.9, hard: bool = False):
        super().__init__()
        self.channels, self.decay, self.hard, self.threshold = channels, decay, hard, 0.5

    def step(self, current, state):
        u = current if state is None else self.decay * state + current
        spikes = spike(u - self.threshold)
        return spikes, u * (1 - spikes) if self.hard else u - self.threshold * spikes


@pytest.fixture
def slow(fresh_names):
    register_neuron("slow")(Slow)


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, SpikingNeuron)]


def test_networks_are_made_with_a_registered_neuron_its_channels_and_options(slow):
    assert list_neurons() == ["lif", "relu", "slow", "smoothed-lif", "timestep-leak"]
    assert NEURONS.origin("slow") == __name__
    model = create_model(**SMALL, neuron="slow", neuron_options={"decay": 0.8, "hard": True})
    norms = [module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    layers = layers_of(model)
    assert [(type(layer), layer.channels, layer.decay, layer.hard) for layer in layers] == [
        (Slow, channels, 0.8, True) for channels in norms
    ]
    assert {layer.decay for layer in layers_of(create_model(**SMALL, neuron="slow"))} == {0.9}
    x = torch.rand(2, 1, 8, 8)
    assert model(x, timesteps=3).shape == (3, 2, 4)
    twin = create_model(**SMALL, neuron="relu")
    assert [p.shape for p in twin.parameters()] == [p.shape for p in model.parameters()], "the ANN that may teach it"
    tdbn = create_model(**SMALL | {"name": "resnet18"}, neuron="slow", norm="tdbn")
    weights = {norm.weight[0].item() for norm in tdbn.modules() if isinstance(norm, nn.BatchNorm2d)}
    assert max(weights) == 0.5


def test_a_function_may_make_the_layer_and_need_no_channels(fresh_names):
    @register_neuron("late")
    def late(steps: int = 1):
        return nn.Sequential(Delay(steps), LIF(threshold=0.4))

    model = create_model(**SMALL, neuron="late", neuron_options={"steps": 2})
    assert {module.timesteps for module in model.modules() if isinstance(module, Delay)} == {2}
    assert {layer.threshold for layer in layers_of(model)} == {0.4}


def takes_anything(channels, *rest):
    return Slow(channels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: register_neuron("slow")(Slow), "neuron 'slow' is registered already"),
        (lambda: register_neuron("lif")(Slow), "neuron 'lif' is registered already, by spikedistill"),
        (lambda: register_neuron("my slow")(Slow), "'my slow' cannot be the name of a neuron"),
        (
            lambda: register_neuron("new")(lambda channels, decay: None),
            "neuron 'new' has a parameter 'decay' without a",
        ),
        (lambda: register_neuron("new")(takes_anything), r"has a parameter '\*rest' without a default"),
        (lambda: create_model(**SMALL, neuron="slo"), "no neuron is called 'slo': did you mean 'slow'"),
        (
            lambda: create_model(**SMALL, neuron="slow", decay=0.8),
            "neuron='slow' takes no options of LIF, such as decay",
        ),
        (lambda: create_model(**SMALL, neuron_options={"a": 1}), "neuron='lif' takes no neuron_options.*got a"),
        (
            lambda: create_model(**SMALL, neuron="slow", neuron_options={"tau": 1.0}),
            "neuron 'slow' has no option 'tau': its options are decay=0.9, hard=False",
        ),
        (
            lambda: create_model(**SMALL, neuron="slow", neuron_options={"decay": "x"}),
            "option 'decay' of neuron 'slow' must be a float; got 'x'",
        ),
        (
            lambda: create_model(**SMALL, neuron="slow", gradient="rate"),
            "gradient='rate' is derived for LIF neurons, and layer '.*' is a Slow with its own step: use gradient='bptt'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(slow, call, message):
    with pytest.raises(UserError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_a_factory_that_makes_no_neurons_is_refused(fresh_names):
    register_neuron("softplus")(lambda: nn.Softplus())
    with pytest.raises(UserError, match="neuron 'softplus' made a Softplus, expected a layer of neurons"):
        create_model(**SMALL, neuron="softplus")


def test_a_model_file_is_filled_again_where_the_name_is_registered(slow, tmp_path, monkeypatch):
    spec = SMALL | {"neuron": "slow", "neuron_options": {"decay": 0.7}}
    model, file, x = create_model(**spec).eval(), tmp_path / "model.safetensors", torch.rand(2, 1, 8, 8)
    save_model(model, spec, file, imports=["slow.py"])
    assert torch.equal(load_model(file)(x, timesteps=2), model(x, timesteps=2))
    monkeypatch.delitem(NEURONS._known, "slow")
    with pytest.raises(UserError, match=r"'slow'.*--import slow\.py"):
        load_model(file)


def test_the_command_line_brings_its_options_and_leaves_the_settings_of_lif(slow):
    default = recipe("digits-esd", protocol=None)
    assert default.model.lif != NeuronConfig()
    config = parse_config(recipe("digits-dspike"), ["--model.neuron", "slow", "--model.neuron-options.decay", "0.7"])
    assert (config.model.neuron, config.model.lif) == ("slow", NeuronConfig())
    assert config.model.neuron_options == {"decay": 0.7, "hard": False}
    assert variant("digits-sce,model.neuron=slow", []).model.neuron_options["decay"] == 0.9
    protocol = parse_config(recipe("cifar10-twkd"), ["--protocol", "twkd", "--model.neuron", "slow"])
    assert protocol.model.lif == NeuronConfig()
    assert config.model.as_ann().neuron_options == {}
    with pytest.raises(UserError, match="no neuron is called 'slowly': did you mean 'slow'"):
        parse_config(recipe("digits-sce"), ["--model.neuron", "slowly"])
    with pytest.raises(UserError, match="neuron-options"):
        parse_config(recipe("digits-sce"), ["--model.neuron", "slow", "--model.neuron-options.tau", "1"])


def test_settings_of_lif_are_refused_beside_it_and_left_out_of_its_runs_in_a_comparison(slow):
    config = parse_config(recipe("digits-sce"), ["--model.neuron", "slow", "--model.lif.decay", "0.9"])
    with pytest.raises(
        UserError, match=r"--model\.neuron slow has its own .*, and not --model\.lif\.decay 0\.9: leave it"
    ):
        check_together(config, create_objective("sce"))
    assert without_foreign_settings(config).model.lif == NeuronConfig()


@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate"])
def test_a_registered_surrogate_is_the_callable_under_every_rule_that_uses_one(gradient, fresh_names):
    register_surrogate("bump")(cubic_bump)
    assert SURROGATES.origin("bump") == __name__
    gradients = []
    for surrogate in ("bump", cubic_bump, "sigmoid"):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 5), LIF(surrogate=surrogate), nn.Linear(5, 3), LIF(surrogate=surrogate))
        temporal(network.double(), gradient=gradient)(torch.rand(2, 4).double() * 2, timesteps=3).sum().backward()
        gradients.append(network[0].weight.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.equal(gradients[0], gradients[2])


def test_a_registered_surrogate_has_its_name_everywhere(fresh_names):
    register_surrogate("bump")(cubic_bump)
    model = create_model(**SMALL, surrogate="bump")
    assert "surrogate=bump" in repr(layers_of(model)[0])
    names = {rule.name for rule in gradient_rules(model, 4)}
    assert "bptt with sigmoid" in names
    assert "bptt with bump" not in names
    assert "bptt with bump" in {rule.name for rule in gradient_rules(create_model(**SMALL), 4)}
    config = parse_config(recipe("digits-sce"), ["--model.lif.surrogate", "bump"])
    assert config.model.lif.surrogate == "bump"
    x = torch.full((1, 1), 1.2, requires_grad=True)
    spike(x - 1, "bump").backward()
    assert x.grad.item() == pytest.approx(0.75 * (1 - 0.2**2))
    current = torch.full((2, 1), 1.2)
    assert torch.equal(lif(current, surrogate="bump"), lif(current))


@pytest.mark.parametrize(
    ("surrogate", "message"),
    [
        (lambda x: 1.0, "surrogate 'mine' returned float for x"),
        (
            lambda x: x.sum(),
            r"returned \[\] torch.float32 for x \[3, 3\] torch.float32 from -2 to 2, expected ds/du for each",
        ),
        (lambda x: x > 0, r"returned \[3, 3\] torch.bool"),
        (lambda x: 1 / x, r"expected ds/du for each x: finite numbers"),
    ],
)
def test_what_is_no_derivative_is_refused(surrogate, message, fresh_names):
    with pytest.raises(UserError, match=message):
        register_surrogate("mine")(surrogate)
    assert "mine" not in SURROGATES


def test_a_registered_surrogate_with_parameters_is_refused_like_any(fresh_names):
    register_surrogate("prelu")(nn.PReLU())
    with pytest.raises(UserError, match="the surrogate has parameters"):
        LIF(surrogate="prelu")
    with pytest.raises(UserError, match="surrogate 'arctan' is registered already, by spikedistill"):
        register_surrogate("arctan")(cubic_bump)


def test_rates_refuse_a_neuron_with_its_own_step_that_comes_later(slow):
    model = temporal(nn.Sequential(nn.Linear(2, 2)), gradient="rate")
    model.module.append(Slow(2))
    with pytest.raises(UnsupportedOperationError, match="'Slow' has no rule across time under gradient='rate'"):
        model(torch.rand(1, 2), timesteps=2)
