"""No convolution is evaluated twice: calls and multiply-accumulates, counted where torch dispatches them."""

import pytest
import torch
from temporal_runs import Convolutions
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from zoo import block, conv_bn

from spikedistill import LIF, create_model, temporal

T, B = 4, 2


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = block(2, 3)
        self.body = nn.Sequential(block(3, 4, stride=2), conv_bn(4, 4))
        self.shortcut, self.out = conv_bn(3, 4, 1, stride=2), LIF()
        self.up, self.head = nn.ConvTranspose2d(4, 2, 2, 2), nn.Linear(72, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.up(self.out(self.body(x) + self.shortcut(x))).flatten(1))


def inputs(kind):
    return (torch.randn(B, 2, 6, 6), T) if kind == "static" else (torch.randn(T, B, 2, 6, 6), None)


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize(
    ("gradient", "segments", "m"), [("bptt", 1, T), ("sltt", 1, T), ("rate", 1, 1), ("rate", 2, 2)]
)
def test_each_convolution_is_evaluated_once(gradient, segments, m, kind):
    network = Residual()
    x, timesteps = inputs(kind)
    with Convolutions() as seen:
        temporal(network, gradient=gradient, segments=segments)(x, timesteps=timesteps).sum().backward()
    stem = B if kind == "static" else T * B
    # five convolutions: stem, two of the body, shortcut, transposed; a static stem at batch B, backwards too
    assert sorted(seen.forward) == sorted([stem] + [T * B] * 4)
    assert sorted(seen.backward) == sorted([B if kind == "static" else m * B] + [m * B] * 4)


@pytest.mark.parametrize("kind", ["static", "events"])
def test_the_forward_pass_of_rate_costs_what_that_of_bptt_does(kind):
    network = Residual()
    x, timesteps = inputs(kind)
    flops = {}
    for gradient in ("bptt", "rate"):
        model = temporal(network, gradient=gradient)
        with FlopCounterMode(display=False) as counter:
            model(x, timesteps=timesteps)
        flops[gradient] = counter.get_total_flops()
    assert flops["rate"] == flops["bptt"] > 0


@pytest.mark.parametrize(("segments", "m"), [(1, 1), (2, 2), ((1, 3), 2), (4, 4)])
def test_a_training_step_under_rate_costs_t_forward_and_2m_in_all(segments, m):
    """In forward passes at batch B: T forwards, and m each for the gradients to inputs and weights."""
    network = Residual()
    x = torch.randn(T, B, 2, 6, 6, requires_grad=True)
    with FlopCounterMode(display=False) as once:
        temporal(network)(x[:1])
    with FlopCounterMode(display=False) as counter:
        temporal(network, gradient="rate", segments=segments)(x).sum().backward()
    assert counter.get_total_flops() == (T + 2 * m) * once.get_total_flops()


def test_resnet18_evaluates_each_of_its_twenty_convolutions_once():
    x = torch.randn(B, 3, 8, 8)
    for gradient in ("bptt", "rate"):
        with Convolutions() as seen:
            create_model("resnet18", num_classes=3, width=0.05, gradient=gradient)(x, timesteps=T).sum().backward()
        # stem, 8 blocks of 2, 3 shortcuts
        assert sorted(seen.forward) == [B] + [T * B] * 19
        assert len(seen.backward) == 20


def test_the_graph_of_rate_does_not_grow_with_time():
    def saved_bytes(gradient, timesteps):
        network, saved = Residual(), {}

        def pack(tensor):
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = temporal(network, gradient=gradient)(torch.randn(B, 2, 6, 6), timesteps=timesteps)
        assert out.requires_grad
        return sum(saved.values())

    assert saved_bytes("rate", 16) == saved_bytes("rate", 2)
    assert saved_bytes("bptt", 16) > 4 * saved_bytes("bptt", 2)
