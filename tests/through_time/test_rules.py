"""Gradient rules are values; their names are short forms of them, and what does not belong together cannot be said."""

from typing import get_args

import pytest
from torch import nn

from spikedistill import create_model, temporal
from spikedistill.config import Config, Gradient
from spikedistill.through_time import OPTIONS, RULES, Bptt, Dsr, Rate, Sltt, rule_of

SHORT = [
    ({}, Bptt()),
    ({"gradient": "bptt", "checkpoint": True}, Bptt(checkpoint=True)),
    ({"gradient": "sltt"}, Sltt()),
    ({"gradient": "rate"}, Rate()),
    ({"gradient": "rate", "segments": (1, 3), "chunk": 2, "recompute": False}, Rate((1, 3), chunk=2, recompute=False)),
    ({"gradient": "dsr"}, Dsr()),
]


@pytest.mark.parametrize(("short", "value"), SHORT, ids=str)
def test_a_name_is_a_short_form_of_a_value(short, value):
    assert temporal(nn.Linear(2, 3), **short).rule == value
    assert temporal(nn.Linear(2, 3), gradient=value).rule == value
    assert create_model("convnet", num_classes=3, width=0.1, **short).rule == value
    assert create_model("convnet", num_classes=3, width=0.1, gradient=value).rule == value


def test_no_two_rules_are_equal():
    assert len({value for _, value in SHORT}) == len(SHORT)


def test_the_defaults_of_other_rules_may_be_said():
    assert rule_of("sltt", segments=1, chunk=None, recompute=True, checkpoint=False) == Sltt()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "bptt", "segments": 2}, "segments=2 only means something under gradient='rate'"),
        ({"gradient": Rate(), "segments": 2}, r"got Rate.* and also segments: give one or the other"),
        ({"gradient": "rtrl"}, "gradient is 'rtrl', expected one of bptt, sltt, rate, dsr"),
    ],
)
def test_what_does_not_belong_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        temporal(nn.Linear(2, 3), **options)


def test_an_option_of_no_rule_is_refused():
    with pytest.raises(TypeError, match="no gradient rule has an option segment: expected checkpoint, segments"):
        temporal(nn.Linear(2, 3), segment=2)


@pytest.mark.parametrize("value", [value for _, value in SHORT], ids=str)
def test_what_is_written_of_a_rule_makes_it_again(value):
    assert rule_of(**value.written()) == value


def test_the_configuration_has_every_rule_and_every_option_with_its_default():
    assert get_args(Gradient) == tuple(RULES)
    assert {name: Config.model_fields[name].default for name in OPTIONS} == OPTIONS


def test_timesteps_have_gradient_paths_of_their_own():
    assert [rule.paths(4) for rule in (Bptt(), Sltt(), Rate(), Rate(2), Rate((1, 3)), Dsr())] == [4, 4, 1, 2, 2, 1]
    with pytest.raises(ValueError, match="segments=9 cannot divide 4 timesteps"):
        Rate(9).paths(4)
