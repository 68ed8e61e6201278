"""One graph for a whole network under torch.compile, with the values and gradients of the eager one."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from spikedistill import create_model

f64 = torch.float64


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"gradient": "bptt"}),
        ("resnet18", {"gradient": "rate"}),
        ("convnet", {"gradient": "sltt", "v_reset": 0.0, "learn_decay": True}),
        ("convnet", {"gradient": "rate", "segments": (1, 1), "v_init": "learned", "learn_decay": True}),
    ],
)
def test_a_network_compiles_to_one_graph(name, options):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, image_size=8, width=0.05, **options).to(f64)
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
