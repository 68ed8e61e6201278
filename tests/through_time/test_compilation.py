"""One graph for a whole network under torch.compile, with the values and gradients of the eager one."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from spikedistill import LIF, create_model, list_models, temporal
from spikedistill.models.layers import Layers, Sizes
from spikedistill.models.layouts.resnet import BasicBlock, ResNet, small_stem

f64 = torch.float64


def residual_blocks():
    """The stem, and a block of each kind, of a residual network."""
    layers = Layers(neuron=lambda channels: LIF(channels=channels), width=0.05)
    sizes = Sizes(3, (8, 8), 3)
    return ResNet(layers, sizes, stem=small_stem, block=BasicBlock, depths=(1, 1), widths=(64, 128))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("residual blocks", {"gradient": "bptt"}),
        ("residual blocks", {"gradient": "rate"}),
        ("convnet", {"gradient": "dsr"}),
        ("convnet", {"gradient": "sltt", "v_reset": 0.0, "decay": "learned", "threshold": "learned"}),
        (
            "convnet",
            {"gradient": "rate", "segments": (1, 1), "v_init": "learned", "decay": "learned", "threshold": "learned"},
        ),
        ("convnet", {"gradient": "rate", "mean": [0.5] * 3, "std": [0.2, 0.3, 0.4]}),
    ],
)
def test_a_network_compiles_to_one_graph(name, options):
    torch.manual_seed(0)
    model = (
        create_model(name, num_classes=3, image_size=8, width=0.05, **options)
        if name in list_models()
        else temporal(residual_blocks(), **options)
    ).to(f64)
    x, timesteps = torch.randn(2, 3, 8, 8, dtype=f64), 2

    def run(call):
        model.zero_grad()
        logits = call(x, timesteps=timesteps)
        logits.square().sum().backward()
        return logits.detach(), [p.grad.clone() for p in model.parameters()]

    expected, expected_gradients = run(model)
    assert expected_gradients[0].norm() > 0
    statistics = copy.deepcopy(model.state_dict())
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
    torch._dynamo.reset()
    counters.clear()
    counter = CompileCounterWithBackend("aot_eager")
    try:
        logits, gradients = run(torch.compile(model, fullgraph=True, backend=counter))
        assert counter.frame_count == 1
        assert not counters["graph_break"]
    finally:
        torch._dynamo.reset()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert (a - b).norm() <= 1e-8 * max(b.norm(), 1e-6)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, statistics[key], rtol=0, atol=1e-12)


class Operators(nn.Module):
    """A signal on the left of operators whose right side is a tensor."""

    def __init__(self):
        super().__init__()
        self.mixing, self.scale = nn.Parameter(torch.rand(4, 4, dtype=f64)), nn.Parameter(1 + torch.rand(4, dtype=f64))

    def forward(self, x):
        return torch.matmul((x - self.scale) / self.scale, self.mixing) * self.scale + self.scale


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_operators_between_signals_and_tensors_compile_as_they_run(gradient):
    torch.manual_seed(0)
    model = temporal(Operators(), gradient=gradient)
    x = torch.randn(3, 2, 4, dtype=f64)
    expected = model(x)
    torch._dynamo.reset()
    try:
        out = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    finally:
        torch._dynamo.reset()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_a_product_whose_sides_the_compiler_mistakes_is_refused():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.mixing = nn.Parameter(torch.rand(4, 4))

        def forward(self, x):
            return x @ self.mixing

    model = temporal(Mixing())
    assert model(torch.randn(3, 2, 4)).shape == (3, 2, 4)
    torch._dynamo.reset()
    try:
        with pytest.raises(torch._dynamo.exc.Unsupported, match=r"write torch.matmul\(a, b\)"):
            torch.compile(model, fullgraph=True, backend="aot_eager")(torch.randn(3, 4, 4))
    finally:
        torch._dynamo.reset()
