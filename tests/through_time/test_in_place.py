"""Operations in place, on signals and their views: the values of PyTorch in a plain loop over timesteps, or a refusal."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from test_operations import CALLS, call_of
from torch import nn

from spikedistill import UserError, mean_rate, temporal
from spikedistill.through_time import UnsupportedOperationError
from spikedistill.through_time.operations import DROPOUTS, VIEWS

f64 = torch.float64
T, B = 3, 2
REFUSED = "refused"


def then(*statements):
    """A function of x [2, 4, 6] and y of that shape that runs statements and returns x and what else they name z."""
    code = "\n".join(statements)

    def call(x, y):
        names = {"x": x, "y": y, "torch": torch, "nn": nn, "F": F}
        exec(code, names)
        return [names["x"], *([names["z"]] if "z" in names else [])]

    return pytest.param(call, id="; ".join(statements))


RIGHT = [
    then("z = x", "x += y"),
    then("z = x", "x -= 2", "z *= y", "x /= 3"),
    then("z = x", "x **= 2"),
    then("z = x", "x = x ** 2"),
    then("z = x + 0", "z += y"),
    then("z = x", "F.relu(x, inplace=True)"),
    then("z = nn.ReLU(inplace=True)(x)", "z += 1"),
    then("z = nn.Hardtanh(inplace=True)(x) + y", "z += x"),
    then("z = torch.cat([x, y], 1)", "z *= 2"),
    then("z = x.clone()", "z += y"),
    then("z = nn.Dropout(0.5).eval()(x)", "z += y"),
    then("z = nn.Dropout(0.0)(x)", "z += y"),
    then("z = nn.Dropout(0.5, inplace=True).eval()(x)", "z += y"),
    then("z = torch.stack([x, y]).sum(0)", "z -= x"),
    then("x += 1", "z = x[:, :2] + 0", "z += 1"),
    then("z = x", "x += y.float()"),
    then("z = x.float() + 0", "z += y"),
    then("z = x + torch.ones(6, dtype=x.dtype)", "z += x", "x *= 2"),
    then("z = x.reshape(2, 24)", "z = z + 1"),
]

WRONG = [
    then("x[:, :2] += 1"),
    then("x[:, :2] = 1"),
    then("x[...] = y"),
    then("x[0] = 0"),
    then("x[:, 0].mul_(2)"),
    then("x.add_(y)"),
    then("x.copy_(y)"),
    then("x.zero_()"),
    then("x.clamp_(0, 1)"),
    then("torch.relu_(x)"),
    then("x.masked_fill_(y > 0, 0)"),
    then("z = x.view(2, 24)", "z += 1"),
    then("z = x.reshape(2, 24)", "z += 1"),
    then("z = x.view(2, 24)", "x += 1"),
    then("a, z = x.chunk(2, 1)", "a += z"),
    then("a, z = x.split(2, 1)", "z += a"),
    then("a, z = x.split(2, 1)", "x += 1"),
    then("z = x.transpose(1, 2)", "z *= 2"),
    then("z = x.permute(0, 2, 1)", "z *= 2"),
    then("z = x.narrow(1, 0, 2)", "z -= 1"),
    then("z = x.squeeze(1)", "z += y"),
    then("z = x.unsqueeze(1)", "z += 1"),
    then("z = x.flatten(1)", "z /= 2"),
    then("z = x.unflatten(1, (2, 2))", "z /= 2"),
    then("z = x.expand(2, 4, 6)", "z **= 2"),
    then("z = x.select(1, 0)", "z += 1"),
    then("z = x.unbind(1)[0]", "z += 1"),
    then("z = x.movedim(1, 2)", "z += 1"),
    then("z = x.unfold(2, 2, 2)", "z += 1"),
    then("z = x.contiguous()", "z += 1"),
    then("z = x.double()", "z += 1"),
    then("z = x.to(torch.float64)", "z += 1"),
    then("z = x.type_as(y)", "z += 1"),
    then("z = x.detach()", "z += 1"),
    then("z = torch.einsum('bij->bji', x)", "z += 1"),
    then("z = nn.Flatten()(x)", "nn.ReLU(inplace=True)(z)"),
    then("z = nn.ReLU(inplace=True)(x[:, :2])"),
    then("z = nn.Dropout(0.5, inplace=True)(x.view(2, 24))"),
    then("torch.add(x, y, out=x)"),
    then("torch.mul(x, 2, out=y)"),
    then("z = x[:, :, :1] + 0", "z += x"),
    then("z = torch.ones(2, 4, 6, dtype=x.dtype)", "z.add_(x)"),
    then("z = torch.ones(2, 4, 6, dtype=x.dtype)", "z[:, 0] = x[:, 0]"),
    then("z = torch.ones(2, 4, 6, dtype=x.dtype)", "z[:] = x"),
    then("z = torch.ones(2, 4, 6, dtype=x.dtype)", "z += x"),
    then("z = torch.ones(2, 4, 6, dtype=x.dtype)", "z /= x"),
    then("z = torch.ones(2, 4, 6, dtype=x.dtype)", "z **= x"),
    then("z = x.to(torch.int64)", "z += 0.5"),
    then("z = x.to(torch.int64) + 0", "z += 0.5"),
]


class Does(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x + 0, x * 0.7 - 0.1)


def sequences(kind):
    torch.manual_seed(0)
    x = torch.randn(T, B, 4, 6, dtype=f64)
    return x[:1].expand(T, B, 4, 6) if kind == "static" else x


def ours(model, xs, kind):
    return model(xs[0], T) if kind == "static" else model(xs)


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("call", RIGHT)
def test_it_is_what_a_plain_loop_computes(call, kind):
    network, xs = Does(call), sequences(kind)
    expected = [torch.stack(parts) for parts in zip(*[network(x) for x in xs], strict=True)]
    for model in (temporal(network), temporal(network, gradient="sltt")):
        for out, plain in zip(ours(model, xs, kind), expected, strict=True):
            torch.testing.assert_close(out, plain, rtol=0, atol=1e-12)
    stepped = [temporal(network.eval()).step(x)[0] for x in xs]
    for out, plain in zip(zip(*stepped, strict=True), expected, strict=True):
        torch.testing.assert_close(torch.stack(out), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
@pytest.mark.parametrize("call", WRONG)
def test_what_would_change_another_tensor_too_is_refused(call, gradient):
    model = temporal(Does(call), gradient=gradient)
    xs = sequences("events")
    for run in (lambda: model(xs), lambda: model(xs[0], T), lambda: model.eval().step(xs[0])):
        with pytest.raises(
            (UnsupportedOperationError, UserError), match=r"has no rule across time|into a tensor, which has no"
        ):
            run()


def test_every_function_that_may_return_a_view_is_known():
    """Of the allow-list's calls, those whose result is in the memory of an input, other than the input changed in place."""
    for name, calls in CALLS.items():
        for call in map(partial(call_of, name), range(len(calls))):
            x, y = torch.randn(2, 4, 6, 6, dtype=f64), torch.randn(2, 4, 6, 6, dtype=f64)
            outs = call(x, y)
            for out in outs if isinstance(outs, (tuple, list)) else (outs,):
                if out is not x and out.untyped_storage().data_ptr() in {
                    t.untyped_storage().data_ptr() for t in (x, y)
                }:
                    assert name in VIEWS, name
    x = torch.randn(2, 4, 6)
    for name in DROPOUTS:
        dropout = getattr(F, name)
        part = x.view(2, 4, 6, 1, 1) if name.endswith("3d") else x.unsqueeze(-1) if name.endswith("2d") else x
        assert dropout(part, 0.5, False).data_ptr() == part.data_ptr()


def test_the_refusal_says_what_to_write():
    with pytest.raises(UnsupportedOperationError, match=r"write it out of place, as y = y [+] z"):
        temporal(Does(lambda x, y: x.view(B, 24).__iadd__(1)))(sequences("events"))
    with pytest.raises(UnsupportedOperationError, match=r"'add_' .*in place; write x = x\.add"):
        temporal(Does(lambda x, y: x.add_(y)))(sequences("events"))
    with pytest.raises(UnsupportedOperationError, match=r"'__setitem__' .*torch.cat"):
        temporal(Does(lambda x, y: x.__setitem__(0, y)))(sequences("events"))


def test_a_rate_that_is_changed_in_place_leaves_the_signal_as_it_is():
    def call(x, y):
        mean_rate(x).mul_(0)
        return x

    x = sequences("static")[0]
    for gradient in ("bptt", "rate"):
        model = temporal(Does(call), gradient=gradient)
        assert torch.equal(model(x, T)[0], x)
    assert torch.equal(model.eval().step(x)[0], x)
