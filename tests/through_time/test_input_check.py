"""Inputs that hold NaN or infinite values are refused where a network in use would answer as if nothing were wrong."""

import copy
import math

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from spikedistill import LIF, create_model, temporal
from spikedistill.models.branches import Branched
from spikedistill.through_time import CompiledStep, NotFiniteInput
from spikedistill.through_time.finite import check_finite

nan, inf = math.nan, math.inf


def network(gradient: str = "bptt", **options):
    torch.manual_seed(0)
    return temporal(nn.Sequential(nn.Linear(4, 5), LIF(), nn.Linear(5, 3)), gradient=gradient, **options)


def damaged(shape: tuple[int, ...], *places: tuple[int, ...], value: float = nan, dtype=torch.float32):
    x = torch.rand(shape, dtype=dtype)
    for place in places:
        x[place] = value
    return x


@pytest.mark.parametrize(
    ("x", "timesteps", "told"),
    [
        (damaged((3, 4), (1, 2)), 2, "1 values of 12 .* in sample 1, counted"),
        (damaged((3, 4), (0, 0), (2, 1), (2, 3), value=-inf), 2, "3 values of 12 .* in samples 0 and 2, counted"),
        (damaged((2, 3, 4), (1, 2, 0), value=inf), None, "1 values of 24 .* in sample 2, counted"),
        (damaged((2, 3, 4), (0,)), None, "12 values of 24 .* in samples 0, 1 and 2, counted"),
        (
            damaged((20, 4), (slice(5, None), 0)),
            1,
            "15 values of 80 .* in samples 5, 6, 7, 8, 9, 10, 11, 12 and 7 more",
        ),
        (damaged((2, 4), (1, 0), value=inf).t().contiguous().t(), 2, "1 values of 8 .* in sample 1, counted"),
    ],
)
def test_values_that_are_not_finite_are_counted_and_their_samples_named(x, timesteps, told):
    with pytest.raises(NotFiniteInput, match=f"the input holds {told}") as caught:
        network()(x, timesteps)
    assert isinstance(caught.value, ValueError)
    assert isinstance(copy.copy(caught.value), NotFiniteInput), "it can be sent between processes"


@pytest.mark.parametrize(
    "gradient", [("bptt", {}), ("sltt", {}), ("rate", {}), ("rate", {"chunk": 1}), ("dsr", {})], ids=str
)
@pytest.mark.parametrize("training", [True, False])
def test_every_gradient_rule_refuses_them_with_and_without_gradients(gradient, training):
    name, options = gradient
    model = network(name, **options).train(training)
    with torch.set_grad_enabled(training), pytest.raises(NotFiniteInput, match="sample 1"):
        model(damaged((3, 4), (1, 2)), 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_large_values_whose_sum_overflows_are_finite(dtype):
    model, x = network().to(dtype), torch.full((3, 4), torch.finfo(dtype).max, dtype=dtype)
    assert model(x, 1).shape == (1, 3, 3)
    x[2, 0] = nan
    with pytest.raises(NotFiniteInput, match="1 values of 12"):
        model(x, 1)


def test_a_step_refuses_them_but_not_what_it_does_not_read():
    model = network().eval()
    good, bad = torch.rand(2, 4), damaged((2, 4), (1, 1), value=inf)
    with torch.no_grad():
        with pytest.raises(NotFiniteInput, match="sample 1"):
            model.step(bad)
        _, state = model.step(good, still=True)
        assert model.step(bad, state, still=True)[0].isfinite().all(), (
            "of a still input the first timestep alone is read"
        )
        _, state = model.step(good)
        with pytest.raises(NotFiniteInput, match="sample 1"):
            model.step(bad, state)


def test_heads_and_compiled_steps_refuse_them():
    model = create_model("convnet", num_classes=3, image_size=8, width=0.1, branches=True)
    assert isinstance(model, Branched)
    bad = damaged((2, 3, 8, 8), (1, 0, 0, 0))
    with pytest.raises(NotFiniteInput, match="sample 1"):
        model.heads(bad, 2)
    step = CompiledStep(network().eval())
    with pytest.raises(NotFiniteInput, match="sample 0"):
        step(damaged((2, 4), (0, 0)))


class Plain(nn.Module):
    """Reads nothing of a tensor's values, as a network must where PyTorch only follows the operations."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return torch.relu(self.fc(x))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_nothing_is_read_while_pytorch_only_follows_the_operations():
    model, bad = temporal(Plain()).eval().requires_grad_(False), damaged((3, 4), (1, 2))
    expected = torch.relu(model.module.fc(bad)).expand(2, 3, 3)

    def same(out):
        torch.testing.assert_close(out, expected, equal_nan=True)

    with torch.no_grad():
        torch.jit.trace(lambda x: (check_finite(x), x + 1)[1], bad, check_trace=False)
        same(torch.export.export(model, (torch.rand(3, 4), 2)).module()(bad, 2))
        same(torch.vmap(lambda x: model(x.unsqueeze(0), 2).squeeze(1), out_dims=1)(bad))
        with FlopCounterMode(display=False):
            same(model(bad, 2))
        assert model.to("meta")(bad.to("meta"), 2).shape == (2, 3, 3)
    with FakeTensorMode(), torch.no_grad():
        assert temporal(Plain())(torch.rand(3, 4), 2).shape == (2, 3, 3)


def test_gradients_of_functions_are_taken_through_a_network():
    model, x = temporal(Plain()), torch.rand(3, 4)
    parameters = dict(model.named_parameters())

    def loss(weights, sample):
        return torch.func.functional_call(model, weights, (sample.unsqueeze(0), 2)).square().sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    model(x, 2).square().sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(each[name].sum(0), parameter.grad)
    assert torch.func.grad(lambda v: model(v, 2).sum())(x).shape == x.shape


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("training", [True, False])
def test_a_compiled_network_is_one_graph_that_reads_nothing(training):
    model = create_model("convnet", num_classes=3, image_size=8, width=0.05).train(training)
    torch._dynamo.reset()
    try:
        with torch.set_grad_enabled(training):
            compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
            assert compiled(torch.rand(2, 3, 8, 8), 2).isfinite().all()
            compiled(damaged((2, 3, 8, 8), (0, 0, 0, 0)), 2)
    finally:
        torch._dynamo.reset()
