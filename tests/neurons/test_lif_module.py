"""The neuron as a module: its options, parameters and messages."""

import copy
import math

import pytest
import torch
from plain_lif import plain_lif

from spikedistill import LIF, lif

f64 = torch.float64


def currents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=f64) + 0.4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decay": 0.2, "threshold": 0.7, "detach_reset": True, "surrogate": "arctan"},
        {"v_reset": 0.0, "v_init": 0.25, "surrogate": torch.cos},
    ],
)
def test_a_plain_tensor_is_taken_as_currents_over_time(options):
    x = currents(5, 2, 3, 4, 4)
    assert torch.equal(LIF(**options)(x), lif(x, **options))


def test_half_starts_at_half_the_threshold():
    x = currents(4, 2, 3)
    assert torch.equal(LIF(threshold=0.6, v_init="half")(x), lif(x, threshold=0.6, v_init=0.3))
    assert not list(LIF(v_init="half").parameters())


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 2, 3, 5), (4, 2, 3, 5, 5)])
def test_a_learned_initial_membrane_is_one_value_per_channel_starting_at_zero(shape):
    neuron = LIF(v_init="learned", channels=3).to(f64)
    ((name, v_init),) = neuron.named_parameters()
    assert (name, v_init.tolist()) == ("v_init", [0, 0, 0])
    with torch.no_grad():
        v_init.copy_(torch.tensor([0.9, -0.5, 0.3]))
    x = currents(*shape)
    per_channel = v_init.detach().view(3, *[1] * (len(shape) - 3)).clone().requires_grad_()
    spikes, plain = neuron(x), plain_lif(x, v_init=per_channel)
    assert torch.equal(spikes, plain)
    spikes.sum().backward()
    plain.sum().backward()
    torch.testing.assert_close(v_init.grad, per_channel.grad.flatten(), rtol=1e-12, atol=0)


def test_a_learned_decay_starts_where_it_is_told_and_is_the_logistic_of_a_parameter():
    neuron = LIF(decay=0.8, learn_decay=True)
    ((name, logit),) = neuron.named_parameters()
    assert name == "decay_logit"
    assert logit.shape == ()
    assert logit.sigmoid().item() == pytest.approx(0.8)
    neuron.to(f64)
    twin = neuron.decay_logit.detach().clone().requires_grad_()
    x = currents(5, 2, 3)
    spikes, plain = neuron(x), plain_lif(x, decay=1 / (1 + torch.exp(-twin)))
    assert torch.equal(spikes, plain)
    spikes.sum().backward()
    plain.sum().backward()
    torch.testing.assert_close(neuron.decay_logit.grad, twin.grad, rtol=1e-12, atol=0)


def test_a_neuron_without_learned_options_has_an_empty_state_and_gains_none_by_running():
    neuron = LIF()
    before = copy.deepcopy(neuron.__dict__)
    first = neuron(currents(4, 2, 3))
    assert torch.equal(first, neuron(currents(4, 2, 3)))
    assert neuron.state_dict() == {}
    assert neuron.__dict__.keys() == before.keys()


def test_the_state_dict_round_trips():
    neuron = LIF(learn_decay=True, v_init="learned", channels=2)
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.add_(0.3)
    other = LIF(learn_decay=True, v_init="learned", channels=2)
    other.load_state_dict(neuron.state_dict())
    x = currents(4, 3, 2)
    assert torch.equal(neuron(x), other(x))


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
        ({"surrogate": "gauss"}, "surrogate 'gauss' is unknown"),
        ({"v_init": "quarter"}, "v_init is 'quarter', expected a number, 'half' or 'learned'"),
        ({"v_init": "learned"}, "say how many with channels="),
        ({"learn_decay": True, "decay": 1.0}, r"a learned decay starts inside \(0, 1\); got 1.0"),
        ({"learn_decay": True, "decay": 0.0}, r"a learned decay starts inside \(0, 1\); got 0.0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_with_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        LIF(**options)


def test_it_prints_its_dynamics():
    assert repr(LIF()) == "LIF(decay=0.5, threshold=1.0, reset=soft, surrogate=sigmoid)"
    assert repr(LIF(learn_decay=True, v_reset=0.0, surrogate=torch.cos)).startswith(
        "LIF(decay=learned, threshold=1.0, reset=hard"
    )
