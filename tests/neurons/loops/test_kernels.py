"""The kernels against the dynamics in float64, on identical inputs.

Those in Triton run on a GPU, or interpreted where there is none; those in C++ on the CPU.
"""

import itertools
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spikedistill import LIF, temporal
from spikedistill.neurons import Neuron, NormalisedCurrent, PackedSpikes, lif, lif_in_bits, lif_response, norm_lif
from spikedistill.neurons.loops import paths
from spikedistill.neurons.surrogate import SURROGATES
from spikedistill.through_time.batch_norm import BatchNormCall, batch_statistics

FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.fixture(params=["Triton", "C++"])
def device(request, monkeypatch):
    if request.param == "C++":
        monkeypatch.setattr(paths, "MIN_ELEMENTS", 0)
        if paths._cpu_kernels() is None:
            pytest.skip("needs a C++ compiler")
        return "cpu"
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return "cpu"


def sequence(*shape, memory_format=torch.contiguous_format, device="cpu", dtype=torch.float32):
    """Normal numbers `[T, B, C, H, W]`, each timestep in that memory format."""
    folded = torch.randn(shape).flatten(0, 1).contiguous(memory_format=memory_format)
    return folded.unflatten(0, shape[:2]).to(device, dtype)


def reference(current, **options):
    """Spikes, and where rounding may have decided: once a membrane came within 4 units in the last place of the threshold."""
    with paths.uncompiled():
        spikes = lif(current, **options)
    decay, threshold, v_reset = options.get("decay", 0.5), options.get("threshold", 1.0), options.get("v_reset")
    membrane = torch.full_like(current[0], options.get("v_init", 0.0))
    doubtful, close = torch.zeros_like(current[0], dtype=torch.bool), []
    for current_t, fired in zip(current.detach(), spikes.detach(), strict=True):
        u = decay * membrane + current_t
        doubtful = doubtful | ((u - threshold).abs() < 4 * 2.0**-23 * (1 + current_t.abs()))
        close.append(doubtful)
        membrane = u - threshold * fired if v_reset is None else (1 - fired) * u + v_reset * fired
    return spikes, torch.stack(close)


def assert_same(ours, expected, doubtful, tolerance):
    """Where no rounding has decided about a spike."""
    error = (ours.double().cpu() - expected)[~doubtful.any(0).expand_as(expected)]
    assert error.norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("detach_membrane", [False, True])
@pytest.mark.parametrize(("v_reset", "detach_reset"), list(itertools.product((None, 0.2), (False, True))))
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_spikes_and_gradients_of_every_surrogate_and_reset(surrogate, v_reset, detach_reset, detach_membrane, device):
    torch.manual_seed(0)
    options = {"decay": 0.7, "threshold": 0.8, "v_init": 0.1, "surrogate": surrogate}
    options |= {"v_reset": v_reset, "detach_reset": detach_reset}
    current = sequence(3, 2, 3, 7, 7, device=device).requires_grad_()
    exact = current.detach().cpu().double().requires_grad_()
    grad = sequence(3, 2, 3, 7, 7)
    cut, neuron = {"detach_membrane": detach_membrane}, Neuron(**options)
    assert paths.kernels_for(current, neuron) is not None
    spikes, bits = lif_in_bits(current, neuron, **cut)
    expected, doubtful = reference(exact, **options, **cut)
    assert torch.equal(spikes.cpu().double()[~doubtful], expected[~doubtful])
    assert 0.1 < expected.mean() < 0.9
    assert torch.equal(bits.read(1, 3, torch.float32), spikes[1:3])
    (ours,) = torch.autograd.grad(spikes, current, grad.to(device))
    (theirs,) = torch.autograd.grad(expected, exact, grad.double())
    assert_same(ours, theirs, doubtful, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("T", [1, 8, 17])
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("residual_in_bits", [None, False, True])
def test_batch_norm_and_its_gradients(residual_in_bits, memory_format, T, dtype, device):
    """Seventeen timesteps are three blocks; the gradient through the batch-norm is one kernel up to eight timesteps."""
    torch.manual_seed(T)
    shape = (T, 3, 5, 6, 4)
    x = sequence(*shape, memory_format=memory_format, device=device, dtype=dtype)
    weight, bias = torch.rand(5, device=device) + 0.5, torch.randn(5, device=device)
    residual = None if residual_in_bits is None else (sequence(*shape) > 0.8).to(device, dtype)
    grad = sequence(*shape, memory_format=memory_format).to(device, dtype)
    leaves = [leaf.requires_grad_() for leaf in (x, weight, bias, residual) if leaf is not None]
    exact = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]

    mean, inv_std = batch_statistics(x, BatchNormCall(None, None, training=True))
    current = NormalisedCurrent(x, weight, bias, mean, inv_std, 1e-5, batch=True)
    if residual is not None:
        ones = torch.ones_like(residual[0])
        packed = PackedSpikes.silent(T, ones)
        packed.write(0, residual.detach().unbind(0))
        current = current.plus(residual, packed if residual_in_bits else None)
    spikes, bits = norm_lif(current, Neuron(decay=0.6))
    ours = torch.autograd.grad(spikes, leaves, grad)

    normalised = F.batch_norm(exact[0].flatten(0, 1), None, None, exact[1], exact[2], True).unflatten(0, shape[:2])
    currents = normalised if residual is None else normalised + exact[3]
    expected, doubtful = reference(currents, decay=0.6)
    assert torch.equal(spikes.cpu().double()[~doubtful], expected[~doubtful])
    assert torch.equal(bits.read(0, T, dtype), spikes)
    assert not doubtful.any(), "else the sums over a channel could not be compared"
    theirs = torch.autograd.grad(expected, exact, grad.cpu().double())
    for found, wanted in zip(ours, theirs, strict=True):
        error = (found.cpu().double() - wanted).norm() / wanted.norm()
        assert error <= (1e-5 if dtype == torch.float32 else 2e-2)


