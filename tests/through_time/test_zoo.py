"""Every pattern of the zoo under every rule, against the naive reference, in float64."""

import pytest
import torch
from naive import Naive
from temporal_runs import RULES, T, assert_same_gradients, build, cases, make_input, naive_network, run

from spikedistill import temporal


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("name", "rule", "kind"), cases())
def test_matches_the_naive_reference(name, rule, kind):
    gradient, lengths = RULES[rule]
    timesteps = T if kind == "static" else None
    network, x = build(name), make_input(name, kind)
    reference = Naive(naive_network(name, network), gradient, lengths)
    model = temporal(network, gradient=gradient, segments=lengths or 1)
    logits, gradients, buffers = run(model, network, x, timesteps)
    expected, expected_gradients, expected_buffers = run(reference, reference.network, x, timesteps)

    assert all(0.02 < rate < 0.98 for rate in reference.spikes), "a pattern of silent neurons shows nothing"
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    assert_same_gradients(gradients, expected_gradients, 1e-8 if gradient == "rate" else 1e-9)
    assert buffers.keys() == expected_buffers.keys()
    for key, value in expected_buffers.items():
        torch.testing.assert_close(buffers[key], value, rtol=0, atol=1e-10)
