"""Spikes kept, convolutions computed twice: the same gradients for less memory."""

import gc

import pytest
import torch
from kept_memory import run_and_keep
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spikedistill import LIF, create_model, temporal
from spikedistill.neurons.loops import compiler, paths

T = 8
needs_compiler = pytest.mark.skipif(not compiler.compiler_works(), reason="torch.compile needs a C++ compiler")
PATHS = [pytest.param(2**60, id="eager"), pytest.param(1, id="compiled", marks=needs_compiler)]


def outcome(
    name, checkpoint, gradient="bptt", dtype=torch.float64, precision=None, memory_format=torch.contiguous_format
):
    """Logits, gradients and running statistics of a small network after one step."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, image_size=16, width=0.125, gradient=gradient, checkpoint=checkpoint)
    network = network.to(dtype=dtype, memory_format=memory_format)
    x = torch.rand(2, 3, 16, 16, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = network(x, timesteps=3)
    logits.float().tanh().square().sum().backward()
    return [logits.detach(), *(p.grad for p in network.parameters()), *network.buffers()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("smallest", PATHS)
@pytest.mark.parametrize("gradient", ["bptt", "sltt"])
@pytest.mark.parametrize("name", ["resnet18", "sew_resnet18", "vgg9", "ms_resnet18"])
def test_gradients_are_those_without(name, gradient, smallest, monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
    expected, found = (outcome(name, checkpoint, gradient) for checkpoint in (False, True))
    assert expected[1].norm() > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_on_the_compiled_path_they_are_equal_to_the_bit(precision, memory_format, monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    options = {"dtype": torch.float32, "precision": precision, "memory_format": memory_format}
    expected, found = (outcome("resnet18", checkpoint, **options) for checkpoint in (False, True))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def plain(layers=3):
    """Convolutions of 8 channels on 8x8 pixels, each with batch-norm and neurons behind it, and a head."""
    parts = [m for _ in range(layers) for m in (nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), LIF())]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(8 * 64, 2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("smallest", PATHS)
def test_of_a_convolution_on_spikes_the_spikes_alone_are_kept(smallest, monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
    torch.manual_seed(0)
    model = temporal(plain(), checkpoint=True)

    def whole():
        gc.collect()
        found = (t for t in gc.get_objects() if type(t) is torch.Tensor and t.numel() == x.numel())
        return {t.untyped_storage().data_ptr() for t in found}

    x = torch.randn(T, 4, 8, 8, 8)
    before = whole()
    logits, kept = run_and_keep(model, x)
    assert whole() - before <= kept.keys(), "nothing else holds spikes or currents in full"
    neurons = x.numel()
    weights = sum(4 * p.numel() for p in model.parameters())
    # input and output of the first convolution in float32; spikes of three layers in bits, the last also as the head sees them
    assert sum(kept.values()) <= 2 * 4 * neurons + 3 * neurons / 8 + 4 * neurons + weights + 2**14
    logits.sum().backward()


def test_every_convolution_on_spikes_is_computed_once_more():
    torch.manual_seed(0)
    network, x = plain(), torch.randn(T, 4, 8, 8, 8)
    flops = {}
    for checkpoint in (False, True):
        with FlopCounterMode(display=False) as counter:
            temporal(network, checkpoint=checkpoint)(x).sum().backward()
        flops[checkpoint] = counter.get_total_flops()
    one = 2 * (T * 4 * 64) * 8 * (8 * 9)  # multiply-accumulates of one layer, twice
    assert flops[True] - flops[False] == 2 * one


def test_nothing_changes_in_evaluation():
    network = create_model("convnet", num_classes=3, in_channels=1, image_size=8, checkpoint=True).eval()
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        state, steps = None, []
        for _ in range(3):
            logits, state = network.step(x, state)
            steps.append(logits)
        torch.testing.assert_close(torch.stack(steps), network(x, timesteps=3))


def test_under_rate_it_is_refused():
    with pytest.raises(ValueError, match="checkpoint=True only means something under gradient='bptt'"):
        temporal(nn.Linear(2, 2), gradient="rate", checkpoint=True)


def test_backward_within_autocast_computes_again_what_was_computed_without(monkeypatch):
    monkeypatch.setattr(paths, "MIN_ELEMENTS", 1)
    torch.manual_seed(0)
    x, gradients = torch.randn(4, 2, 2, 8, 8), []
    layers = nn.Conv2d(2, 4, 3), LIF(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), LIF()
    model = temporal(nn.Sequential(*layers), checkpoint=True)
    for within in (False, True):
        model.zero_grad()
        spikes = model(x)
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            spikes.sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for ours, expected in zip(*gradients, strict=True):
        assert torch.equal(ours, expected)
