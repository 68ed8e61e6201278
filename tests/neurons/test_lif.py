"""LIF dynamics against a plain loop over timesteps, and numbers worked by hand."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_lif import PRIMITIVES, cubic_bump, cubic_bump_primitive, plain_lif
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spikedistill import lif, lif_step

f64 = torch.float64
SURROGATES = [*PRIMITIVES, "callable"]


def surrogate_pair(name):
    if name == "callable":
        return cubic_bump, cubic_bump_primitive
    return name, PRIMITIVES[name]


def currents(T=6, shape=(3, 4, 2), dtype=f64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(T, *shape, generator=generator, dtype=f64).mul(0.9).add(0.4).to(dtype)


def gradients(spikes, inputs):
    """Gradients of a fixed weighted sum of the spikes; the weights differ in every element and timestep."""
    weights = torch.linspace(-1, 2, spikes.numel(), dtype=spikes.dtype).sin().view(spikes.shape)
    return torch.autograd.grad((spikes * weights).sum(), inputs)


def assert_agrees(options, plain_options, *, dtype=f64, tolerance=1e-10, learned_decay=None, v_init=0.0):
    """Spikes exactly, gradients to `tolerance` of their norm."""
    results = []
    for function, extra in ((lif, options), (plain_lif, plain_options)):
        x = currents(dtype=dtype).requires_grad_()
        inputs, arguments = [x], dict(extra)
        if learned_decay is not None:
            arguments["decay"] = torch.tensor(learned_decay, dtype=dtype, requires_grad=True)
            inputs.append(arguments["decay"])
        if isinstance(v_init, torch.Tensor):
            arguments["v_init"] = v_init.clone().to(dtype).requires_grad_()
            inputs.append(arguments["v_init"])
        else:
            arguments["v_init"] = v_init
        spikes = function(x, **arguments)
        assert 0.05 < spikes.mean() < 0.95
        results.append((spikes.detach(), gradients(spikes, inputs)))
    (ours, our_gradients), (plain, plain_gradients) = results
    assert torch.equal(ours, plain)
    for a, b in zip(our_gradients, plain_gradients, strict=True):
        assert b.norm() > 1e-3
        assert (a - b).norm() <= tolerance * b.norm()


RESETS = [
    {"v_reset": v_reset, "detach_reset": detach}
    for v_reset, detach in itertools.product((None, 0.0, -0.3), (False, True))
]


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("reset", RESETS, ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, "learned"])
def test_agrees_with_the_plain_loop_in_float64(decay, reset, surrogate):
    ours, primitive = surrogate_pair(surrogate)
    learned = 0.6 if decay == "learned" else None
    common = reset if learned else {"decay": decay, **reset}
    assert_agrees({"surrogate": ours, **common}, {"primitive": primitive, **common}, learned_decay=learned)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("reset", RESETS, ids=str)
def test_agrees_with_the_plain_loop_in_float32(reset, surrogate):
    ours, primitive = surrogate_pair(surrogate)
    assert_agrees(
        {"surrogate": ours, **reset},
        {"primitive": primitive, **reset},
        dtype=torch.float32,
        tolerance=1e-5,
        learned_decay=0.7,
    )


@pytest.mark.parametrize("threshold", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("reset", RESETS, ids=str)
@pytest.mark.parametrize(
    "v_init",
    [0.0, 0.5, torch.tensor(0.2), torch.tensor([[0.1], [-0.4], [0.9], [0.0]]), torch.linspace(-1, 1, 24).view(3, 4, 2)],
)
def test_agrees_with_the_plain_loop_over_thresholds_and_initial_membranes(v_init, reset, threshold):
    options = {"threshold": threshold, **reset}
    assert_agrees(options, options, v_init=v_init)


@pytest.mark.parametrize("reset", RESETS, ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.5, "learned"])
def test_detach_membrane_is_the_plain_loop_with_the_membrane_detached(decay, reset):
    learned = 0.6 if decay == "learned" else None
    common = reset if learned else {"decay": decay, **reset}
    v_init = 0.3 if decay == 0 else torch.tensor(0.3)
    assert_agrees(
        {"detach_membrane": True, **common}, {"cuts": range(1, 6), **common}, learned_decay=learned, v_init=v_init
    )


@settings(max_examples=30, deadline=None)
@given(
    T=st.integers(1, 7),
    decay=st.floats(0, 1),
    threshold=st.floats(0.05, 3),
    v_reset=st.none() | st.floats(-1, 0.5),
    detach_reset=st.booleans(),
    v_init=st.floats(-1, 1),
    seed=st.integers(0, 100),
)
def test_agrees_with_the_plain_loop_whatever_the_options(T, seed, **options):
    x, y = currents(T, (5,), seed=seed).requires_grad_(), currents(T, (5,), seed=seed).requires_grad_()
    ours, plain = lif(x, **options), plain_lif(y, **options)
    assert torch.equal(ours, plain)
    (a,), (b,) = gradients(ours, x), gradients(plain, y)
    assert (a - b).norm() <= 1e-10 * b.norm()


def test_three_steps_of_a_soft_reset_neuron_by_hand():
    # decay 1/2, threshold 1, currents 0.75, 0.75, 0.5
    # u1 = 0.75           -> 0, v1 = 0.75
    # u2 = 0.375 + 0.75   -> 1, v2 = 1.125 - 1 = 0.125
    # u3 = 0.0625 + 0.5   -> 0
    x = torch.tensor([[0.75], [0.75], [0.5]], dtype=f64, requires_grad=True)
    spikes = lif(x, surrogate="triangular")
    assert spikes.flatten().tolist() == [0, 1, 0]
    # the third spike's gradient: g = 1 - |x|: g1 = 0.75, g2 = 0.875, g3 = 0.5625; dv/du = 1 - g
    # ds3/dI3 = 0.5625;  ds3/dI2 = 0.5625 * 0.5 * (1 - 0.875);  ds3/dI1 = the same * 0.5 * (1 - 0.75)
    spikes[2].backward()
    expected = [0.5625 * 0.5 * 0.125 * 0.5 * 0.25, 0.5625 * 0.5 * 0.125, 0.5625]
    assert x.grad.flatten().tolist() == pytest.approx(expected, abs=1e-15)


def test_three_steps_of_a_hard_reset_neuron_by_hand():
    # decay 1/2, threshold 1, reset to -0.5, currents 1.25, 1.0, 1.5
    # u1 = 1.25          -> 1, v1 = -0.5
    # u2 = -0.25 + 1.0   -> 0, v2 = 0.75
    # u3 = 0.375 + 1.5   -> 1
    x = torch.tensor([[1.25], [1.0], [1.5]], dtype=f64, requires_grad=True)
    spikes = lif(x, v_reset=-0.5, surrogate="triangular")
    assert spikes.flatten().tolist() == [1, 0, 1]
    # v = (1 - s) u + v_reset s, so dv/du = 1 - s + (v_reset - u) g
    # g1 = 0.75, dv1/du1 = 0 - 1.75 * 0.75 = -1.3125;  g2 = 0.75, dv2/du2 = 1 - 1.25 * 0.75 = 0.0625;  g3 = 0.125
    spikes[2].backward()
    expected = [0.125 * 0.5 * 0.0625 * 0.5 * -1.3125, 0.125 * 0.5 * 0.0625, 0.125]
    assert x.grad.flatten().tolist() == pytest.approx(expected, abs=1e-15)


def test_a_neuron_without_leak_counts():
    # IF: quarter currents reach the threshold every fourth step, exactly
    spikes = lif(torch.full((8, 1), 0.25), decay=1.0)
    assert spikes.flatten().tolist() == [0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, f64])
@pytest.mark.parametrize("threshold", [0.3, 1.0, 0.7])
def test_fires_at_the_threshold_and_not_one_rounding_below(dtype, threshold):
    at = torch.tensor(threshold, dtype=dtype)
    below, above = at.nextafter(at - 1), at.nextafter(at + 1)
    assert lif(torch.stack([below, at, above]).unsqueeze(0), threshold=threshold).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("options", [{}, {"v_reset": 0.0}, {"decay": 0.9, "detach_reset": True, "v_init": 0.4}])
def test_a_chain_of_steps_is_the_whole_sequence(options):
    x, y = currents().requires_grad_(), currents().requires_grad_()
    whole, state, steps = lif(x, **options), None, []
    for t in range(len(y)):
        spikes, state = lif_step(y[t], state, **options)
        steps.append(spikes)
    chained = torch.stack(steps)
    assert torch.equal(whole, chained)
    assert torch.equal(gradients(whole, x)[0], gradients(chained, y)[0])


def test_a_step_returns_the_membrane_after_reset():
    spikes, membrane = lif_step(torch.tensor([1.25, 0.5]), torch.tensor([0.5, -1.0]), decay=0.5)
    # u = 0.25 + 1.25 = 1.5 fires and keeps 0.5;  u = -0.5 + 0.5 = 0 does not
    assert spikes.tolist() == [1, 0]
    assert membrane.tolist() == [0.5, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_currents_keep_the_membrane_in_float32(dtype):
    x = currents(T=40, dtype=dtype).requires_grad_()
    exact = x.detach().float().requires_grad_()
    spikes, expected = lif(x, decay=0.99), lif(exact, decay=0.99)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), expected)
    # upstream gradients that half precision holds exactly
    upstream = torch.ones_like(spikes)
    (ours,), (plain,) = torch.autograd.grad(spikes, x, upstream), torch.autograd.grad(expected, exact, upstream.float())
    assert torch.equal(ours, plain.to(dtype))
    step, membrane = lif_step(x[0])
    assert step.dtype == dtype
    assert membrane.dtype == torch.float32
    # half precision would lose 1/512 of the threshold long before it is reached
    drip = torch.full((1000, 1), 1 / 512, dtype=dtype)
    assert lif(drip, decay=1.0).flatten().nonzero().flatten().tolist() == [511]


class ElementsWritten(TorchDispatchMode):
    """Counts the elements of all results that are not views."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not any(returned.alias_info for returned in func._schema.returns):
            self.total += sum(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        return out


def test_the_backward_pass_grows_linearly_with_time():
    """Indexing current[t] in a loop would write a gradient of the whole sequence at every timestep."""

    def backward_cost(T):
        total = lif(torch.randn(T, 50, requires_grad=True)).sum()
        with ElementsWritten() as written:
            total.backward()
        return written.total

    assert 7 < backward_cost(64) / backward_cost(8) < 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.5}, r"decay is 1.5, expected 0 \(no memory\) to 1 \(no leak\)"),
        ({"decay": -0.1}, "decay is -0.1, expected"),
        ({"decay": float("nan")}, "decay is nan, expected"),
        ({"threshold": 0.0}, "threshold is 0.0, expected a positive number"),
        ({"threshold": -1.0}, "threshold is -1.0, expected"),
        ({"threshold": float("inf")}, "threshold is inf, expected a positive number, finite in float32"),
        ({"threshold": 1e300}, "threshold is 1e\\+300, expected a positive number, finite in float32"),
        ({"threshold": 1e-300}, "threshold is 1e-300, expected"),  # 0 in float32
        ({"threshold": float("nan")}, "threshold is nan, expected"),
        ({"v_init": float("nan")}, "v_init is nan, expected a number that is finite in float32"),
        ({"v_init": -float("inf")}, "v_init is -inf, expected"),
        ({"v_reset": float("inf")}, "v_reset is inf, expected"),
        ({"v_reset": -1e39}, "v_reset is -1e\\+39, expected"),
        ({"surrogate": "box"}, "no surrogate is called 'box'"),
    ],
)
def test_options_out_of_range_are_refused_with_what_was_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        lif(torch.zeros(2, 3), **arguments)
    with pytest.raises(ValueError, match=message):
        lif_step(torch.zeros(3), **arguments)


@pytest.mark.parametrize("current", [torch.tensor(1.0), torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.int64)])
def test_currents_without_time_or_of_integers_are_refused(current):
    with pytest.raises(ValueError, match=r"lif takes floating-point currents \[T, B, ...\] with T >= 1; got"):
        lif(current)


def test_a_step_refuses_integers_and_the_state_of_other_neurons():
    with pytest.raises(ValueError, match="lif_step takes a floating-point current"):
        lif_step(torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"the state is \[1\], the current \[3\]: expected the same shape"):
        lif_step(torch.zeros(3), torch.zeros(1))


def test_the_eager_loop_keeps_the_order_in_memory():
    """Channels last stay last in spikes and in gradients, so that no layer has to copy them; the values are the same."""
    currents = torch.randn(3, 2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    last = currents.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    found = []
    for each in (currents, last):
        own = each.detach().requires_grad_()
        spikes = lif(own, threshold=torch.tensor(0.5))
        (gradient,) = torch.autograd.grad((spikes * currents).sum(), own)
        assert spikes.stride() == gradient.stride() == own.stride()
        found.append((spikes, gradient))
    assert found[0][0].any()
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)
