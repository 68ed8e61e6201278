"""Every function of the allow-list, one by one, against the same call on each timestep's plain tensor."""

import pytest
import torch
import torch.nn.functional as F
from temporal_runs import make_input
from torch import nn
from zoo import PATTERNS

from spikedistill import temporal
from spikedistill.through_time import UnsupportedOperationError
from spikedistill.through_time.call import Call
from spikedistill.through_time.operations import LAYERS, NONLINEAR, PER_TIMESTEP
from spikedistill.through_time.rates import Rates, segment_means
from spikedistill.through_time.signal import Signal
from spikedistill.through_time.unrolled import Unrolled

f64 = torch.float64
T, B, LENGTHS = 4, 2, (1, 3)
CALL = Call(T)
W = torch.linspace(-1, 2, 6, dtype=f64)

# name in the allow-list -> calls that go by that name, as functions of a value [2, 4, 6, 6] and of another one
CALLS = {
    "__getitem__": [
        lambda x, y: x[-1],
        lambda x, y: x[..., -1],
        lambda x, y: x[None],
        lambda x, y: x[:, :, ::2],
        lambda x, y: x[[1, 0], [2, 3]],
        lambda x, y: x[:, 1:, ..., [0, 2]],
        lambda x, y: x[1],
        lambda x, y: x[:, None, torch.tensor([2, 0])],
    ],
    "bfloat16": [lambda x, y: x.bfloat16().double()],
    "cat": [
        lambda x, y: torch.cat([x, y], -1),
        lambda x, y: torch.cat([x, y]),
        lambda x, y: torch.cat([x, y, y], dim=1),
        lambda x, y: torch.cat((x, torch.ones(2, 1, 6, 6, dtype=f64)), 1),
    ],
    "concat": [lambda x, y: torch.concat([x, y], 2)],
    "concatenate": [lambda x, y: torch.concatenate([y, x], 1)],
    "channel_shuffle": [lambda x, y: F.channel_shuffle(x, 2)],
    "chunk": [lambda x, y: x.chunk(3, -1), lambda x, y: x.chunk(2, 1), lambda x, y: torch.chunk(x, 4, dim=2)],
    "clone": [lambda x, y: x.clone(), lambda x, y: torch.clone(x)],
    "contiguous": [lambda x, y: x.transpose(1, 2).contiguous()],
    "detach": [lambda x, y: x.detach() + y],
    "double": [lambda x, y: x.double()],
    "expand": [lambda x, y: x[:, :1].expand(-1, 5, -1, -1)],
    "expand_as": [lambda x, y: x[:, :, :1].expand_as(y)],
    "flatten": [
        lambda x, y: x.flatten(-2),
        lambda x, y: x.flatten(),
        lambda x, y: x.flatten(1),
        lambda x, y: torch.flatten(x, start_dim=2),
    ],
    "flip": [lambda x, y: x.flip(-1), lambda x, y: x.flip(1, 3)],
    "float": [lambda x, y: x.float().double()],
    "fold": [lambda x, y: F.fold(x.flatten(2), (7, 7), kernel_size=2)],
    "half": [lambda x, y: x.half().double()],
    "index_select": [lambda x, y: torch.index_select(x, 1, torch.tensor([3, 3, 0]))],
    "mean": [
        lambda x, y: x.mean(-1),
        lambda x, y: x.mean(0),
        lambda x, y: x.mean((2, 3)),
        lambda x, y: torch.mean(x, 1, keepdim=True),
        lambda x, y: x.mean(),
    ],
    "movedim": [lambda x, y: x.movedim(1, -1)],
    "narrow": [lambda x, y: x.narrow(-1, 2, 3), lambda x, y: x.narrow(1, 1, 2)],
    "neg": [lambda x, y: torch.neg(x)],
    "__neg__": [lambda x, y: -x],
    "pad": [
        lambda x, y: F.pad(x, (1, 2, 0, 1)),
        lambda x, y: F.pad(x, (1, 0, 2, 1), value=0.3),
        lambda x, y: F.pad(x, (1, 1, 2, 0), mode="reflect"),
        lambda x, y: F.pad(x, (1, 1, 2, 0), mode="replicate"),
        lambda x, y: F.pad(x, (1, 1, 2, 0), mode="circular"),
    ],
    "permute": [
        lambda x, y: x.permute(-1, 0, 1, 2),
        lambda x, y: torch.permute(x, (3, 1, 0, 2)),
        lambda x, y: x.permute(0, 2, 3, 1),
    ],
    "pixel_shuffle": [lambda x, y: F.pixel_shuffle(x, 2)],
    "pixel_unshuffle": [lambda x, y: F.pixel_unshuffle(x, 3)],
    "repeat": [lambda x, y: x.repeat(1, 2, 1, 1)],
    "reshape": [lambda x, y: x.reshape(x.shape[0], -1), lambda x, y: torch.reshape(x, (8, 36))],
    "reshape_as": [lambda x, y: x.flatten(1).reshape_as(y)],
    "roll": [lambda x, y: x.roll(5), lambda x, y: x.roll((1, 2), (-1, -2)), lambda x, y: x.roll(2, 3)],
    "select": [lambda x, y: x.select(-1, 0), lambda x, y: x.select(0, 1), lambda x, y: x.select(1, 2)],
    "split": [lambda x, y: x.split([4, 2], -1), lambda x, y: x.split(3, dim=1), lambda x, y: torch.split(x, [1, 3], 1)],
    "squeeze": [lambda x, y: x[:1, :, :1].squeeze(), lambda x, y: x[..., :1].squeeze(-1), lambda x, y: x[:, :1].squeeze(1)],
    "stack": [
        lambda x, y: torch.stack([x, y], -1),
        lambda x, y: torch.stack([x, y]),
        lambda x, y: torch.stack([x, y], dim=2),
    ],
    "sum": [
        lambda x, y: x.sum(),
        lambda x, y: x.sum(-2),
        lambda x, y: x.sum((1, 2)),
        lambda x, y: torch.sum(x, dim=1, keepdim=True),
    ],
    "swapaxes": [lambda x, y: x.swapaxes(1, 2)],
    "tile": [lambda x, y: x.tile(1, 2, 1, 1)],
    "to": [lambda x, y: x.to(torch.float32).to(y.dtype), lambda x, y: x.to("cpu")],
    "transpose": [lambda x, y: x.transpose(-2, -1), lambda x, y: x.transpose(0, 1), lambda x, y: x.transpose(1, 3)],
    "type_as": [lambda x, y: x.type_as(y)],
    "unbind": [lambda x, y: x.unbind(), lambda x, y: x.unbind(-1), lambda x, y: x.unbind(1)],
    "unflatten": [lambda x, y: x.unflatten(-1, (3, 2)), lambda x, y: x.unflatten(1, (2, 2))],
    "unfold": [lambda x, y: F.unfold(x, 3, padding=1), lambda x, y: x.unfold(2, 3, 2)],
    "unsqueeze": [lambda x, y: x.unsqueeze(0), lambda x, y: x.unsqueeze(-1)],
    "view": [lambda x, y: x.view(-1), lambda x, y: x.view(2, 2, 2, 6, 6), lambda x, y: x.view(x.size(0), -1)],
    "view_as": [lambda x, y: x.flatten(1).view_as(y)],
    "__add__": [lambda x, y: x + y, lambda x, y: x + 1, lambda x, y: x + W],
    "__radd__": [lambda x, y: 1 + x],
    "__sub__": [lambda x, y: x - y],
    "__rsub__": [lambda x, y: 1 - x],
    "add": [lambda x, y: torch.add(x, y, alpha=2), lambda x, y: W + x],
    "sub": [lambda x, y: x.sub(y), lambda x, y: W - x],
    "__mul__": [lambda x, y: x * 3, lambda x, y: x * W],
    "__rmul__": [lambda x, y: 0.5 * x],
    "mul": [lambda x, y: torch.mul(x, W), lambda x, y: W * x],
    "__matmul__": [lambda x, y: x @ W.diag(), lambda x, y: x @ W],
    "matmul": [lambda x, y: torch.matmul(W.expand(3, 6), x)],
    "bmm": [lambda x, y: torch.bmm(x.flatten(2), torch.ones(2, 36, 3, dtype=f64))],
    "einsum": [lambda x, y: torch.einsum("...w,w->...", x, W), lambda x, y: torch.einsum("bchw,w->bch", x, W)],
    "__truediv__": [lambda x, y: x / 3, lambda x, y: x / (W + 3)],
    "div": [lambda x, y: torch.div(x, W + 3)],
    "__pow__": [lambda x, y: x**2],
    "pow": [lambda x, y: torch.pow(x, 3)],
    "__rtruediv__": [lambda x, y: 2 / (x * x + 1)],
    "abs": [lambda x, y: x.abs()],
    "amax": [lambda x, y: x.amax((2, 3))],
    "amin": [lambda x, y: torch.amin(x, 1)],
    "celu": [lambda x, y: F.celu(x)],
    "clamp": [lambda x, y: x.clamp(-0.5, 0.5)],
    "elu": [lambda x, y: F.elu(x), nn.ELU(inplace=True)],
    "exp": [lambda x, y: x.exp()],
    "gelu": [lambda x, y: F.gelu(x)],
    "glu": [lambda x, y: F.glu(x, 1)],
    "hardshrink": [lambda x, y: F.hardshrink(x)],
    "hardsigmoid": [lambda x, y: F.hardsigmoid(x)],
    "hardswish": [lambda x, y: F.hardswish(x)],
    "hardtanh": [lambda x, y: F.hardtanh(x)],
    "leaky_relu": [lambda x, y: F.leaky_relu(x)],
    "log_sigmoid": [lambda x, y: F.logsigmoid(x)],
    "log_softmax": [lambda x, y: F.log_softmax(x, 1)],
    "maximum": [lambda x, y: torch.maximum(x, y)],
    "minimum": [lambda x, y: torch.minimum(x, y)],
    "mish": [lambda x, y: F.mish(x)],
    "normalize": [lambda x, y: F.normalize(x)],
    "prelu": [lambda x, y: F.prelu(x, W[:4])],
    "relu": [lambda x, y: F.relu(x), lambda x, y: x.relu(), nn.ReLU(inplace=True)],
    "relu6": [lambda x, y: F.relu6(x)],
    "selu": [lambda x, y: F.selu(x)],
    "sigmoid": [lambda x, y: torch.sigmoid(x)],
    "silu": [lambda x, y: F.silu(x)],
    "softmax": [lambda x, y: x.softmax(-1), lambda x, y: x.softmax(1)],
    "softmin": [lambda x, y: F.softmin(x, dim=1)],
    "softplus": [lambda x, y: F.softplus(x)],
    "softshrink": [lambda x, y: F.softshrink(x)],
    "softsign": [lambda x, y: F.softsign(x)],
    "sqrt": [lambda x, y: (x * x + 1).sqrt()],
    "square": [lambda x, y: x.square()],
    "tanh": [lambda x, y: x.tanh()],
    "tanhshrink": [lambda x, y: F.tanhshrink(x)],
    # a layer, but one of many forms
    "interpolate": [
        lambda x, y: F.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x, y: F.interpolate(x, size=(4, 9), mode="nearest-exact"),
        lambda x, y: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x, y: F.interpolate(x, size=(7, 3), mode="bilinear", align_corners=True),
        lambda x, y: F.interpolate(x, scale_factor=2, mode="bicubic"),
        lambda x, y: F.interpolate(x, size=3, mode="area"),
        lambda x, y: F.interpolate(x.flatten(2), size=20, mode="linear"),
        lambda x, y: F.interpolate(x.unsqueeze(2), size=(2, 5, 4), mode="trilinear"),
    ],
}  # fmt: skip
EACH = [pytest.param(name, i, id=f"{name}-{i}") for name in CALLS for i in range(len(CALLS[name]))]


