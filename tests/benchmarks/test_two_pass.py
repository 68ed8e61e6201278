"""The papers' two passes and the library's one pass: the same gradients at another cost."""

import pytest
import torch
import torch.nn.functional as F
from benchmarks.two_pass import TwoPass
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spikedistill import LIF, create_model, temporal

B, C = 3, 5


def network(**lif_options):
    torch.manual_seed(0)
    return create_model("resnet18", num_classes=C, width=0.06, **lif_options).module.double()


def batch():
    return torch.randn(B, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 3, 2])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("timesteps", "lif_options"),
    [(1, {}), (4, {}), (4, {"detach_reset": True}), (3, {"decay": 0.8, "threshold": 0.7, "surrogate": "triangular"})],
)
def test_gradients_logits_and_statistics_are_those_of_one_pass(timesteps, lif_options, fused):
    images, labels = batch()
    one, two = network(**lif_options), network(**lif_options)
    logits = temporal(one, gradient="rate")(images, timesteps=timesteps).mean(0)
    F.cross_entropy(logits, labels).backward()
    model = TwoPass(two, fused=fused)
    # what is compiled for speed is the same Python
    with torch.compiler.set_stance("force_eager"):
        rates = model(images, timesteps)
    F.cross_entropy(rates, labels).backward()
    torch.testing.assert_close(rates, logits, rtol=1e-8, atol=1e-8)
    renamed = {name.removeprefix("network.").replace(".norm.", "."): p for name, p in model.named_parameters()}
    assert renamed.keys() == dict(one.named_parameters()).keys()
    for name, parameter in one.named_parameters():
        assert parameter.grad.abs().max() > 1e-4
        torch.testing.assert_close(renamed[name].grad, parameter.grad, rtol=1e-8, atol=1e-8, msg=name)
    buffers = {name.removeprefix("network.").replace(".norm.", "."): b for name, b in model.named_buffers()}
    for name, buffer in one.named_buffers():
        if "running" in name:
            torch.testing.assert_close(buffers[name], buffer, rtol=1e-8, atol=1e-8, msg=name)


def test_what_no_neuron_follows_is_normalised_as_in_one_pass():
    """Elsewhere the value of a batch-norm is replaced by the stored rate of the neurons behind it."""

    def small():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), LIF(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(4 * 12 * 12, C)).double()

    images, _ = batch()
    expected = temporal(small(), gradient="rate")(images, timesteps=4).mean(0)
    torch.testing.assert_close(TwoPass(small())(images, 4), expected, rtol=1e-8, atol=1e-8)


def test_a_step_costs_t_plus_3_forward_passes_where_one_pass_takes_t_plus_2():
    """T without a graph, one with it, and two for its gradients to inputs and weights."""
    T = 4
    images = batch()[0].requires_grad_()
    with FlopCounterMode(display=False) as once, torch.no_grad():
        temporal(network())(images, timesteps=1)
    with FlopCounterMode(display=False) as counter:
        TwoPass(network())(images, T).sum().backward()
    assert counter.get_total_flops() == (T + 3) * once.get_total_flops()


def test_autocast_leaves_every_weight_its_gradient():
    model = TwoPass(network().float())
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch()[0].float(), 2)
    logits.float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_dynamics_that_it_is_not_written_for_are_refused():
    with pytest.raises(ValueError, match=r"soft reset.*hard to 0\.0"):
        TwoPass(network(v_reset=0.0))
