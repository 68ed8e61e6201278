"""Options of neurons as tensors: gradients of the plain loop whatever their shape, and shapes that are refused."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_lif import PRIMITIVES, plain_lif

from spikedistill import lif, lif_step
from spikedistill.errors import UserError
from spikedistill.neurons import Neuron, lif_response, lif_response_in_chunks

f64 = torch.float64
RANGES = {"decay": (0.1, 0.9), "threshold": (0.4, 1.2), "v_init": (-0.3, 0.4)}


@st.composite
def cases(draw):
    """Sizes of a timestep's currents, and of an option that broadcasts over them: scalars, [1], [C, 1, 1] and all between."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    shapes = {}
    for name in draw(st.sets(st.sampled_from(list(RANGES)), min_size=1)):
        kept = sizes[draw(st.integers(0, len(sizes))) :]
        shapes[name] = [size if draw(st.booleans()) else 1 for size in kept]
    return sizes, shapes


def drawn(name, shape, dtype=f64):
    low, high = RANGES[name]
    generator = torch.Generator().manual_seed(len(name))
    return (low + (high - low) * torch.rand(shape, generator=generator, dtype=f64)).to(dtype).requires_grad_()


def by_steps(x, **options):
    """`lif`, one timestep at a time."""
    spikes, state = [], None
    for current in x:
        fired, state = lif_step(current, state, **options)
        spikes.append(fired)
    return torch.stack(spikes)


@settings(max_examples=80, deadline=None)
@given(
    case=cases(),
    T=st.integers(1, 10),
    v_reset=st.sampled_from([None, 0.0, -0.3]),
    detach_reset=st.booleans(),
    surrogate=st.sampled_from(list(PRIMITIVES)),
    cut=st.booleans(),
)
def test_every_shape_that_broadcasts_has_the_gradient_of_the_plain_loop(case, T, v_reset, detach_reset, surrogate, cut):
    sizes, shapes = case
    current = torch.randn(T, *sizes, generator=torch.Generator().manual_seed(T), dtype=f64).add(0.4).requires_grad_()
    tensors = {name: drawn(name, shape) for name, shape in shapes.items()}
    reset = {"v_reset": v_reset, "detach_reset": detach_reset}
    weights = torch.linspace(-1, 2, current.numel(), dtype=f64).sin().view(current.shape)

    def found(spikes):
        return torch.autograd.grad((spikes * weights).sum(), (current, *tensors.values()), allow_unused=True)

    plain = plain_lif(current, primitive=PRIMITIVES[surrogate], cuts=range(1, T) if cut else (), **tensors, **reset)
    expected = found(plain)
    ours = [lif(current, detach_membrane=cut, surrogate=surrogate, **tensors, **reset)]
    ours += [] if cut else [by_steps(current, surrogate=surrogate, **tensors, **reset)]
    for spikes in ours:
        assert torch.equal(spikes, plain)
        for mine, naive in zip(found(spikes), expected, strict=True):
            assert (mine is None) == (naive is None)
            assert mine is None or (mine - naive).norm() <= 1e-10 * max(naive.norm(), 1.0)


@pytest.mark.parametrize("shape", [[], [1], [3, 1, 1], [2, 3, 4, 4]])
@pytest.mark.parametrize("name", RANGES)
def test_options_in_another_precision_change_neither_that_of_the_membrane_nor_the_spikes(name, shape):
    current = torch.randn(5, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    double, single = drawn(name, shape), drawn(name, shape, torch.float32)
    spikes, membrane = lif_step(current[0], None, **{name: double})
    assert membrane.dtype == spikes.dtype == torch.float32
    assert torch.equal(lif(current, **{name: double}), lif(current, **{name: single}))
    lif(current, **{name: double}).sum().backward()
    assert double.grad.dtype == f64


@pytest.mark.parametrize(
    ("shape", "said"),
    [([5], "[5]"), ([3], "[3]"), ([6, 1, 1, 1, 1], "[6, 1, 1, 1, 1]"), ([0], "[0]"), ([3, 1], "[3, 1]")],
)
@pytest.mark.parametrize("name", RANGES)
def test_a_shape_that_does_not_broadcast_over_a_timestep_is_refused(name, shape, said):
    current, tensor = torch.zeros(6, 2, 3, 4, 4), torch.full(shape, 0.5)
    neuron = Neuron(**{name: tensor})
    message = (
        f"{name} is {said}, the currents of a timestep are [2, 3, 4, 4]: expected a shape that broadcasts over them"
    )
    calls = [
        lambda: lif(current, neuron),
        lambda: lif_step(current[0], None, neuron),
        lambda: lif_step(current[0], torch.zeros(2, 3, 4, 4), neuron),
        lambda: lif_response(current, (6,), neuron),
        lambda: lif_response_in_chunks(lambda start, stop: current[start:stop], (6,), 2, neuron),
    ]
    for call in calls:
        with pytest.raises(UserError, match=re.escape(message)):
            call()