def cut(x):
    return x[:, :3]


def every_other(x):
    return x[::2]


def repeated(x):
    return x[:1].expand(4, *x.shape[1:])


@pytest.mark.parametrize("view", [cut, every_other, repeated], ids=lambda view: view.__name__)
@pytest.mark.parametrize("shape", [(8, 5, 6), (8, 7)])
def test_currents_and_gradients_with_gaps_and_repetitions_in_memory(shape, view, device):
    """Of a layer without positions; the gradient of a sum is one number, repeated."""
    torch.manual_seed(0)
    whole = torch.randn(shape, device=device, requires_grad=True)
    exact = whole.detach().cpu().double().requires_grad_()
    spikes = lif(view(whole))
    with paths.uncompiled():
        expected = lif(view(exact))
    assert torch.equal(spikes.cpu().double(), expected)
    spikes.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(whole.grad.cpu().double(), exact.grad, rtol=1e-4, atol=1e-5)
    T = len(view(exact))
    ours = lif_response(view(whole.detach()), (T,), Neuron())
    with paths.uncompiled():
        theirs = lif_response(view(exact.detach()), (T,), Neuron())
    assert torch.equal(ours.spikes.cpu().double(), theirs.spikes)
    torch.testing.assert_close(ours.to_current.cpu().double(), theirs.to_current, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="interpreted, it would take hours")
