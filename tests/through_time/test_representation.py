"""Gradients of the spike representation (DSR): numbers by hand, what it rests on, the naive reference, and who is refused."""

import pytest
import torch
from naive import Naive
from temporal_runs import T, assert_same_gradients, build, cases, f64, make_input, naive_network, run
from torch import nn
from zoo import PATTERNS, block, head

from spikedistill import LIF, create_model, mean_rate, temporal
from spikedistill.neurons import lif

DECAY = 0.5
WEIGHTS = torch.tensor([DECAY**3, DECAY**2, DECAY, 1.0], dtype=f64)
WEIGHTS /= WEIGHTS.sum()


@pytest.mark.parametrize(
    ("currents", "spikes", "slope"),
    [
        ([0.6, 0.9], [0, 1], 1 / 1.0),  # a mean of 0.6 / 3 + 1.8 / 3 = 0.8
        ([0.0, 1.2], [0, 1], 1 / 1.0),  # 0.8 too
        ([2.0, 2.0], [1, 1], 0.0),  # above the threshold
        ([0.9, -0.6], [0, 0], 0.0),  # 0.9 / 3 - 1.2 / 3, below zero
    ],
)
def test_by_hand_with_weights_of_one_and_two_thirds(currents, spikes, slope):
    x = torch.tensor(currents, dtype=f64).view(2, 1, 1).requires_grad_()
    neuron = LIF(decay=0.5, threshold="learned").to(f64)
    out = temporal(nn.Sequential(neuron), gradient="dsr")(x)
    assert out.flatten().tolist() == spikes
    (3 * out[0] + 5 * out[1]).sum().backward()
    # both timesteps stand for the one mean, whose share of the first current is a third
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([8 * slope / 3, 16 * slope / 3], dtype=f64))
    # the rate is the mean over the threshold, which is 1 and moves as its logarithm does
    mean = currents[0] / 3 + 2 * currents[1] / 3
    assert neuron.log_threshold.grad.item() == pytest.approx(-8 * mean * slope)


def test_the_slope_is_of_a_rate_over_a_current_that_reaches_the_threshold():
    x = torch.full((4, 1, 1), 0.3, dtype=f64, requires_grad=True)
    temporal(nn.Sequential(LIF(threshold=0.5)), gradient="dsr")(x).sum().backward()
    torch.testing.assert_close(x.grad.flatten(), 4 / 0.5 * WEIGHTS)


def test_a_learned_threshold_has_the_gradient_of_the_paper_whose_spikes_are_as_high_as_it():
    currents = torch.tensor([0.125, 0.25, 0.375, 0.75, -0.25], dtype=f64)
    log_threshold = torch.tensor(0.5, dtype=f64).log().requires_grad_()
    ours, papers = (currents.clone().requires_grad_() for _ in range(2))
    neuron = LIF(decay=1.0, threshold="learned").to(f64)
    neuron.log_threshold.data.copy_(log_threshold.detach())
    rates = temporal(nn.Sequential(neuron), gradient="dsr")(ours.unsqueeze(0), timesteps=4).mean(0)
    heights = neuron.log_threshold.exp() * rates  # the weights behind the neurons hold the threshold
    clamped = torch.minimum(papers.clamp(min=0), log_threshold.exp())  # min(θ, max(0, I)), as in the paper
    torch.testing.assert_close(heights.flatten(), clamped, rtol=0, atol=1e-12)
    weights = torch.tensor([3.0, -1.0, 2.0, 5.0, 1.0], dtype=f64)
    (heights.flatten() @ weights).backward()
    (clamped @ weights).backward()
    assert papers.grad.tolist() == [3.0, -1.0, 2.0, 0.0, 0.0]
    torch.testing.assert_close(ours.grad, papers.grad)
    torch.testing.assert_close(neuron.log_threshold.grad, log_threshold.grad)
    assert log_threshold.grad.item() == pytest.approx(5.0 * 0.5)


@pytest.mark.parametrize("decay", [0.5, 0.9, 1.0])
def test_a_mean_rate_is_the_clamped_mean_current_but_for_what_the_membrane_holds(decay):
    currents = torch.rand(40, 300, dtype=f64) * 0.5
    weights = torch.tensor([decay ** (39 - t) for t in range(40)], dtype=f64)
    spikes = lif(currents, decay=decay, threshold=0.6)
    gap = (weights @ currents / 0.6 - weights @ spikes) / weights.sum()
    assert gap.min() > -1e-12
    assert gap.max() <= 1 / weights.sum() + 1e-12, "less than a spike of the last timestep"


