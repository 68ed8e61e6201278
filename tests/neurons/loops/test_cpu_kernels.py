"""The loops in C++: neurons of many strips and threads, and how they are compiled, kept and found again."""

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikedistill import LIF, temporal
from spikedistill.native import code_cache
from spikedistill.neurons import Neuron, NormalisedCurrent, lif, lif_in_bits, lif_response, norm_lif
from spikedistill.neurons.loops import on_cpu, paths
from spikedistill.neurons.loops.memory_format import as_stored
from spikedistill.through_time.batch_norm import BatchNormCall, batch_statistics, running_statistics

pytestmark = pytest.mark.skipif(paths._cpu_kernels() is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def _for_tensors_of_any_size(monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 0)


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def sequences(T, dtype):
    """`[T, B, C, H, W]` of up to ten strips of 256 neurons, in both orders of memory."""
    shape = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 6), st.integers(1, 5))

    def make(sizes, seed, channels_last):
        torch.manual_seed(seed)
        current = (1.5 * torch.randn(T, *sizes)).to(dtype)
        return current.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) if channels_last else current

    return st.builds(make, shape, st.integers(0, 99), st.booleans())


def run(current, fast, **options):
    leaf = current.clone(memory_format=torch.preserve_format).requires_grad_()
    if fast:
        spikes = lif(leaf, **options)
    else:
        with paths.uncompiled():
            spikes = lif(leaf, **options)
    weights = torch.randn(current.shape, generator=torch.Generator().manual_seed(1)).to(current.dtype)
    return spikes.detach(), torch.autograd.grad(spikes, leaf, weights)[0]


@pytest.mark.parametrize("T", [1, 4, 11])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(deadline=None, max_examples=25)
@given(
    data=st.data(),
    decay=st.floats(0, 1),
    threshold=st.floats(0.1, 2),
    v_init=st.floats(-1, 1),
    detach_membrane=st.booleans(),
)
def test_spikes_are_those_of_pytorch_bit_for_bit(data, decay, threshold, v_init, detach_membrane, T, dtype):
    current = data.draw(sequences(T, dtype))
    options = {"decay": decay, "threshold": threshold, "v_init": v_init, "detach_membrane": detach_membrane}
    (spikes, grad), (expected, exact) = (run(current, fast, **options) for fast in (True, False))
    assert torch.equal(spikes, expected)
    # in bfloat16 the eager path rounds at each timestep what the loops add up in float32
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert (grad.float() - exact.float()).norm() <= tolerance * exact.float().norm()


@settings(deadline=None, max_examples=25)
@given(data=st.data(), decay=st.floats(0, 1), v_reset=st.floats(-0.5, 0.5))
def test_a_hard_reset(data, decay, v_reset):
    current = data.draw(sequences(4, torch.float32))
    (spikes, grad), (expected, exact) = (run(current, fast, decay=decay, v_reset=v_reset) for fast in (True, False))
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [(4,), (4, 4), (20,), (11, 11)])
def test_responses_of_many_strips(lengths, threads):
    """A segment is a number of blocks: of four timesteps, of five, and eleven of one."""
    torch.manual_seed(0)
    current = torch.randn(sum(lengths), 2, 7, 13, 11)
    ours = lif_response(current, lengths, Neuron(decay=0.8))
    with paths.uncompiled():
        expected = lif_response(current, lengths, Neuron(decay=0.8))
    assert torch.equal(ours.spikes, expected.spikes)
    torch.testing.assert_close(ours.to_current, expected.to_current, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.rates, torch.stack([part.mean(0) for part in ours.spikes.split(lengths)]))


@pytest.mark.parametrize("by_row", [True, False])
def test_sums_over_channels_of_many_strips(by_row, threads):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 7, 13, 11) * torch.rand(7, 1, 1) + 5 * torch.randn(7, 1, 1)
    if not by_row:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    mean, inv_std = on_cpu.statistics(as_stored(x, x), 7, by_row, 1e-5, None, None, 0.1)
    channels = x.double().transpose(0, 2).flatten(1)
    torch.testing.assert_close(mean.double(), channels.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(inv_std.double(), (channels.var(1, correction=0) + 1e-5).rsqrt(), rtol=1e-5, atol=0)


def test_what_is_no_number_does_not_fire_nor_does_what_follows_and_infinity_fires():
    current = torch.tensor([[float("nan"), float("inf"), 0.2], [2.0, 0.1, 2.0]])
    for dtype in (torch.float32, torch.bfloat16):
        spikes, _ = run(current.to(dtype), True, v_reset=0.0)
        assert spikes.tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("residual", [False, True])
def test_the_gradient_through_a_batch_norm_of_many_strips(residual, threads):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 7, 13, 11)
    weight, bias = torch.rand(7) + 0.5, torch.randn(7)
    more = (torch.rand_like(x) > 0.7).float() if residual else None
    to_spikes, outcomes = torch.randn_like(x), []
    for dtype in (torch.float32, torch.float64):
        leaves = [leaf.to(dtype).requires_grad_() for leaf in (x, weight, bias, more) if leaf is not None]
        mean, inv_std = batch_statistics(leaves[0].detach(), BatchNormCall(None, None, training=True))
        current = NormalisedCurrent(*leaves[:3], mean, inv_std, 1e-5, batch=True)
        with paths.uncompiled() if dtype == torch.float64 else nullcontext():
            spikes, _ = norm_lif(current.plus(leaves[3], None) if residual else current, Neuron())
            outcomes.append([spikes.detach(), *torch.autograd.grad(spikes, leaves, to_spikes.to(dtype))])
    assert torch.equal(outcomes[0][0].double(), outcomes[1][0])
    for ours, exact in zip(*outcomes, strict=True):
        assert (ours.double() - exact).norm() <= 1e-5 * exact.norm()


