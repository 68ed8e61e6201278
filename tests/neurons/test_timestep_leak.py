"""Neurons whose decay is learned for every timestep, against a loop in float64."""

import pytest
import torch
from quick_runs import quick
from torch import nn

from spikedistill import UserError, create_model, temporal
from spikedistill.config import ModelConfig
from spikedistill.evaluation import AnytimeClassifier
from spikedistill.neurons import TimestepLeak
from spikedistill.training.plan import make_plan

T, B, C = 4, 3, 2


def test_every_timestep_and_channel_has_its_own_decay_and_the_last_one_stays():
    torch.manual_seed(0)
    neuron = TimestepLeak(C, timesteps=3, v_reset=-0.2).double()
    decays = torch.tensor([[9.0, 9.0], [0.5, 1.0], [0.25, 0.75]], dtype=torch.float64)
    neuron.decay.data.copy_(decays)  # the first is of no effect: the membrane is 0 then
    current = torch.rand(5, B, C, 4, dtype=torch.float64)
    model = temporal(nn.Sequential(neuron))
    found = model(current)
    u = torch.zeros(B, C, 4, dtype=torch.float64)
    for t in range(5):
        u = decays[min(t, 2)].view(1, C, 1) * u + current[t]
        spikes = (u >= 1).double()
        assert torch.equal(found[t], spikes)
        u = torch.where(spikes > 0, -0.2, u)
    assert 0 < found.mean() < 1


def test_the_gradient_of_every_decay_is_that_of_the_loop():
    torch.manual_seed(1)
    neuron = TimestepLeak(C, timesteps=T, decay=0.5).double()
    current = torch.rand(T, B, C, dtype=torch.float64)
    weight = torch.rand(T, B, C, dtype=torch.float64)
    (temporal(nn.Sequential(neuron))(current) * weight).sum().backward()
    # by hand: s_t has the triangle's slope at u_t - 1, and the membrane after it is u_t (1 - s_t)
    decay = [torch.full((1, C), 0.5, dtype=torch.float64, requires_grad=True) for _ in range(T)]

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x >= 0).double()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * (1 - x.abs()).clamp(min=0)

    v, total = torch.zeros(B, C, dtype=torch.float64), 0
    for t in range(T):
        u = decay[t] * v + current[t]
        spikes = Spike.apply(u - 1)
        v = u * (1 - spikes)
        total = total + (spikes * weight[t]).sum()
    total.backward()
    assert neuron.decay.grad[0].abs().max() == 0
    for t in range(1, T):
        torch.testing.assert_close(neuron.decay.grad[t : t + 1], decay[t].grad)


def test_a_network_learns_its_leaks_and_exits_early():
    torch.manual_seed(0)
    model = create_model(
        "convnet", num_classes=3, in_channels=1, image_size=8, neuron="timestep-leak", neuron_options={"timesteps": T}
    )
    x = torch.rand(16, 1, 8, 8)
    model.train()(x, T).square().sum().backward()
    leaks = [parameter.grad for name, parameter in model.named_parameters() if name.endswith(".decay")]
    assert len(leaks) == 3
    assert all((grad[1:] != 0).any() for grad in leaks)
    model.eval()
    whole = model(x, 6)
    predicted, times, _ = AnytimeClassifier(model, "confidence", threshold=0.5, max_timesteps=6)(x)
    means = whole.cumsum(0) / torch.arange(1, 7).view(-1, 1, 1)
    for n in range(16):
        assert int(means[int(times[n]) - 1, n].argmax()) == int(predicted[n])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timesteps": 0}, "timesteps is 0"),
        ({"v_reset": 1.0}, "v_reset is 1.0"),
        ({"surrogate": "relu"}, "no surrogate is called 'relu'"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        TimestepLeak(C, **options)


def test_in_a_run_there_is_a_decay_for_each_of_its_timesteps():
    def decays(**options):
        model = ModelConfig(neuron="timestep-leak", neuron_options=options)
        network = make_plan(quick("digits-sce", model=model, timesteps=3)).build_network()
        return {len(layer.decay) for layer in network.modules() if isinstance(layer, TimestepLeak)}

    assert decays() == {3}
    assert decays(timesteps=5) == {5}
