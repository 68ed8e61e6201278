"""What the tests over the zoo share: networks, inputs, one forward and backward pass, and comparisons."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import PATTERNS

f64, aten = torch.float64, torch.ops.aten
T, B = 4, 2
# name -> (gradient, lengths of the segments)
RULES = {
    "bptt": ("bptt", None),
    "sltt": ("sltt", None),
    "rate": ("rate", (4,)),
    "rate in 2": ("rate", (2, 2)),
    "rate in 1 and 3": ("rate", (1, 3)),
    "rate in 4": ("rate", (1, 1, 1, 1)),
}


def build(name):
    torch.manual_seed(0)
    return PATTERNS[name].build().to(f64)


def naive_network(name, network):
    """The network that the reference runs; another one of the same weights where the pattern says so."""
    if PATTERNS[name].naive is None:
        return network
    twin = PATTERNS[name].naive().to(f64)
    twin.load_state_dict(network.state_dict())
    return twin


def make_input(name, kind, timesteps=T, seed=1):
    shape = PATTERNS[name].sample
    leading = (B,) if kind == "static" else (timesteps, B)
    return torch.randn(*leading, *shape, generator=torch.Generator().manual_seed(seed), dtype=f64) * 1.5


def can_run(name, gradient, kind):
    pattern = PATTERNS[name]
    return gradient != "rate" or (pattern.rate and (kind == "static" or not pattern.static_only))


def outputs_and_gradients(network, call, x):
    """Outputs of `call(x)`, and the gradients by name (the input's under "") of a function that tells the timesteps apart."""
    x = x.clone().requires_grad_()
    network.zero_grad()
    torch.manual_seed(7)
    out = call(x)
    probe = torch.linspace(-2, 3, out.numel(), dtype=f64).cos().view(out.shape)
    # not linear, so that the gradient depends on each timestep's value
    (out.tanh() * probe).sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return out.detach(), gradients | {"": x.grad}


def run(model, network, x, timesteps):
    """Logits, gradients by name (the input's under ""), and buffers after one forward and backward pass."""
    logits, gradients = outputs_and_gradients(network, lambda x: model(x, timesteps=timesteps), x)
    return logits, gradients, dict(network.named_buffers())


def assert_same_gradients(ours, naive, tolerance):
    assert ours.keys() == naive.keys()
    scale = max(g.norm() for g in naive.values() if g is not None)
    assert scale > 1e-3
    for name, expected in naive.items():
        if expected is None:
            assert ours[name] is None, name
        else:
            # a gradient that cancels exactly (a bias before batch-norm) is compared on the scale of the others
            assert (ours[name] - expected).norm() <= tolerance * max(expected.norm(), 1e-3 * scale), name


def cases(names=tuple(PATTERNS), rules=tuple(RULES)):
    """Every pattern under every rule that can run it, on a static image and on events."""
    return [
        pytest.param(name, rule, kind, id=f"{name}-{rule}-{kind}")
        for name in names
        for rule in rules
        for kind in ("static", "events")
        if can_run(name, RULES[rule][0], kind)
    ]


class Convolutions(TorchDispatchMode):
    """The batch sizes of all convolutions and of all their backward passes."""

    def __init__(self):
        super().__init__()
        self.forward, self.backward = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (aten.convolution.default, aten.mkldnn_convolution.default):
            self.forward.append(args[0].shape[0])
        if func is aten.convolution_backward.default:
            self.backward.append(args[1].shape[0])
        return func(*args, **(kwargs or {}))