class Silent(torch.autograd.Function):
    """Takes no gradient back."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return None


def test_spikes_that_nobody_asks_for_have_no_gradient():
    current = torch.ones(2, 3, requires_grad=True)
    (Silent.apply(lif(current)).sum() + current.sum()).backward()
    assert torch.equal(current.grad, torch.ones(2, 3))


@dataclass
class Steep:
    """A surrogate without a hash."""

    slope: float

    def __call__(self, distance):
        return self.slope * torch.ones_like(distance)


def test_a_surrogate_that_is_a_dataclass():
    current = torch.zeros(1, 3, requires_grad=True)
    with paths.uncompiled():
        lif(current, surrogate=Steep(2.0)).sum().backward()
    assert torch.equal(current.grad, torch.full((1, 3), 2.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_whatever_new_tensors_are_by_default(dtype):
    x = torch.randn(2, 3, 4, 5, 5)
    expected = on_cpu.statistics(as_stored(x, x), 4, True, 1e-5, None, None, 0.1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = on_cpu.statistics(as_stored(x, x), 4, True, 1e-5, None, None, 0.1)
        spikes = lif(x)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert torch.equal(spikes, lif(x))


def batch_norm_of(channels, *, running_var=True, strided=False):
    running = torch.zeros(2, 4, 2 if strided else 1)[:, :channels, 0].unbind()
    return BatchNormCall(running[0], running[1] if running_var else None, training=True)


def test_a_batch_norm_of_other_channels_is_refused():
    x = torch.randn(2, 3, 4, 5, 5)
    for statistics in (batch_statistics, running_statistics):
        with pytest.raises(ValueError, match=r"a batch-norm of 3 channels got 4, in \[2, 3, 4, 5, 5\]"):
            statistics(x, batch_norm_of(3))


def test_running_statistics_with_gaps_in_memory():
    x = torch.randn(2, 3, 4, 5, 5)
    plain, strided = batch_norm_of(4), batch_norm_of(4, strided=True)
    batch_statistics(x, plain)
    batch_statistics(x, strided)
    torch.testing.assert_close(strided.running_mean, plain.running_mean)
    torch.testing.assert_close(strided.running_var, plain.running_var)


def test_a_state_of_another_precision():
    """It is taken in that of the membranes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), LIF(), nn.Flatten(), nn.Linear(64, 3)).eval()
    model, x = temporal(network), torch.randn(2, 2, 6, 6)
    _, state = model.step(x)
    expected, after = model.step(x, state)
    logits, precise = model.step(x, {key: part.double() for key, part in state.items()})
    assert torch.equal(logits, expected)
    torch.testing.assert_close([*precise.values()], [*after.values()], check_dtype=False)


def test_bits_of_timesteps_that_are_not_there():
    _, bits = lif_in_bits(torch.ones(4, 2, 3), Neuron())
    with pytest.raises(IndexError, match="there are 4 timesteps; asked for 0 to 8"):
        bits.read(0, 9, torch.float32)


SCRIPT = """
import torch
from spikedistill.neurons import lif
from spikedistill.neurons.loops import on_cpu, paths
x = torch.ones(2, 2**20, requires_grad=True)
lif(x).sum().backward()
print(paths._cpu_kernels() is on_cpu, x.grad.sum().item() > 0)
"""


def start_script(**environment):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run_script(**environment):
    process = start_script(**environment)
    output, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    return output.split()


def test_without_a_compiler_there_are_none():
    """Also where some have been compiled before: the next kind would be missing."""
    assert run_script(CXX="no-compiler") == ["False", "True"]


def test_they_are_compiled_once_and_compiled_again_where_they_are_damaged(tmp_path):
    """And a process that is killed while it compiles leaves nothing that the next one does not clear."""
    cache = tmp_path / "spikedistill"

    def start():
        assert run_script(XDG_CACHE_HOME=str(tmp_path)) == ["True", "True"]
        return {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}

    killed = start_script(XDG_CACHE_HOME=str(tmp_path))
    while not [*cache.glob(f"{code_cache.BUILDING}*/*")]:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert not [*cache.glob("*.so")]
    first = start()
    assert all(name.endswith(".so") for name in first)
    assert start() == first
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])  # loading it would end the process
    again = start()
    assert len(again) == len(first)
    assert not again.items() & first.items()