def call_of(name, i):
    call = CALLS[name][i]
    return (lambda x, y: call(x)) if isinstance(call, nn.Module) else call


@pytest.fixture
def names_seen(monkeypatch):
    """The names under which functions were dispatched."""
    seen = set()
    original = Signal._call

    def spy(name, func, args, kwargs):
        seen.add(name)
        return original(name, func, args, kwargs)

    monkeypatch.setattr(Signal, "_call", staticmethod(spy))
    return seen


def values(seed, leading=T):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(leading, B, 4, 6, 6, generator=generator, dtype=f64).requires_grad_()


def as_tuple(out):
    return tuple(out) if isinstance(out, (tuple, list)) else (out,)


def weighted(outs):
    """A number that depends on every element of every output, differently."""
    return sum((out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).cos().view(out.shape)).sum() for out in outs)


def rates(v):
    return Rates(v.detach(), segment_means(v, LENGTHS), LENGTHS, CALL)


def constant(v):
    return Rates.constant(v, LENGTHS, CALL)


def test_the_calls_below_cover_the_allow_list():
    assert set(CALLS) == PER_TIMESTEP | {"interpolate"}


@pytest.mark.parametrize("second", ["varying", "constant"])
@pytest.mark.parametrize(("name", "i"), EACH)
def test_unrolled_calls_every_timestep(name, i, second, names_seen):
    call = call_of(name, i)
    x, y = values(0), values(1, T if second == "varying" else 1)
    ours = [out.over_time() for out in as_tuple(call(Unrolled(x, CALL), Unrolled(y, CALL)))]
    assert name in names_seen
    steps = [as_tuple(call(x[t].clone(), y[t % len(y)].clone())) for t in range(T)]
    plain = [torch.stack(parts) for parts in zip(*steps, strict=True)]
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(weighted(outs), (x, y), allow_unused=True) for outs in (ours, plain)]
    for a, b in zip(*gradients, strict=True):
        assert (a is None or a.eq(0).all()) if b is None else torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("second", ["varying", "constant"])