def learns(name):
    """Whether neurons of the pattern learn a decay or a membrane, which no representation has."""
    neurons = [neuron for neuron in build(name).modules() if isinstance(neuron, LIF)]
    return any(neuron.decay_logit is not None or isinstance(neuron.v_init, nn.Parameter) for neuron in neurons)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("name", "rule", "kind"), cases([name for name in PATTERNS if not learns(name)], ["rate"]))
def test_matches_the_naive_reference(name, rule, kind):
    network = build(name)
    for neuron in network.modules():
        if isinstance(neuron, LIF):
            neuron.decay, neuron.v_reset, neuron.v_init = DECAY, None, 0.0
    x, timesteps = make_input(name, kind), T if kind == "static" else None
    reference = Naive(naive_network(name, network), "dsr", decay=DECAY)
    logits, gradients, buffers = run(temporal(network, gradient="dsr"), network, x, timesteps)
    expected, expected_gradients, expected_buffers = run(reference, reference.network, x, timesteps)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    assert_same_gradients(gradients, expected_gradients, 1e-8)
    for key, value in expected_buffers.items():
        torch.testing.assert_close(buffers[key], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["static", "events"])
def test_what_leaves_the_flow_of_time_is_the_plain_mean_with_the_gradient_of_the_weighted_one(kind):
    torch.manual_seed(0)
    body = block(2, 3).to(f64)
    x = make_input("sequential", kind).requires_grad_()
    timesteps = T if kind == "static" else None

    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body

        def forward(self, x):
            features = self.body(x)
            return features, mean_rate(features)

    spikes, mean = temporal(Means(), gradient="dsr")(x, timesteps=timesteps)
    torch.testing.assert_close(mean, spikes.mean(0), rtol=0, atol=1e-12)
    direction = torch.randn(mean.shape, dtype=f64)
    (of_mean,) = torch.autograd.grad((mean * direction).sum(), x, retain_graph=True)
    (of_last,) = torch.autograd.grad((spikes[-1] * direction).sum(), x)
    torch.testing.assert_close(of_mean, of_last)  # every timestep stands for the same mean
    assert of_mean.abs().max() > 0


def test_the_surrogate_takes_no_part():
    x, gradients = torch.rand(3, 1, 8, 8), []
    for surrogate in ("sigmoid", "rectangular"):
        torch.manual_seed(0)
        model = create_model("convnet", num_classes=4, in_channels=1, image_size=8, gradient="dsr", surrogate=surrogate)
        model(x, timesteps=4).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"v_reset": 0.0}, "hard to 0.0"),
        ({"decay": "learned"}, "decay=learned"),
        ({"v_init": "half"}, "v_init=half"),
        ({"v_init": "learned", "channels": 3}, "v_init=learned"),
        ({"v_init": "half", "threshold": "learned"}, "v_init=half"),
    ],
)
def test_neurons_that_the_representation_says_nothing_of_are_refused(changes, said):
    network = nn.Sequential(nn.Conv2d(2, 3, 3), LIF(), nn.Conv2d(3, 3, 3), LIF(**changes), head(12))
    with pytest.raises(ValueError, match=f"gradient='dsr' needs neurons with soft reset.*{said}.* as '3': use"):
        temporal(network, gradient="dsr")


def test_decays_that_differ_are_refused():
    network = nn.Sequential(LIF(decay=0.5), nn.Linear(2, 2), LIF(decay=0.9))
    with pytest.raises(ValueError, match=r"one decay that is not learned; got LIF\(decay=0.9.* as '2'"):
        temporal(network, gradient="dsr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": 2}, "segments=2 only means something under gradient='rate'"),
        ({"chunk": 1}, "chunk=1 only means something under gradient='rate'; this is gradient='dsr'"),
        (
            {"checkpoint": True},
            "checkpoint=True only means something under gradient='bptt' or gradient='sltt'",
        ),
    ],
)
def test_options_of_other_rules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        temporal(nn.Sequential(LIF()), gradient="dsr", **options)
