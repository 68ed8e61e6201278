"""Training passes recorded as CUDA graphs: on a GPU what they compute without, elsewhere nothing."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikedistill import LIF, temporal
from spikedistill.through_time import Captured

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


class Passes(nn.Module):
    """A network with batch-norm and dropout, over four timesteps."""

    def __init__(self, gradient):
        super().__init__()
        layers = (
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4),
            LIF(threshold=0.5),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(64, 3),
        )
        self.network = temporal(nn.Sequential(*layers), gradient=gradient)

    def forward(self, x):
        return self.network(x, timesteps=4)


def test_without_a_gpu_the_module_runs_as_it_is():
    module = Passes("bptt")
    x = torch.randn(2, 2, 6, 6)
    torch.manual_seed(1)
    expected = module(x)
    torch.manual_seed(1)
    assert torch.equal(Captured(module)(x), expected)


@needs_gpu
@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_a_replay_computes_what_the_module_does(gradient):
    """Over batches of two sizes: logits, gradients, running statistics and draws."""
    torch.manual_seed(0)
    plain = Passes(gradient).cuda()
    recorded = copy.deepcopy(plain)
    outcomes = []
    for module, run in ((plain, plain), (recorded, Captured(recorded))):
        found = []
        for step, size in enumerate((4, 4, 2, 4, 2)):
            torch.manual_seed(step)
            logits = run(torch.randn(size, 2, 6, 6).cuda())
            logits.square().sum().backward()
            found += [logits.detach().clone(), *(p.grad.clone() for p in module.parameters())]
            module.zero_grad()
        with torch.no_grad():
            found.append(run(torch.ones(2, 2, 6, 6).cuda()))
        outcomes.append([*found, *module.buffers()])
    for ours, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, expected)


@needs_gpu
def test_an_input_that_needs_a_gradient_gets_it_and_a_frozen_weight_none():
    module = Passes("bptt").cuda()
    run, x = Captured(module), torch.randn(4, 2, 6, 6).cuda()
    run(x).sum().backward()
    asking = x.clone().requires_grad_()
    run(asking).sum().backward()
    assert asking.grad.norm() > 0
    module.zero_grad()
    frozen = next(module.parameters()).requires_grad_(False)
    run(x).sum().backward()
    assert frozen.grad is None


@needs_gpu
def test_what_cannot_be_recorded_runs_as_it_is(caplog):
    class Copies(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return F.dropout(x, 0.0) * self.weight * torch.tensor([2.0]).to(x.device)

    out = Captured(Copies().cuda())(torch.ones(2, device="cuda"))
    assert out.tolist() == [2.0, 2.0]
    assert "training runs without CUDA graphs" in caplog.text
