"""Where the gradient rules must coincide, and that no run leaves anything behind for the next."""

import copy
from pathlib import Path

import pytest
import torch
from naive import Naive
from temporal_runs import RULES, B, T, assert_same_gradients, build, cases, f64, make_input, run
from torch import nn
from zoo import PATTERNS, block, conv_bn, head

from spikedistill import LIF, mean_rate, temporal

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
KINDS = ("static", "events")


def one_run(name, gradient, segments, kind, timesteps):
    network = build(name)
    model = temporal(network, gradient=gradient, segments=segments)
    x = make_input(name, kind, timesteps)
    return run(model, network, x, timesteps if kind == "static" else None)


def assert_same_run(ours, other, tolerance):
    (logits, gradients, buffers), (expected, expected_gradients, expected_buffers) = ours, other
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    assert_same_gradients(gradients, expected_gradients, tolerance)
    for key, value in expected_buffers.items():
        torch.testing.assert_close(buffers[key], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PATTERNS)
def test_one_timestep_is_bptt_under_every_rule(name, kind):
    bptt = one_run(name, "bptt", 1, kind, timesteps=1)
    assert_same_run(one_run(name, "sltt", 1, kind, timesteps=1), bptt, 1e-10)
    # at one timestep nothing varies, so that rate runs whatever bptt runs
    assert_same_run(one_run(name, "rate", 1, kind, timesteps=1), bptt, 1e-10)


@pytest.mark.parametrize(("name", "rule", "kind"), cases(rules=["rate in 4"]))
def test_rate_with_a_segment_per_timestep_is_sltt(name, rule, kind):
    assert RULES[rule] == ("rate", (1,) * T)
    assert_same_run(one_run(name, "rate", T, kind, T), one_run(name, "sltt", 1, kind, T), 1e-10)


def test_the_page_declares_it():
    page = Path(__file__).parents[2] / "docs" / "methods" / "baselines.md"
    assert "| `--gradient rate` with `--segments` T | `--gradient sltt` |\n" in page.read_text()


class WithMeanLogits(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        logits = self.network(x)
        return logits, mean_rate(logits)


@pytest.mark.parametrize(("name", "rule", "kind"), cases(rules=("rate", "rate in 2", "rate in 1 and 3", "rate in 4")))
def test_mean_logits_are_the_mean_of_the_same_pass_spiking_logits(name, rule, kind):
    gradient, lengths = RULES[rule]
    model = temporal(WithMeanLogits(build(name)), gradient=gradient, segments=lengths or 1)
    logits, mean = model(make_input(name, kind), timesteps=T if kind == "static" else None)
    torch.testing.assert_close(mean, logits.mean(0), rtol=0, atol=1e-10)
    assert mean.requires_grad


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_learns_from_the_mean_rate(kind, rule):
    """An ordinary network on mean_rate(features), beside the spiking head."""

    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = block(2, 3), head(108)
            self.branch = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3))

        def forward(self, x):
            features = self.body(x)
            return {"spiking": self.head(features), "branch": self.branch(mean_rate(features))}

    gradient, lengths = RULES[rule]
    torch.manual_seed(0)
    network = Branched().to(f64)
    x = make_input("sequential", kind).requires_grad_()
    timesteps = T if kind == "static" else None
    out = temporal(network, gradient=gradient, segments=lengths or 1)(x, timesteps=timesteps)
    assert out["spiking"].shape == (T, B, 3)
    assert out["branch"].shape == (B, 3)
    out["branch"].tanh().sum().backward()

    naive = Naive(network, gradient, lengths)
    twin, branch = x.detach().clone().requires_grad_(), naive.network.branch
    features = Naive.__call__(_only_features(naive), twin, timesteps)
    if gradient == "rate":
        share = torch.tensor(lengths, dtype=f64) / T
        features = (naive.rates * share.view(-1, 1, 1, 1, 1)).sum(0)
    else:
        features = features.mean(0)
    branch(features).tanh().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-8, atol=1e-12)
    for ours, expected in zip(network.body.parameters(), naive.network.body.parameters(), strict=True):
        assert (ours.grad - expected.grad).norm() <= 1e-8 * max(expected.grad.norm(), 1e-6)


def _only_features(naive):
    naive.network.forward = naive.network.body.forward
    return naive


@pytest.mark.parametrize("rule", RULES)
def test_runs_in_any_order_leave_nothing_behind(rule):
    """Never a reset: lengths, batch sizes, kinds of input, forgotten backward passes, no_grad and steps may alternate."""
    gradient, lengths = RULES[rule]
    # neither running statistics nor dropout, so that each run is a function of its input alone
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), LIF(threshold=0.3, decay="learned"), nn.Conv2d(3, 3, 3), LIF(threshold=0.2), head(12)
    ).to(f64)
    model = temporal(network, gradient=gradient, segments=lengths or 1)
    x, events = make_input("sequential", "static"), make_input("sequential", "events")

    def fresh(x, timesteps):
        twin = copy.deepcopy(network)
        return run(temporal(twin, gradient=gradient, segments=lengths or 1), twin, x, timesteps)[:2]

    before = set(vars(network[1])), network.state_dict().keys()
    for _ in range(2):
        for value, timesteps in ((x, T), (events, None), (x[:1], T), (events.flip(0), None)):
            model(value, timesteps=timesteps)  # its graph is dropped
            with torch.no_grad():
                model(value, timesteps=timesteps)
            model.eval().step(x)
            model.train()
            logits, gradients = run(model, network, value, timesteps)[:2]
            expected, expected_gradients = fresh(value, timesteps)
            assert torch.equal(logits, expected)
            for name, gradient_ in expected_gradients.items():
                assert torch.equal(gradients[name], gradient_)
    assert (set(vars(network[1])), network.state_dict().keys()) == before


@pytest.mark.parametrize("rule", RULES)
def test_two_graphs_may_be_alive_at_once_and_gradients_add_up(rule):
    gradient, lengths = RULES[rule]
    torch.manual_seed(0)
    network = nn.Sequential(*conv_bn(2, 3), LIF(), head(108)).to(f64).eval()
    model = temporal(network, gradient=gradient, segments=lengths or 1)
    x, y = make_input("sequential", "static"), make_input("sequential", "static", seed=2)

    def gradient_of(loss):
        return torch.autograd.grad(loss, list(network.parameters()))

    first, second = model(x, timesteps=T).square().sum(), model(y, timesteps=T).square().sum()
    together = gradient_of(first + second)
    apart = [gradient_of(model(value, timesteps=T).square().sum()) for value in (x, y)]
    for sum_, a, b in zip(together, *apart, strict=True):
        torch.testing.assert_close(sum_, a + b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sequential", "residual_sum", "learned_initial_membrane"])
def test_without_gradients_every_rule_gives_the_same_values(name):
    results = []
    for gradient, lengths in RULES.values():
        model = temporal(build(name), gradient=gradient, segments=lengths or 1)
        with torch.no_grad():
            results.append(model(make_input(name, "events").requires_grad_()))
        assert not results[-1].requires_grad
    assert all(torch.equal(result, results[0]) for result in results)


def test_parameters_are_shared_with_the_plain_network():
    network = build("learned_decay")
    model = temporal(network, gradient="rate")
    assert model.module is network
    assert {id(p) for p in model.parameters()} == {id(p) for p in network.parameters()}
