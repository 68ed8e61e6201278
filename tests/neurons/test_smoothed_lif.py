"""Neurons with smoothed membranes: worked by hand, against LIF and against a loop in float64."""

import pytest
import torch
from quick_runs import quick
from torch import nn

from spikedistill import UserError, create_model, lif, temporal, train
from spikedistill.evaluation import AnytimeClassifier
from spikedistill.neurons import SmoothedLif
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.training.plan import make_plan

T, B, C = 5, 3, 2


def test_by_hand():
    """Decay 1/2, alpha 1/2, current 2: h~ is 1 and fires, v = 0; then 1/2 + 2/2 = 3/2 fires, v = 1/2; then 3/4 + 9/8 = 15/8."""
    neuron = SmoothedLif(decay=0.5, smoothing=0.5)
    current, state, seen = torch.full((1, 1), 2.0), None, []
    for _ in range(3):
        spikes, state = neuron.step(current, state)
        seen.append((spikes.item(), state["smoothed"].item(), state["v"].item()))
    assert seen == [(1.0, 1.0, 0.0), (1.0, 1.5, 0.5), (1.0, 1.875, 0.875)]
    quiet, state = neuron.step(torch.full((1, 1), 0.5), None)
    assert (quiet.item(), state["smoothed"].item(), state["v"].item()) == (0.0, 0.25, 0.25)


def test_without_smoothing_they_are_lif():
    current = torch.rand(8, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.5
    neuron = SmoothedLif(decay=0.75).double()
    neuron.smoothing_logit.data.fill_(-200.0)
    found = temporal(nn.Sequential(neuron))(current)
    assert torch.equal(found, lif(current, decay=0.75))
    assert 0 < found.mean() < 1


def test_smoothing_delays_and_changes_the_spikes():
    current = torch.rand(8, 50, 6, generator=torch.Generator().manual_seed(1)) * 1.5
    plain = lif(current)
    smooth = temporal(nn.Sequential(SmoothedLif(smoothing=0.7)))(current)
    assert smooth[0].sum() < plain[0].sum()
    assert not torch.equal(smooth, plain)


def reference(current, logit, weight, decay=0.5, threshold=1.0):
    """Spikes, and the gradient of their weighted sum, of a loop that shares nothing with the package."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x >= 0).double()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * (1 - x.abs()).clamp(min=0)

    alpha, v, h, spikes = 1 / (1 + torch.exp(-logit)), 0.0, 0.0, []
    for x in current:
        h = alpha * h + (1 - alpha) * (decay * v + x)
        spikes.append(Spike.apply(h - threshold))
        v = h - threshold * spikes[-1]
    spikes = torch.stack(spikes)
    return spikes, torch.autograd.grad((spikes * weight).sum(), [current, logit])


@pytest.mark.parametrize("smoothing", [0.2, 0.5, 0.8])
def test_spikes_and_gradients_are_those_of_a_loop(smoothing):
    dice = torch.Generator().manual_seed(2)
    current = (3 * torch.rand(T, B, C, dtype=torch.float64, generator=dice)).requires_grad_()
    weight = torch.rand(T, B, C, dtype=torch.float64, generator=dice)
    neuron = SmoothedLif(smoothing=smoothing, surrogate="triangular").double()
    found = temporal(nn.Sequential(neuron))(current)
    gradients = torch.autograd.grad((found * weight).sum(), [current, neuron.smoothing_logit])
    expected, own = reference(current, neuron.smoothing_logit.detach().clone().requires_grad_(), weight)
    assert torch.equal(found, expected)
    assert 0 < found.mean() < 1
    for mine, other in zip(gradients, own, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)
    assert own[1] != 0


def test_a_network_learns_its_coefficients_and_exits_early():
    torch.manual_seed(0)
    model = create_model("convnet", num_classes=3, in_channels=1, image_size=8, neuron="smoothed-lif")
    x = 3 * torch.rand(16, 1, 8, 8)
    model.train()(x, T).square().sum().backward()
    learned = {name: p for name, p in model.named_parameters() if name.endswith("smoothing_logit")}
    assert len(learned) == 3
    assert all(parameter.shape == () and parameter.grad != 0 for parameter in learned.values())
    model.eval()
    means = model(x, T).cumsum(0) / torch.arange(1, T + 1).view(-1, 1, 1)
    predicted, times, _ = AnytimeClassifier(model, "confidence", 0.5, T)(x)
    for n in range(16):
        assert int(means[int(times[n]) - 1, n].argmax()) == int(predicted[n])


def test_the_recipe_has_both_halves_and_trains_what_it_names(tmp_path):
    plain = recipe("fashion_mnist-mps-guidance")
    both = recipe("fashion_mnist-mps-unofficial")
    assert both.objective == plain.objective
    assert both.model.neuron == "smoothed-lif"
    taken = {name: getattr(plain.model.lif, name) for name in ("decay", "threshold", "surrogate")}
    assert both.model.neuron_options == {**taken, "smoothing": 0.5}
    run = RunFolder(train(quick("digits-mps-unofficial", out=tmp_path, epochs=2)))
    values = [tensor.item() for name, tensor in run.load_network(run.model).state_dict().items() if "smoothing" in name]
    assert len(values) == 3
    assert all(value != 0 for value in values), "which is where they begin"
    with pytest.raises(UserError, match=r"derived for LIF neurons, and layer .* is a SmoothedLif with its own step"):
        make_plan(quick("digits-twce", model=both.model, gradient="rate"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decay": 1.5}, r"decay is 1\.5, expected 0"),
        ({"threshold": 0.0}, r"threshold is 0\.0, expected a positive number"),
        ({"smoothing": 1.0}, r"smoothing is 1\.0, expected a number inside \(0, 1\)"),
        ({"smoothing": 0.0}, r"smoothing is 0\.0"),
        ({"smoothing": 1 - 1e-9}, r"smoothing is 0\.999999999"),  # which is 1 in float32
        ({"surrogate": "relu"}, "no surrogate is called 'relu'"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        SmoothedLif(**options)
