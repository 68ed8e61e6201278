"""What neurons learn, and all else, against a naive loop: every parameter, option and rule, on both sides of a fast path."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import Naive
from plain_lif import PRIMITIVES, cubic_bump
from temporal_runs import assert_same_gradients, f64, run
from torch import nn

from spikedistill import LIF, Learned, temporal
from spikedistill.neurons.loops import paths as sizes

NEURONS = {
    "decay": st.sampled_from([0.0, 0.5, 1.0, "learned", Learned(0.3, per="channel")]),
    "threshold": st.sampled_from([0.7, Learned(0.6, per="layer"), "learned"]),
    "v_reset": st.sampled_from([None, 0.0, -0.3]),
    "detach_reset": st.booleans(),
    "surrogate": st.sampled_from([*PRIMITIVES, cubic_bump]),
    "v_init": st.sampled_from([0.0, 0.2, "half", "learned"]),
}
SIZES = st.tuples(*[st.integers(1, 3)] * 4)


def network_of(options, size=(2, 3, 4, 4), seed=0, last=None):
    """Two blocks of convolution, batch-norm and neurons, and a linear layer; what is learned is off its start."""
    torch.manual_seed(seed)
    first, second, height, width = size
    network = nn.Sequential(
        nn.Conv2d(2, first, 3, padding=1), nn.BatchNorm2d(first), LIF(**options, channels=first),
        nn.Conv2d(first, second, 3, padding=1, bias=False), nn.BatchNorm2d(second), LIF(**(last or options), channels=second),
        nn.Flatten(), nn.Linear(second * height * width, 3),
    )  # fmt: skip
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | LIF):
                for parameter in module.parameters():
                    parameter += torch.rand(parameter.shape) * 0.4 - 0.1
    return network.to(f64)


def images(samples, size, timesteps=None, seed=1):
    """Static images `[B, 2, H, W]`, or with a number of timesteps events `[T, B, 2, H, W]`."""
    shape = (*([timesteps] if timesteps else []), samples, 2, *size[2:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=f64) * 1.5


def assert_as_naive(network, x, timesteps, gradient, tolerance=1e-8, decay=None, dtype=f64, **options):
    """Logits, and the gradients of every named parameter and the input; those of another dtype where the spikes are the same."""
    lengths = options.get("segments") if gradient == "rate" else None
    reference = Naive(network, gradient, lengths, decay)
    expected, of_reference, _ = run(reference, reference.network, x, timesteps)
    ours = copy.deepcopy(network).to(dtype)
    model = temporal(ours, gradient=gradient, **options)
    logits, gradients, _ = run(
        lambda x, timesteps: model(x.to(dtype), timesteps=timesteps).double(), ours, x, timesteps
    )
    torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)
    gradients = {name: grad if grad is None else grad.double() for name, grad in gradients.items()}
    if max(g.norm() for g in of_reference.values() if g is not None) > 1e-3:  # a network may be silent
        assert_same_gradients(gradients, of_reference, tolerance)


@settings(max_examples=60, deadline=None)
@given(
    options=st.fixed_dictionaries(NEURONS),
    size=SIZES,
    samples=st.integers(2, 3),
    gradient=st.sampled_from(["bptt", "sltt"]),
    timesteps=st.integers(1, 10),
    events=st.booleans(),
    seed=st.integers(0, 9),
)
def test_bptt_and_sltt_are_those_of_the_plain_loop(options, size, samples, gradient, timesteps, events, seed):
    network, x = network_of(options, size, seed), images(samples, size, timesteps if events else None)
    assert_as_naive(network, x, None if events else timesteps, gradient)


@settings(max_examples=60, deadline=None)
@given(
    options=st.fixed_dictionaries(NEURONS),
    size=SIZES,
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    chunk=st.sampled_from([{}, {"chunk": 1}, {"chunk": 3}, {"chunk": 2, "recompute": False}]),
    events=st.booleans(),
    seed=st.integers(0, 9),
)
def test_rate_is_the_response_of_the_plain_loop_to_a_lasting_change(options, size, lengths, chunk, events, seed):
    network, x = network_of(options, size, seed), images(2, size, sum(lengths) if events else None)
    assert_as_naive(network, x, None if events else sum(lengths), "rate", segments=tuple(lengths), **chunk)


@settings(max_examples=40, deadline=None)
@given(
    decay=st.sampled_from([0.3, 0.5, 1.0]),
    threshold=NEURONS["threshold"],
    size=SIZES,
    timesteps=st.integers(1, 10),
    events=st.booleans(),
    seed=st.integers(0, 9),
)
def test_dsr_is_the_slope_of_the_clamp(decay, threshold, size, timesteps, events, seed):
    network = network_of({"decay": decay, "threshold": threshold}, size, seed)
    x = images(2, size, timesteps if events else None)
    assert_as_naive(network, x, None if events else timesteps, "dsr", decay=decay)


@settings(max_examples=30, deadline=None)
@given(options=st.fixed_dictionaries(NEURONS), size=SIZES, timesteps=st.integers(1, 6), seed=st.integers(0, 9))
def test_a_stream_of_timesteps_has_the_gradients_of_the_plain_loop(options, size, timesteps, seed):
    network, x = network_of(options, size, seed).eval(), images(2, size, timesteps)
    reference, model = Naive(network), temporal(network)

    def stream(x, timesteps):
        state, logits = None, []
        for frame in x:
            out, state = model.step(frame, state)
            logits.append(out)
        return torch.stack(logits)

    expected, of_reference, _ = run(reference, reference.network, x, None)
    logits, gradients, _ = run(stream, network, x, None)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-8)
    if max(g.norm() for g in of_reference.values() if g is not None) > 1e-3:
        assert_same_gradients(gradients, of_reference, 1e-8)


# Kinds of neurons that have loops of their own, each surrogate of the library and each reset at least once.
KINDS = {
    "soft": {},
    "detached": {"detach_reset": True, "surrogate": "triangular", "v_init": 0.2, "decay": 1.0},
    "hard": {"v_reset": -0.3, "surrogate": "arctan", "v_init": "half", "threshold": 0.7},
    "hard, detached": {"v_reset": 0.0, "detach_reset": True, "surrogate": "rectangular", "decay": 0.0},
    "dspike": {"surrogate": "dspike", "decay": 0.8},
}
LEARNED = {"decay": "learned", "threshold": "learned", "v_init": "learned"}
RULES = [("bptt", {}), ("sltt", {}), ("rate", {"segments": (4,)})]


@pytest.mark.parametrize("smallest", [0, 10**9])
@pytest.mark.parametrize("kind", KINDS)
def test_fast_paths_and_the_eager_one_have_the_gradients_of_the_plain_loop(kind, smallest, monkeypatch):
    monkeypatch.setattr(sizes, "MIN_ELEMENTS", smallest)
    for last in (KINDS[kind], KINDS[kind] | LEARNED):
        for seed, (gradient, options) in enumerate(RULES):
            size = (3, 2, 4, 1 + seed)
            network = network_of(KINDS[kind], size, seed, last=last)
            for x, timesteps in ((images(2, size), 4), (images(2, size, 4), None)):
                assert_as_naive(network, x, timesteps, gradient, 1e-4, dtype=torch.float32, **options)


def test_so_has_what_torch_compiles(monkeypatch):
    monkeypatch.setattr(sizes, "MIN_ELEMENTS", 0)
    network, x = network_of({"surrogate": cubic_bump}, last=LEARNED), images(2, (2, 3, 4, 4), 4)
    assert_as_naive(network, x, None, "rate", 1e-4, dtype=torch.float32, segments=(2, 2), chunk=2)


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
@pytest.mark.parametrize("samples", [3, 4])
def test_a_learned_threshold_trains_alike_on_both_sides_of_the_size_of_the_fast_path(samples, gradient):
    """4 timesteps of 4 samples of 32 x 8 x 8 currents are the fewest that take it."""
    assert (4 * samples * 32 * 8 * 8 >= sizes.MIN_ELEMENTS) == (samples == 4)
    for first, last in (({}, {"threshold": "learned"}), ({"threshold": "learned"}, {})):
        network = network_of(first, (32, 2, 8, 8), last=last)
        assert_as_naive(network, images(samples, (32, 2, 8, 8)), 4, gradient, 1e-3, dtype=torch.float32)
