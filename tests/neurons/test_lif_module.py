"""The neuron as a module: its options, parameters and messages."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_lif import plain_lif
from torch import nn

from spikedistill import LIF, Learned, UserError, lif, temporal

f64 = torch.float64


def currents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=f64) + 0.4


def fire(neuron, x):
    """What the neurons of a layer do with currents `[T, B, ...]`."""
    return temporal(nn.Sequential(neuron))(x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decay": 0.2, "threshold": 0.7, "detach_reset": True, "surrogate": "arctan"},
        {"v_reset": 0.0, "v_init": 0.25, "surrogate": torch.cos},
    ],
)
def test_in_a_network_it_does_what_the_function_does_with_the_same_options(options):
    x = currents(5, 2, 3, 4, 4)
    assert torch.equal(fire(LIF(**options), x), lif(x, **options))


def test_half_starts_at_half_the_threshold():
    x = currents(4, 2, 3)
    assert torch.equal(fire(LIF(threshold=0.6, v_init="half"), x), lif(x, threshold=0.6, v_init=0.3))
    assert not list(LIF(v_init="half").parameters())


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_half_follows_a_threshold_that_is_learned(gradient):
    neuron, x = LIF(threshold="learned", v_init="half").to(f64), currents(1, 2, 3)
    neuron.log_threshold.data.fill_(-0.5)
    logarithm = torch.tensor(-0.5, dtype=f64, requires_grad=True)
    spikes = temporal(nn.Sequential(neuron), gradient=gradient)(x)  # one timestep, where both rules are one
    plain = plain_lif(x, threshold=logarithm.exp(), v_init=logarithm.exp() / 2)
    assert torch.equal(spikes, plain)
    spikes.sum().backward()
    plain.sum().backward()
    torch.testing.assert_close(neuron.log_threshold.grad, logarithm.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 2, 3, 5), (4, 2, 3, 5, 5)])
def test_a_learned_initial_membrane_is_one_value_per_channel_starting_at_zero(shape):
    neuron = LIF(v_init="learned", channels=3).to(f64)
    ((name, v_init),) = neuron.named_parameters()
    assert (name, v_init.tolist()) == ("v_init", [0, 0, 0])
    with torch.no_grad():
        v_init.copy_(torch.tensor([0.9, -0.5, 0.3]))
    x = currents(*shape)
    per_channel = v_init.detach().view(3, *[1] * (len(shape) - 3)).clone().requires_grad_()
    spikes, plain = fire(neuron, x), plain_lif(x, v_init=per_channel)
    assert torch.equal(spikes, plain)
    spikes.sum().backward()
    plain.sum().backward()
    torch.testing.assert_close(v_init.grad, per_channel.grad.flatten(), rtol=1e-12, atol=0)


def test_a_learned_decay_starts_where_it_is_told_and_is_the_logistic_of_a_parameter():
    neuron = LIF(decay="learned:0.8")
    ((name, logit),) = neuron.named_parameters()
    assert name == "decay_logit"
    assert logit.shape == ()
    assert logit.sigmoid().item() == pytest.approx(0.8)
    neuron.to(f64)
    twin = neuron.decay_logit.detach().clone().requires_grad_()
    x = currents(5, 2, 3)
    spikes, plain = fire(neuron, x), plain_lif(x, decay=1 / (1 + torch.exp(-twin)))
    assert torch.equal(spikes, plain)
    spikes.sum().backward()
    plain.sum().backward()
    torch.testing.assert_close(neuron.decay_logit.grad, twin.grad, rtol=1e-12, atol=0)


def test_a_learned_threshold_starts_where_it_is_told_and_stays_positive():
    neuron = LIF(threshold=Learned(0.6))
    ((name, logarithm),) = neuron.named_parameters()
    assert (name, logarithm.shape) == ("log_threshold", ())
    assert logarithm.exp().item() == pytest.approx(0.6)
    assert LIF(threshold="learned").log_threshold.item() == 0, "the default, 1, exactly"
    optimizer, x = torch.optim.SGD(neuron.parameters(), lr=20.0), torch.rand(4, 2, 3)
    for _ in range(3):
        optimizer.zero_grad()
        (-fire(neuron, x).mean()).backward()  # more spikes, so lower and lower
        optimizer.step()
    assert 0 < neuron.dynamics(3).threshold < 0.6


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({"decay": "learned", "threshold": "learned"}, {"decay_logit": [], "log_threshold": []}),
        ({"decay": "learned", "threshold": Learned(0.7), "channels": 3}, {"decay_logit": [3], "log_threshold": [3]}),
        ({"decay": Learned(0.2, per="layer"), "v_init": "learned", "channels": 3}, {"decay_logit": [], "v_init": [3]}),
        ({"v_init": Learned(0.2, per="layer")}, {"v_init": []}),
        ({"threshold": "learned_per_channel:2", "v_init": "half", "channels": 2}, {"log_threshold": [2]}),
    ],
)
def test_it_learns_one_value_for_the_layer_or_with_channels_one_for_each(options, shapes):
    assert {name: list(p.shape) for name, p in LIF(**options).named_parameters()} == shapes


@given(st.builds(Learned, st.none() | st.floats(-1e30, 1e30), st.sampled_from([None, "layer", "channel"])))
def test_what_is_learned_and_its_short_form_are_the_same(learned):
    assert Learned.of(str(learned)) == learned
    assert Learned.of(learned) is learned


def test_values_per_channel_that_do_not_fit_the_currents_are_refused():
    neuron = LIF(threshold="learned", channels=3)
    with pytest.raises(
        ValueError, match=r"^threshold is \[3, 1\], the currents of a timestep are \[2, 4, 5\]: expected"
    ):
        fire(neuron, torch.zeros(6, 2, 4, 5))
    with pytest.raises(
        ValueError, match=r"learns one value per channel, and its currents have no channels: expected \[B, C"
    ):
        fire(neuron, torch.zeros(6, 3))


def test_a_neuron_without_learned_options_has_an_empty_state_and_gains_none_by_running():
    neuron = LIF()
    before = copy.deepcopy(neuron.__dict__)
    first = fire(neuron, currents(4, 2, 3))
    assert torch.equal(first, fire(neuron, currents(4, 2, 3)))
    assert neuron.state_dict() == {}
    assert neuron.__dict__.keys() == before.keys()


def test_the_state_dict_round_trips():
    neuron = LIF(decay="learned", v_init="learned", threshold=Learned(per="layer"), channels=2)
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.add_(0.3)
    other = LIF(decay="learned", v_init="learned", threshold=Learned(per="layer"), channels=2)
    other.load_state_dict(neuron.state_dict())
    x = currents(4, 3, 2)
    assert torch.equal(fire(neuron, x), fire(other, x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 2.0}, "decay is 2.0, expected 0"),
        ({"threshold": 0}, "threshold is 0, expected a positive number"),
        ({"threshold": "1"}, "threshold is '1', expected a number"),
        ({"decay": None}, "decay is None, expected a number"),
        ({"v_reset": True}, "v_reset is True, expected a number"),
        ({"v_init": math.nan}, "v_init is nan, expected a number that is finite in float32"),
        (
            {"v_init": 2.0},
            "v_init is 2.0: without any input a neuron fires at the first timestep, because decay 0.5 times v_init",
        ),
        (
            {"v_reset": 1.0, "decay": 1.0},
            "v_reset is 1.0: without any input a neuron fires for ever once it has, because decay",
        ),
        ({"v_init": "learned", "channels": 0}, "channels is 0, expected a whole number of 1 or more"),
        ({"surrogate": "gauss"}, "no surrogate is called 'gauss'"),
        ({"v_init": "quarter"}, "v_init is 'quarter', expected a number, 'half' or 'learned'"),
        ({"v_init": "learned"}, "say how many with channels="),
        ({"decay": "learned:1"}, r"a learned decay starts inside \(0, 1\); got 1.0"),
        ({"decay": Learned(0.0)}, r"a learned decay starts inside \(0, 1\); got 0.0"),
        ({"decay": Learned(1.5)}, "decay is 1.5, expected 0"),
        ({"threshold": "learned:-1"}, "threshold is -1.0, expected a positive number"),
        ({"threshold": Learned(per="channel")}, "threshold='learned_per_channel' keeps one value per channel: say how"),
        (
            {"threshold": "learned: one"},
            "'learned: one': expected 'learned', 'learned:0.8' to start at 0.8, or the same",
        ),
        ({"decay": "learnt"}, "decay is 'learnt', expected a number or 'learned'"),
        (
            {"v_init": Learned(2.5), "channels": 1},
            "v_init is 2.5: without any input a neuron fires at the first timestep",
        ),
        (
            {"threshold": nn.Parameter(torch.tensor(1.0))},
            "threshold is a tensor, expected a number or 'learned'; threshold='l",
        ),
        ({"decay": torch.tensor(0.5)}, r"decay is a tensor, .* and decay=Learned\(0.8\) one that starts at 0.8"),
        (
            {"v_init": torch.zeros(3)},
            "v_init is a tensor, expected a number, 'half' or 'learned'; v_init='learned' makes",
        ),
        ({"surrogate": nn.PReLU()}, "the surrogate has parameters, which would never receive a gradient"),
        ({"v_reset": torch.zeros(3)}, "v_reset is a tensor, expected a number$"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_with_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        LIF(**options)


def test_it_prints_its_dynamics():
    assert repr(LIF()) == "LIF(decay=0.5, threshold=1.0, reset=soft, surrogate=sigmoid)"
    assert repr(LIF(decay="learned", v_reset=0.0, surrogate=torch.cos)).startswith(
        "LIF(decay=learned, threshold=1.0, reset=hard"
    )
    assert repr(LIF(threshold="learned", v_init="half")) == (
        "LIF(decay=0.5, threshold=learned, reset=soft, surrogate=sigmoid, v_init=half)"
    )


def test_an_option_that_is_set_later_counts():
    neuron, x = LIF(v_init="half"), currents(1, 2, 3)
    neuron.threshold = 0.6
    assert torch.equal(fire(neuron, x), lif(x, threshold=0.6, v_init=0.3))
    with pytest.raises(UserError, match="threshold is '5', expected a number or 'learned'"):
        neuron.threshold = "5"
    neuron.threshold = -1.0
    with pytest.raises(UserError, match=r"threshold is -1\.0, expected a positive number"):
        fire(neuron, x)


@pytest.mark.parametrize(
    ("name", "parameter"), [("threshold", "log_threshold"), ("decay", "decay_logit"), ("v_init", "v_init")]
)
def test_an_option_that_is_learned_is_not_set_beside_its_parameter(name, parameter):
    neuron = LIF(**{name: "learned"}, channels=2)
    with pytest.raises(
        UserError, match=rf"{name} of this layer is learned, so .*: write to its parameter {parameter}, or"
    ):
        setattr(neuron, name, 5)
    with torch.no_grad():
        getattr(neuron, parameter).fill_(0.3)
    setattr(neuron, parameter, torch.nn.Parameter(torch.zeros(2)))
    assert not getattr(neuron, parameter).any()
