"""Convolutions and linear layers on spikes against dense ones in float64, and against numbers worked by hand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapes import cases, rows_of

from spikedistill.neurons import Neuron, lif
from spikedistill.sparse import Geometry, KeptBlocks, LayerOnSpikes, Norm, SparseLayer, kernels, to_blocks
from spikedistill.sparse.rows import as_samples, channels_last

pytestmark = pytest.mark.skipif(not kernels.available(), reason="needs a C++ compiler")
often = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def layer_of(case, dtype=torch.float32):
    return SparseLayer(rows_of(case.spikes, dtype), case.geometry, dtype)


def close(found, expected, digits=5):
    """To so many digits of the largest value."""
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol=10**-digits * max(1.0, expected.abs().max().item())
    )


def test_a_spike_adds_the_weights_of_its_channel():
    """A linear layer [[1, 10], [2, 20]] with the bias [0.5, 0]: channel 0 fires at timesteps 0 and 1, channel 1 at 1 and 2."""
    spikes = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
    weight, bias = torch.tensor([[1.0, 10.0], [2.0, 20.0]]), torch.tensor([0.5, 0.0])
    geometry = Geometry.of((1, 2), (2, 2), (), (), (), 1)
    layer = SparseLayer(rows_of(spikes), geometry, torch.float32)
    assert layer.forward(to_blocks(weight, geometry), bias).tolist() == [[[1.5, 2.0]], [[11.5, 22.0]], [[10.5, 20.0]]]
    # dW[o, c] is the sum of dy[t, o] over the timesteps at which c fires
    grad = torch.tensor([[[1.0, 0.0]], [[10.0, 1.0]], [[100.0, 0.0]]])
    assert layer.weight_gradient(grad, weight).tolist() == [[11.0, 110.0], [1.0, 1.0]]


def test_rows_of_bits_by_hand():
    """Channel 65 of one neuron in 70, at timestep 1 of 2: bit 1 of the second word."""
    spikes = torch.zeros(2, 1, 70)
    spikes[1, 0, 65] = 1
    rows = rows_of(spikes)
    assert rows.rows.tolist() == [[[0, 0], [0, 2]]]
    assert (rows.number, rows.density) == (1, 1 / 140)


@often
@given(case=cases())
def test_outputs_and_gradients_of_weights(case):
    layer, expected = layer_of(case), case.dense()
    assert layer.shape == expected.shape[1:]
    close(layer.forward(to_blocks(case.weight, case.geometry), case.bias), expected)
    grad = torch.randn(expected.shape)
    (of_weight,) = torch.autograd.grad(
        F.conv2d(
            case.spikes.double().flatten(0, 1), weight := case.weight.double().requires_grad_(), None, *case.places
        ),
        weight,
        grad.double().flatten(0, 1),
    )
    close(layer.weight_gradient(grad, case.weight), of_weight)


@often
@given(case=cases())
def test_spikes_in_rows_are_those_that_were_put_in(case):
    rows, spikes = case.rows, case.spikes
    assert rows.number == spikes.sum()
    assert torch.equal(rows.value(), spikes)
    assert torch.equal(rows.packed().read(0, len(spikes), torch.float32), spikes)
    middle = len(spikes) // 2
    assert torch.equal(rows.read(middle, len(spikes), torch.bfloat16), spikes[middle:].bfloat16())
    size = [min(2, n) for n in spikes.shape[3:]]
    windows = Geometry.of(tuple(spikes.shape[1:]), (spikes.shape[2],) * 2 + tuple(size), (2, 1), (0, 0), (1, 1), 1)
    pooled = rows.max_pooled(windows)
    expected = F.max_pool2d(spikes.flatten(0, 1), size, (2, 1)).unflatten(0, spikes.shape[:2])
    assert torch.equal(pooled.value(), expected)
    assert pooled.number == expected.sum()


@often
@given(
    case=cases(groups=(1,)),
    residual=st.sampled_from(["none", "values", "spikes"]),
    hard=st.booleans(),
    normed=st.booleans(),
)
def test_neurons_in_the_same_pass_fire_as_they_do_after_it(case, residual, hard, normed):
    layer, blocks = layer_of(case), to_blocks(case.weight, case.geometry)
    outputs = case.geometry.outputs
    norm = (
        Norm(torch.randn(outputs), torch.rand(outputs), torch.rand(outputs), torch.randn(outputs), 1e-5)
        if normed
        else None
    )
    current = layer.forward(blocks, case.bias)
    if norm is not None:
        scale = (norm.var + norm.eps).rsqrt() * norm.weight
        shift = norm.bias - norm.mean * scale
        current = current * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        assert torch.equal(layer.forward(blocks, case.bias, norm), current)
    added = {"none": None, "values": torch.randn(current.shape), "spikes": (torch.rand(current.shape) < 0.3).float()}[
        residual
    ]
    waiting = LayerOnSpikes(layer, blocks, case.bias)
    waiting = waiting if norm is None else waiting.normalised(norm)
    if added is not None:
        if norm is None:
            return
        waiting, current = waiting.plus(rows_of(added) if residual == "spikes" else added), current + added
    neuron = Neuron(v_reset=0.25, v_init=0.5) if hard else Neuron(decay=0.75)
    expected = lif(current, neuron)
    found, _ = waiting.fire(neuron)
    assert torch.equal(found.value(), expected)
    assert found.number == expected.sum()
    # in two parts, with the membranes from one to the next
    membrane = None
    for t in range(len(expected)):
        one = layer_of(case._replace(spikes=case.spikes[t : t + 1]))
        part = LayerOnSpikes(one, blocks, case.bias)
        part = part if norm is None else part.normalised(norm)
        part = part if added is None else part.plus(added[t : t + 1])
        spikes, membrane = part.fire(neuron, membrane, keeps=True)
        assert torch.equal(spikes.value()[0], expected[t])


@settings(often, max_examples=30)
@given(case=cases())
def test_in_bfloat16_the_sums_are_float32_and_rounded_once(case):
    weight = case.weight.bfloat16().float()
    exact = layer_of(case).forward(to_blocks(weight, case.geometry), case.bias)
    found = layer_of(case, torch.bfloat16).forward(to_blocks(weight, case.geometry), case.bias)
    assert torch.equal(found, exact.bfloat16())
    grad = torch.randn(exact.shape).bfloat16()
    expected = layer_of(case).weight_gradient(grad.float(), weight)
    torch.testing.assert_close(layer_of(case, torch.bfloat16).weight_gradient(grad, weight), expected)


@settings(often, max_examples=20)
@given(case=cases())
def test_threads_change_nothing(case):
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        layer = layer_of(case)
        out = layer.forward(to_blocks(case.weight, case.geometry), case.bias)
        found.append((out, layer.weight_gradient(out, case.weight), layer.rows.number))
    torch.set_num_threads(1)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]


def test_neurons_on_currents_with_the_channels_last():
    """As `lif` fires, with currents that stay, a residual of spikes, and membranes from before."""
    x = torch.randn(1, 2, 70, 3, 5).to(memory_format=torch.channels_last_3d).contiguous()
    added = (torch.rand(4, 2, 70, 3, 5) < 0.3).float()
    neuron, membrane = Neuron(), torch.rand(2, 70, 3, 5)
    ones, zeros = torch.ones(70), torch.zeros(70)
    stored = channels_last(x)
    rows, number, _ = kernels.fire_rows(stored, 4, ones, zeros, rows_of(added).rows, 0.0, neuron)
    expected = lif(x + added, neuron)
    assert number == expected.sum()
    assert torch.equal(as_samples(kernels.unpack_rows(rows, 70, 0, 4, torch.float32), x.shape[1:]), expected)
    start = channels_last(membrane.unsqueeze(0))[0]
    rows, _, after = kernels.fire_rows(stored, 1, ones, zeros, None, start, neuron, keeps=True)
    u = 0.5 * membrane + x[0]
    assert torch.equal(as_samples(kernels.unpack_rows(rows, 70, 0, 1, torch.float32), x.shape[1:])[0], (u >= 1).float())
    assert torch.equal(as_samples(after.unsqueeze(0), x.shape[1:])[0], u - (u >= 1).float())


@often
@given(size=st.integers(1, 3000), place=st.integers(0, 2**30), bit=st.integers(0, 31))
def test_a_digest_sees_every_bit(size, place, bit):
    values = torch.arange(size, dtype=torch.int32) * 7919
    other = values.clone()
    other[place % size] ^= 1 << bit if bit < 31 else -(2**31)
    assert kernels.digest(values) == kernels.digest(values.clone()) != kernels.digest(other)
    if size > 1:
        swapped = values.flip(0)
        assert kernels.digest(swapped) != kernels.digest(values)


def test_kept_blocks_are_those_of_the_weights_as_they_are_now():
    kept, weight = KeptBlocks(), torch.nn.Parameter(torch.randn(20, 30, 3, 3))
    geometry = Geometry.of((1, 30, 8, 8), tuple(weight.shape), (1, 1), (1, 1), (1, 1), 1)
    first = kept.of(weight, torch.float32, geometry)
    assert kept.of(weight, torch.float32, geometry) is first
    assert kept.of(weight, torch.float32, geometry._replace(images=5, height=4, width=4)) is first
    weight.data[3, 4, 1, 2] += 1  # which PyTorch does not count
    second = kept.of(weight, torch.float32, geometry)
    assert second is not first
    assert torch.equal(second, to_blocks(weight, geometry))
    # at later timesteps of a sequence only what PyTorch counts
    with torch.no_grad():
        weight.add_(1)
    assert kept.of(weight, torch.float32, geometry, goes_on=True) is not second
    third = kept.of(weight, torch.float32, geometry, goes_on=True)
    weight.data.add_(1)
    assert kept.of(weight, torch.float32, geometry, goes_on=True) is third
    assert torch.equal(kept.of(weight, torch.float32, geometry), to_blocks(weight, geometry))
    rounded = kept.of(weight, torch.bfloat16, geometry)
    assert torch.equal(rounded, to_blocks(weight.detach().bfloat16().float(), geometry))
    del weight
    assert len(kept._kept) == 0
