"""What has no rule across time is refused by name, with what to do: never a silently wrong value or gradient."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules._functions import SyncBatchNorm as SyncBatchNormFunction
from torch.utils.checkpoint import checkpoint

from spikedistill import LIF, mean_rate, temporal
from spikedistill.through_time import UnsupportedOperationError
from spikedistill.through_time.call import Call
from spikedistill.through_time.unrolled import Unrolled

T, B = 3, 2
MASK = torch.tensor([True, False, True, True])


class ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -grad


def without_gradients(x):
    with torch.no_grad():
        return x * 2


def branch_on_value(x):
    return x if x.sum() > 0 else -x


def assign(x):
    x[:, 0] = 1.0
    return x


def attention(x):
    tokens = x.flatten(2).transpose(1, 2)
    return nn.MultiheadAttention(4, 2, batch_first=True)(tokens, tokens, tokens)


# what is tried, and the name under which it is refused, under every rule
ALWAYS = {
    "sort": (lambda x: x.sort(1), "sort"),
    "torch.sort": (lambda x: torch.sort(x, 1), "sort"),
    "topk": (lambda x: torch.topk(x, 2, 1), "topk"),
    "cumsum": (lambda x: x.cumsum(1), "cumsum"),
    "argmax": (lambda x: torch.argmax(x, 1), "argmax"),
    "max": (lambda x: x.max(), "max"),
    "median": (lambda x: x.median(), "median"),
    "var": (lambda x: torch.var(x), "var"),
    "round": (lambda x: torch.round(x), "round"),
    "where": (lambda x: torch.where(MASK.view(-1, 1, 1), x, 0), "where"),
    "fft": (lambda x: torch.fft.fft(x), "fft_fft"),
    "grid_sample": (lambda x: F.grid_sample(x, torch.zeros(B, 2, 2, 2), align_corners=False), "grid_sample"),
    "zeros_like": (lambda x: torch.zeros_like(x), "zeros_like"),
    "new_zeros": (lambda x: x.new_zeros(3), "new_zeros"),
    "max pooling with indices": (nn.MaxPool2d(2, return_indices=True), "max_pool2d_with_indices"),
    "bool": (lambda x: bool(x), "__bool__"),
    "if": (branch_on_value, "__gt__"),
    "greater": (lambda x: (x > 0).float(), "__gt__"),
    "tensor less than": (lambda x: torch.zeros(1) < x, "__gt__"),
    "equal": (lambda x: x == 1, "__eq__"),
    "unequal": (lambda x: x != 1, "__ne__"),
    "tensor equal": (lambda x: torch.ones(1) == x, "__eq__"),
    "gt": (lambda x: x.gt(0), "gt"),
    "iteration": (lambda x: list(x), "__iter__"),
    "unpacking": (lambda x: torch.stack([*x]), "__iter__"),
    "len": (lambda x: len(x), "__len__"),
    "float": (lambda x: float(x), "__float__"),
    "int": (lambda x: int(x), "__int__"),
    "item": (lambda x: x.item(), "item"),
    "tolist": (lambda x: x.tolist(), "tolist"),
    "numpy": (lambda x: x.numpy(), "numpy"),
    "np.asarray": (lambda x: np.asarray(x), "__array__"),
    "data": (lambda x: x.data, "data"),
    "grad": (lambda x: x.grad, "grad"),
    "cpu": (lambda x: x.cpu(), "cpu"),
    "boolean mask": (lambda x: x[:, MASK], "boolean-mask indexing"),
    "masked_select": (lambda x: x.masked_select(MASK.view(1, -1, 1, 1)), "masked_select"),
    "assignment to a slice": (assign, "__setitem__"),
    "add_": (lambda x: x.add_(1), "add_"),
    "mul_": (lambda x: x.mul_(2), "mul_"),
    "relu_": (lambda x: F.relu_(x), "relu_"),
    "zero_": (lambda x: x.zero_(), "zero_"),
    "out=": (lambda x: torch.add(x, 1, out=torch.zeros(B, 4, 6, 6)), "add"),
    "weights that vary in time": (lambda x: F.conv2d(torch.zeros(B, 4, 6, 6), x), "conv2d"),
    "batch-norm scaled by a signal": (
        lambda x: F.batch_norm(x, None, None, weight=x.mean((0, 2, 3)), training=True),
        "batch_norm",
    ),
    "bilinear": (lambda x: nn.Bilinear(6, 6, 2)(x, x), "bilinear"),
    "LSTM": (lambda x: nn.LSTM(36, 4)(x.flatten(2)), "lstm"),
    "GRU": (lambda x: nn.GRU(36, 4)(x.flatten(2)), "gru"),
    "RNN": (lambda x: nn.RNN(36, 4)(x.flatten(2)), "rnn_tanh"),
    "MultiheadAttention": (attention, "is_nested.*MultiheadAttention"),
    "scaled_dot_product_attention": (lambda x: F.scaled_dot_product_attention(x, x, x), "scaled_dot_product_attention"),
    "SyncBatchNorm among processes": (
        lambda x: SyncBatchNormFunction.apply(x, torch.ones(4), None, None, None, 1e-5, 0.1, None, 2),
        "is_contiguous.*SyncBatchNorm.*synchronise_batch_norm",
    ),
    "autograd.Function": (lambda x: ReversedGradient.apply(x), "view_as.*detach"),
    "no_grad": (without_gradients, "__mul__.*detach"),
    "reentrant checkpoint of neurons": (lambda x: checkpoint(LIF(), x, use_reentrant=True), "LIF.*use_reentrant=False"),
    "reentrant checkpoint": (
        lambda x: checkpoint(nn.Conv2d(4, 4, 3), x, use_reentrant=True),
        "conv2d.*use_reentrant=False",
    ),
}

# nonlinear in what varies in time, so that a mean rate would go through it wrongly
UNDER_RATE = {
    "relu": (F.relu, "relu"),
    "nn.ReLU in place": (nn.ReLU(inplace=True), "relu"),
    "sigmoid": (lambda x: x.sigmoid(), "sigmoid"),
    "softmax": (lambda x: F.softmax(x, 1), "softmax"),
    "abs": (lambda x: x.abs(), "abs"),
    "power": (lambda x: x**2, "__pow__"),
    "square of a signal": (lambda x: x * x, "__mul__"),
    "einsum of a signal with itself": (lambda x: torch.einsum("bchw,bchw->bc", x, x), "einsum"),
    "division by a signal": (lambda x: 1 / (x + 2), "__rtruediv__"),
    "division of two signals": (lambda x: x / (x + 2), "__truediv__"),
    "rounded division": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), "div"),
    "cast to integers": (lambda x: x.to(torch.int32), "to"),
    "normalize": (lambda x: F.normalize(x), "normalize"),
    "squeeze and excitation": (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), "sigmoid"),
    "GroupNorm": (nn.GroupNorm(2, 4), "group_norm"),
    "LayerNorm": (nn.LayerNorm([4, 6, 6]), "layer_norm"),
    "InstanceNorm": (nn.InstanceNorm2d(4), "instance_norm"),
    "RMSNorm": (nn.RMSNorm([4, 6, 6]), "rms_norm"),
    "LPPool": (nn.LPPool2d(2, 2), "lp_pool2d"),
}


class Tries(nn.Module):
    """Does something to spikes, and counts how often it came out of that alive."""

    def __init__(self, action):
        super().__init__()
        self.stem, self.lif = nn.Conv2d(2, 4, 3, padding=1), LIF(threshold=0.2)
        self.action = action
        self.survived = 0

    def forward(self, x):
        out = self.action(self.lif(self.stem(x)))
        self.survived += 1
        return out


def try_under(gradient, action, kind):
    network = Tries(action)
    model = temporal(network, gradient=gradient)
    x = torch.randn(B, 2, 6, 6) if kind == "static" else torch.randn(T, B, 2, 6, 6)
    try:
        model(x, timesteps=T if kind == "static" else None)
    finally:
        assert network.survived == 0


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate"])
@pytest.mark.parametrize("what", ALWAYS)
def test_is_refused_by_name_under_every_rule(what, gradient, kind):
    action, name = ALWAYS[what]
    quoted, _, advice = name.partition(".*")
    message = rf"^'{quoted}' has no rule across time under gradient='{gradient}': .*{advice}"
    with pytest.raises(UnsupportedOperationError, match=message):
        try_under(gradient, action, kind)


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("what", UNDER_RATE)
def test_is_refused_by_name_under_rate(what, kind):
    action, name = UNDER_RATE[what]
    message = rf"^'{name}' has no rule across time under gradient='rate': .*use gradient='bptt' or 'sltt'"
    with pytest.raises(UnsupportedOperationError, match=message):
        try_under("rate", action, kind)


@pytest.mark.parametrize("what", ["sort", "bool", "boolean mask", "add_", "LSTM", "weights that vary in time"])
def test_is_refused_while_streaming_too(what):
    action, name = ALWAYS[what]
    with pytest.raises(UnsupportedOperationError, match=f"^'{name}' has no rule across time"):
        temporal(Tries(action).eval()).step(torch.randn(B, 2, 6, 6))


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
@pytest.mark.parametrize("what", ["sort", "bool", "item", "boolean mask", "add_", "weights that vary in time"])
def test_is_refused_without_gradients_too(what, gradient):
    action, name = ALWAYS[what]
    with torch.no_grad(), pytest.raises(UnsupportedOperationError, match=f"^'{name}' has no rule across time"):
        try_under(gradient, action, "static")


@pytest.mark.parametrize("operator", ["x % 2", "x // 2", "~x", "x & 1", "abs(x)", "1 in x", "f'{x:.2f}'", "2**x"])
def test_operators_without_a_rule_are_type_errors(operator):
    with pytest.raises(TypeError):
        try_under("bptt", lambda x: eval(operator, {"x": x}), "static")


def test_a_stop_gradient_is_written_detach():
    """The way out that the refusal of no_grad names."""

    def forward(x):
        with torch.no_grad():
            frozen = x.detach() * 2
        return frozen

    network = Tries(forward)
    out = temporal(network, gradient="rate")(torch.randn(B, 2, 6, 6), timesteps=T)
    assert not out.requires_grad


def test_frozen_layers_run_without_gradients():
    """A frozen backbone on the input, which carries no graph, may run under no_grad."""

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Sequential(nn.Conv2d(2, 4, 3), LIF(threshold=0.2)), nn.Linear(64, 3)

        def forward(self, x):
            with torch.no_grad():
                features = self.backbone(x)
            return self.head(features.flatten(1))

    for gradient in ("bptt", "sltt", "rate"):
        network = Frozen()
        temporal(network, gradient=gradient)(torch.randn(B, 2, 6, 6), timesteps=T).sum().backward()
        assert network.head.weight.grad.norm() > 0
        assert network.backbone[0].weight.grad is None


class WeightGradient(torch.autograd.Function):
    """A linear layer of weights in signs, with the gradient of one in ones."""

    @staticmethod
    def forward(ctx, x, layer, weight):
        return layer(x) if weight is None else F.linear(x, weight.sign())

    @staticmethod
    def backward(ctx, grad):
        return None, None, torch.ones(4, 4)


class Stem(nn.Module):
    """Something with weights on the input, or behind a frozen layer, where the signal has no graph yet."""

    def __init__(self, action, frozen):
        super().__init__()
        self.before, self.fc, self.lif, self.head = (
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            LIF(threshold="learned"),
            nn.Linear(4, 2),
        )
        self.before.requires_grad_(False)
        self.action, self.frozen = action, frozen

    def forward(self, x):
        x = self.lif.requires_grad_(False)(self.before(x)) if self.frozen else x
        self.lif.requires_grad_(True)
        return self.head(self.action(self, x))


@torch.no_grad()
def computed_without_gradients(net, x):
    return net.lif(net.fc(x))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("frozen", [False, True], ids=["first", "behind a frozen layer"])
@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate", "chunk", "dsr", "step"])
@pytest.mark.parametrize(
    ("action", "name"),
    [
        (lambda net, x: WeightGradient.apply(x, None, net.fc.weight), "linear"),
        (lambda net, x: WeightGradient.apply(x, net.fc, None), "linear"),
        (lambda net, x: WeightGradient.apply(x, lambda x: net.fc(x), None), "linear"),
        (lambda net, x: WeightGradient.apply(x, net.lif, None), "LIF"),
        (lambda net, x: checkpoint(net.fc, x, use_reentrant=True), "linear"),
    ],
    ids=["its weight", "a layer", "a closure", "neurons", "a reentrant checkpoint"],
)
def test_a_function_that_would_lose_the_gradient_of_its_weights_is_refused(action, name, gradient, frozen):
    rule, options = ("rate", {"chunk": 2}) if gradient == "chunk" else (gradient, {})
    model = temporal(Stem(action, frozen), gradient="bptt" if rule == "step" else rule, **options)
    with pytest.raises(
        UnsupportedOperationError, match=f"^'{name}' has no rule .*weights would get no gradient.*reentrant"
    ):
        model.eval().step(torch.ones(B, 4)) if gradient == "step" else model(torch.ones(B, 4), T)


def test_where_no_gradient_of_weights_is_lost_nothing_is_refused():
    """A network switches gradients off itself; or they are off around it, also by a Function, where nobody trains inside."""
    x = torch.ones(B, 4)
    for action in (computed_without_gradients, lambda net, x: ReversedGradient.apply(x)):
        model = temporal(Stem(action, False))
        assert model(x, T).requires_grad

    class Around(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, model):
            model(x, T)
            with torch.enable_grad():
                return model(x, T).detach()

    Around.apply(x, temporal(Stem(computed_without_gradients, False)))


def hook(*given):
    raise AssertionError("a hook that is never called")


@pytest.mark.filterwarnings("ignore:For backward hooks to be called, module output should be a Tensor")
@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate", "dsr", "step"])
@pytest.mark.parametrize(
    "register", ["register_full_backward_hook", "register_full_backward_pre_hook", "register_backward_hook"]
)
@pytest.mark.parametrize(("place", "words"), [("1.0", r"module '1\.0'"), ("", "the network")])
def test_a_backward_hook_on_a_module_inside_is_refused(place, words, register, gradient):
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(LIF()))
    model = temporal(network, gradient="bptt" if gradient == "step" else gradient).eval()
    x = torch.ones(B, 4)

    def run():
        return model.step(x)[0] if gradient == "step" else model(x, T)

    handle = getattr(network.get_submodule(place), register)(hook)
    with pytest.raises(ValueError, match=rf"^{words} has a backward hook, .* temporal\(network\).*mean_rate"):
        run()
    if register != "register_backward_hook":
        with torch.no_grad():
            run()
    handle.remove()
    called = []
    model.register_full_backward_hook(lambda *given: called.append(1))
    x.requires_grad_()
    run().sum().backward()
    assert called == ([] if gradient == "step" else [1])


def test_unknown_attributes_are_ordinary_attribute_errors():
    with pytest.raises(AttributeError, match="a signal has no attribute 'colour'"):
        try_under("bptt", lambda x: x.colour, "static")


def test_mean_rate_is_the_way_out():
    def forward(x):
        return mean_rate(x).sort(1).values

    out = temporal(Tries(forward))(torch.randn(B, 2, 6, 6), timesteps=T)
    assert out.shape == (B, 4, 6, 6)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv2d(2, 3, 3), (T, B, 2, 6, 6), r"conv2d takes samples \[B, C, ...\] of 4 dimensions; this signal has"),
        (nn.MaxPool2d(2), (B, 6, 6), "max_pool2d takes samples"),
        (nn.AvgPool1d(2), (B, 2, 6, 6), "avg_pool1d takes samples"),
        (nn.LPPool2d(2, 2), (B, 6, 6), "lp_pool2d takes samples"),
    ],
)
def test_samples_of_other_dimensions_are_refused_where_time_would_be_misread(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        temporal(layer)(torch.zeros(*shape), timesteps=2)


def test_one_temporal_network_inside_another_is_refused():
    inner = temporal(nn.Sequential(nn.Linear(3, 4), LIF()))
    with pytest.raises(ValueError, match="a network from temporal\\(\\) is used inside another"):
        temporal(nn.Sequential(nn.Linear(3, 3), inner))(torch.zeros(B, 3), timesteps=2)


def test_an_error_inside_a_property_of_a_signal_is_not_taken_for_a_missing_attribute():
    class Strict(Unrolled):
        @property
        def is_cuda(self):
            self.refuse("is_cuda", "of this signal no device is known")

    signal = Strict(torch.zeros(T, B), Call(T))
    with pytest.raises(UnsupportedOperationError, match=r"'is_cuda' has no rule .*: of this signal no device is known"):
        _ = signal.is_cuda
    with pytest.raises(AttributeError, match="a signal has no attribute 'nothing'"):
        _ = signal.nothing