@pytest.mark.parametrize("shape", [(1, 1, 2**26), (1, 1, 2, 2**12, 2**13)])
def test_layers_of_many_neurons(shape):
    """More tiles than a grid has along its second dimension, in one row and in two."""
    current = torch.randn(shape, device="cuda").requires_grad_()
    assert paths.kernels_for(current, Neuron()) is not None
    spikes, bits = lif_in_bits(current, Neuron())
    assert torch.equal(spikes, (current >= 1).float())
    assert torch.equal(bits.read(0, 1, torch.float32), spikes)
    (grad,) = torch.autograd.grad(spikes.sum(), current)
    torch.testing.assert_close(grad, SURROGATES["sigmoid"](current.detach() - 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate"])
@pytest.mark.parametrize("timesteps", [4, 9, 70])
def test_linear_layers_on_a_still_input(timesteps, gradient, device):
    """Shorter and longer than a block, and than what the kernel of rates is written out for."""
    outcomes = []
    for kernels in (True, False):
        torch.manual_seed(0)
        model = temporal(nn.Sequential(nn.Linear(5, 6), LIF(), nn.Linear(6, 3)), gradient=gradient).to(device)
        x = (3 * torch.randn(4, 5)).to(device).requires_grad_()
        with nullcontext() if kernels else paths.uncompiled():
            logits = model(x, timesteps=timesteps)
            logits.sum().backward()
        outcomes.append([logits.detach(), x.grad, *(p.grad for p in model.parameters())])
    assert outcomes[0][1].norm() > 0
    for ours, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_what_watches_operations_sees_them(device):
    """Under a counter there are no kernels, also where the forward pass has had some."""
    current = sequence(1, 2, 3, 5, 5, device=device).requires_grad_()
    spikes, _ = lif_in_bits(current, Neuron(), timesteps=3)
    (ours,) = torch.autograd.grad(spikes.sum(), current, retain_graph=True)
    with FlopCounterMode(display=False):
        (watched,) = torch.autograd.grad(spikes.sum(), current)
    torch.testing.assert_close(watched, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_statistics_of_channels_far_from_zero(memory_format, device):
    """A mean of a thousand standard deviations, a channel that is constant, and running statistics that follow."""
    torch.manual_seed(0)
    x = sequence(3, 4, 5, 6, 7, memory_format=memory_format) * torch.tensor([1.0, 1e-3, 0.0, 5.0, 1.0]).view(5, 1, 1)
    x = x + torch.tensor([1000.0, 1.0, 3.0, 0.0, -50.0]).view(5, 1, 1)
    running = torch.zeros(5, device=device), torch.ones(5, device=device)
    mean, inv_std = batch_statistics(x.to(device), BatchNormCall(*running, training=True))
    channels = x.double().transpose(0, 2).flatten(1)
    var = channels.var(1, correction=0)
    torch.testing.assert_close(mean.cpu().double(), channels.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(inv_std.cpu().double(), (var + 1e-5).rsqrt(), rtol=1e-3, atol=0)
    torch.testing.assert_close(running[0].cpu().double(), 0.1 * channels.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(running[1].cpu().double(), 0.9 + 0.1 * channels.var(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"v_reset": 0.1, "surrogate": "arctan"}, {"detach_reset": True, "decay": 0.9}])
@pytest.mark.parametrize("lengths", [(6,), (3, 3), (2, 2, 2)])
def test_the_rates_answer_to_their_currents(lengths, options, device):
    torch.manual_seed(0)
    current = sequence(6, 2, 3, 5, 5, device=device)
    ours = lif_response(current, lengths, Neuron(**options))
    with paths.uncompiled():
        theirs = lif_response(current.cpu().double(), lengths, Neuron(**options))
    _, doubtful = reference(current.cpu().double(), **options)
    assert torch.equal(ours.spikes.cpu().double()[~doubtful], theirs.spikes[~doubtful])
    assert_same(ours.to_current, theirs.to_current, doubtful, 1e-5)


@pytest.mark.parametrize("rule", [{"gradient": "bptt"}, {"gradient": "sltt"}, {"gradient": "rate", "segments": 2}])
def test_a_network_trains_as_without_them(rule, device):
    """Convolutions that keep spikes in bits, a residual, a linear layer; by the kernels and by the eager path."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 16, 3)
            self.norms, self.lif = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2)), LIF(threshold=0.5)

        def forward(self, x):
            x = self.lif(self.norms[0](self.first(x)))
            x = self.lif(x + self.norms[1](self.second(x)))
            return self.head(self.lif(x.flatten(1)))

    outcomes, used = [], 0
    for kernels in (True, False):
        torch.manual_seed(0)
        model = temporal(Small(), **rule).to(device)
        x = torch.randn(3, 2, 6, 6, device=device, requires_grad=True)
        with nullcontext() if kernels else paths.uncompiled():
            logits = model(x, timesteps=4)
            logits.tanh().square().sum().backward()
            used += paths.kernels_for(x) is not None
        outcomes.append([logits.detach(), x.grad, *(p.grad for p in model.parameters()), *model.buffers()])
    assert used == 1
    for ours, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_without_triton_one_line_says_so():
    program = """
import sys
sys.modules["triton"] = None
import torch
from spikedistill import lif
for _ in range(2):
    print(lif(torch.ones(2, 1), decay=0.5).flatten().tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.stdout.split("\n")[:2] == ["[1.0, 1.0]"] * 2
    assert done.stderr.count("Triton does not work here") == 1