@pytest.mark.parametrize(("name", "i"), [p for p in EACH if p.values[0] not in NONLINEAR])
def test_rate_calls_the_spikes_and_the_means(name, i, second, names_seen):
    """The mean of the outputs is the output of the mean, in value and gradient, and each timestep's value is exact."""
    call = call_of(name, i)
    x, y = values(0), values(1, T if second == "varying" else 1)

    def rate(v):
        return rates(v) if len(v) == T else constant(v)

    outs = as_tuple(call(rate(x), rate(y)))
    assert name in names_seen
    steps = [as_tuple(call(x[t].clone(), y[t % len(y)].clone())) for t in range(T)]
    plain = [torch.stack(parts) for parts in zip(*steps, strict=True)]
    assert len(outs) == len(plain)
    rounding = {"half": 2e-3, "bfloat16": 2e-2, "float": 1e-6, "to": 1e-6}.get(name, 1e-12)
    for out, b in zip(outs, plain, strict=True):
        torch.testing.assert_close(out.over_time(), b, rtol=0, atol=1e-12)
        torch.testing.assert_close(out.mean_over_time(), b.mean(0), rtol=0, atol=rounding)
    gradients = [
        torch.autograd.grad(weighted(outs), (x, y), allow_unused=True)
        for outs in ([out.mean_over_time() for out in outs], [b.mean(0) for b in plain])
    ]
    for a, b in zip(*gradients, strict=True):
        assert (a is None or a.eq(0).all()) if b is None else torch.allclose(a, b, rtol=0, atol=rounding)


