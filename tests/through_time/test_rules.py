"""Gradient rules are values; their names are short forms of them, and what does not belong together cannot be said."""

import pytest
from torch import nn

from spikedistill import create_model, temporal
from spikedistill.through_time import Bptt, Dsr, Rate, Sltt, rule_of

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
        ({"gradient": Rate(), "segments": 2}, "segments beside Rate.*, which has its own"),
        ({"gradient": "rtrl"}, "gradient is 'rtrl', expected one of bptt, sltt, rate, dsr"),
    ],
)
def test_what_does_not_belong_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        temporal(nn.Linear(2, 3), **options)


def test_an_option_of_no_rule_is_refused():
    with pytest.raises(TypeError, match="no gradient rule has an option segment: expected checkpoint, segments"):
        temporal(nn.Linear(2, 3), segment=2)
