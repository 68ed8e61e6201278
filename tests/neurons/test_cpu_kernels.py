"""The loops in C++: neurons of many strips and threads, and how they are compiled, kept and found again."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikedistill.neurons import compiler, lif, lif_response, on_cpu
from spikedistill.neurons.memory_format import as_stored

pytestmark = pytest.mark.skipif(compiler._cpu_kernels() is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def _for_tensors_of_any_size(monkeypatch):
    monkeypatch.setattr(compiler, "MIN_ELEMENTS", 0)


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
        with compiler.uncompiled():
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
    ours = lif_response(current, lengths, decay=0.8)
    with compiler.uncompiled():
        expected = lif_response(current, lengths, decay=0.8)
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


def test_what_is_no_number_stays_none():
    """As PyTorch has it: it does not fire, nor does what follows, and an infinite current does once."""
    current = torch.tensor([[float("nan"), float("inf"), 0.2], [2.0, 0.1, 2.0]])
    for dtype in (torch.float32, torch.bfloat16):
        spikes, _ = run(current.to(dtype), True, v_reset=0.0)
        assert torch.equal(spikes, run(current.to(dtype), False, v_reset=0.0)[0])


SCRIPT = """
import torch
from spikedistill.neurons import compiler, lif, on_cpu
x = torch.ones(2, 2**20, requires_grad=True)
lif(x).sum().backward()
print(compiler._cpu_kernels() is on_cpu, x.grad.sum().item() > 0)
"""


def test_they_are_compiled_once_and_compiled_again_where_they_are_damaged(tmp_path):
    def start(compiler="c++"):
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "CXX": compiler}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["True", "True"]
        return {file.name: file.stat().st_mtime_ns for file in (tmp_path / "spikedistill").iterdir()}

    first = start()
    assert start() == first
    for file in (tmp_path / "spikedistill").iterdir():
        file.write_bytes(b"not a library")
    again = start()
    assert again.keys() == first.keys()
    assert all(again[name] > first[name] for name in first)