@pytest.mark.parametrize(("name", "i"), [p for p in EACH if p.values[0] in NONLINEAR])
def test_rate_refuses_what_is_not_linear_and_computes_it_on_what_is_constant(name, i):
    call = call_of(name, i)
    x, y = values(0), values(1)
    with pytest.raises(UnsupportedOperationError, match="not linear in time"):
        call(*[rates(v) for v in (x, y)])
    x, y = values(0, 1), values(1, 1)
    (ours,) = as_tuple(call(constant(x), constant(y)))
    plain = call(x[0].clone(), y[0].clone())
    assert ours.over_time().shape == (T, *plain.shape)
    torch.testing.assert_close(ours.over_time()[2], plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(weighted([ours.mean_over_time()]), x)[0],
        torch.autograd.grad(weighted([plain]), x)[0],
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_the_zoo_uses_every_layer_that_has_a_rule(names_seen):
    for name, pattern in PATTERNS.items():
        temporal(pattern.build().to(f64))(make_input(name, "static"), timesteps=2)
    assert set(LAYERS) - names_seen == {"embedding"}  # whose input are integers


@pytest.mark.parametrize("kind", ["unrolled", "rate"])
def test_a_signal_looks_like_a_batch(kind):
    v = values(0)
    x = Unrolled(v, CALL) if kind == "unrolled" else rates(v)
    assert x.shape == x.size() == (B, 4, 6, 6)
    assert (x.size(1), x.size(-1), x.ndim, x.dim()) == (4, 6, 4, 4)
    assert (x.dtype, x.device.type, x.is_cuda) == (f64, "cpu", False)
    assert x.is_floating_point()
    assert x.requires_grad
    assert repr(x) == f"{type(x).__name__}(timesteps=4, shape=[2, 4, 6, 6])"
    assert len({x: 1, x.clone(): 2}) == 2


def test_numpy_scalars_scale_a_signal():
    import numpy as np

    x = Unrolled(values(0), CALL)
    assert torch.equal((np.float64(2) * x).over_time(), 2 * x.over_time())


def test_in_place_operators_change_every_name_of_a_signal():
    for kind in (lambda v: Unrolled(v, CALL), lambda v: rates(v)):
        v = values(0)
        x = same = kind(v)
        x += 1
        x *= 2
        x -= W
        x /= 4
        assert x is same
        torch.testing.assert_close(same.over_time(), ((v + 1) * 2 - W) / 4, rtol=0, atol=1e-12)
