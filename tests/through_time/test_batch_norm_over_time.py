"""Batch-norm over time: statistics over T*B samples, running ones updated once a call, in every rule."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikedistill import LIF, lif, temporal
from spikedistill.errors import UserError
from spikedistill.neurons.loops import paths

f64 = torch.float64
RULES = [("bptt", 1), ("sltt", 1), ("rate", 1), ("rate", 2), ("dsr", 1)]


def repeated(norm, x, T):
    """torch's own layer on the batch repeated T times."""
    twin = copy.deepcopy(norm)
    return twin(x.repeat(T, *[1] * (x.ndim - 1))), twin


@pytest.mark.parametrize(("gradient", "segments"), RULES)
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("affine", [True, False])
def test_a_static_image_counts_as_often_as_it_is_shown(gradient, segments, momentum, affine):
    T, x = 5, torch.randn(2, 3, 2, 2, dtype=f64)
    norm = nn.BatchNorm2d(3, momentum=momentum, affine=affine).to(f64)
    network = nn.Sequential(nn.Identity(), norm)
    model = temporal(network, gradient=gradient, segments=segments)
    for call in range(3):
        value = x * (call + 1) - call
        out, twin = repeated(norm, value, T)
        ours = model(value, timesteps=T)
        torch.testing.assert_close(ours.flatten(0, 1), out, rtol=0, atol=1e-12)
        torch.testing.assert_close(norm.running_mean, twin.running_mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(norm.running_var, twin.running_var, rtol=0, atol=1e-12)
        assert norm.num_batches_tracked == call + 1


def test_the_running_variance_of_a_static_image_by_hand():
    # one channel, samples 0 and 2: mean 1, biased variance 1; shown 3 times: unbiased 6 / 5; momentum 1/2 from 1
    norm = nn.BatchNorm1d(1, momentum=0.5).to(f64)
    temporal(norm)(torch.tensor([[0.0], [2.0]], dtype=f64), timesteps=3)
    assert norm.running_mean.item() == pytest.approx(0.5)
    assert norm.running_var.item() == pytest.approx(0.5 * 1 + 0.5 * 6 / 5)


@pytest.mark.parametrize(("gradient", "segments"), RULES)
def test_gradients_of_a_static_image_are_those_of_the_repeated_one(gradient, segments):
    T, x = 4, torch.randn(2, 3, 2, 2, dtype=f64)
    norm = nn.BatchNorm2d(3).to(f64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    probe = torch.randn(T * 2, 3, 2, 2, dtype=f64)
    out, twin = repeated(norm, b, T)
    (out * probe).sum().backward()
    (temporal(norm, gradient=gradient, segments=segments)(a, timesteps=T).flatten(0, 1) * probe).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.weight.grad, twin.weight.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.bias.grad, twin.bias.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("gradient", "segments"), RULES)
def test_a_single_value_per_channel_is_enough_where_time_makes_it_several(gradient, segments):
    x = torch.randn(1, 3, dtype=f64)
    norm = nn.BatchNorm1d(3).to(f64)
    out, twin = repeated(norm, x, 4)
    ours = temporal(norm, gradient=gradient, segments=segments)(x, timesteps=4)
    torch.testing.assert_close(ours.flatten(0, 1), out, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.running_var, twin.running_var, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        temporal(norm, gradient=gradient)(x, timesteps=1)


@pytest.mark.parametrize("smallest", [0, 2**60])
@pytest.mark.parametrize(("gradient", "segments"), RULES)
def test_evaluation_without_running_statistics_is_refused(gradient, segments, smallest, monkeypatch):
    class Bare(nn.Module):
        def forward(self, x):
            return F.batch_norm(x, None, None)

    monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
    network = temporal(nn.Sequential(LIF(threshold=0.1), Bare(), LIF()), gradient=gradient, segments=segments).eval()
    with pytest.raises(UserError, match=r"batch_norm in evaluation has no running statistics: pass running_mean"):
        network(torch.rand(2, 3, 4, 4), timesteps=4)


@pytest.mark.parametrize(("gradient", "segments"), RULES)
def test_in_eval_mode_running_statistics_normalise_and_stay(gradient, segments):
    norm = nn.BatchNorm2d(3).to(f64)
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    before = copy.deepcopy(norm.state_dict())
    network = nn.Sequential(LIF(threshold=0.1), norm).eval()
    x = torch.randn(4, 2, 3, 2, 2, dtype=f64)
    out = temporal(network, gradient=gradient, segments=segments)(x)
    expected = (lif(x, threshold=0.1) - before["running_mean"].view(3, 1, 1)) / (
        before["running_var"].view(3, 1, 1) + norm.eps
    ).sqrt()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert all(torch.equal(norm.state_dict()[key], before[key]) for key in before)


@pytest.mark.parametrize("affine", [True, False])
def test_statistics_of_half_precision_rates_are_float32(affine):
    """Means of bfloat16 values in bfloat16 would be off by percents."""
    norm = nn.BatchNorm2d(2, affine=affine)
    x = (torch.randn(4, 8, 2, 6, 6) + 20).bfloat16()
    network = nn.Sequential(LIF(threshold=20.0, decay=0.0), norm)
    out = temporal(network, gradient="rate", segments=2)(x)
    assert out.dtype == torch.bfloat16
    exact = nn.BatchNorm2d(2, affine=affine)
    expected = exact((x.float() >= 20).float().flatten(0, 1)).unflatten(0, (4, 8))
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=2e-2)
    assert norm.running_var.dtype == torch.float32
    torch.testing.assert_close(norm.running_mean, exact.running_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, exact.running_var, rtol=1e-4, atol=1e-6)


def test_half_precision_gradients_through_rates_follow_those_of_float32():
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(2)
        x = (torch.randn(4, 8, 2, 6, 6) + 1).bfloat16().to(dtype).requires_grad_()
        network = nn.Sequential(LIF(decay=0.5), norm)
        out = temporal(network, gradient="rate", segments=2)(x)
        (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        grads.append((x.grad.float(), norm.weight.grad, norm.bias.grad))
    for a, b in zip(*grads, strict=True):
        assert (a - b).norm() < 0.02 * a.norm()


def test_a_second_derivative_through_rates_is_refused_rather_than_wrong():
    """The statistics' own second derivative is not implemented; unrolled rules have torch's."""
    network = nn.Sequential(LIF(threshold=0.1), nn.BatchNorm2d(3)).to(f64)
    x = torch.randn(4, 2, 3, 2, 2, dtype=f64, requires_grad=True)

    def penalise(gradient):
        out = temporal(network, gradient=gradient)(x)
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        first.square().sum().backward()

    penalise("bptt")
    assert x.grad.norm() > 0
    with pytest.raises(RuntimeError, match="once_differentiable"):
        penalise("rate")
