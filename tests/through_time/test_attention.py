"""Spiking self-attention in sixteen forms, against a plain network that sees one timestep at a time."""

import pytest
import torch
import torch.nn.functional as F
from plain_lif import plain_lif
from torch import nn

from spikedistill import LIF, temporal

f64 = torch.float64
T, B, N, D, HEADS = 3, 2, 5, 8, 2


def split(x):
    """`[B, N, D] -> [B, heads, N, D / heads]`."""
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(1, 2)


def join(x):
    return x.transpose(1, 2).flatten(2)


# name -> what becomes of queries, keys and values [B, N, D]
FORMS = {
    "q @ k.T @ v": lambda q, k, v: q @ k.transpose(1, 2) @ v,
    "q @ (k.T @ v)": lambda q, k, v: q @ (k.transpose(-2, -1) @ v),
    "scaled": lambda q, k, v: (q @ k.transpose(-2, -1)) * 0.125 @ v,
    "divided": lambda q, k, v: torch.matmul(torch.matmul(q, k.transpose(1, 2)) / D**0.5, v),
    "softmax": lambda q, k, v: (q @ k.transpose(1, 2) / 2).softmax(-1) @ v,
    "F.softmax": lambda q, k, v: F.softmax(q @ k.transpose(1, 2), dim=-1) @ v,
    "heads": lambda q, k, v: join(split(q) @ split(k).transpose(-2, -1) @ split(v)),
    "heads, softmax": lambda q, k, v: join((split(q) @ split(k).transpose(-2, -1)).softmax(-1) @ split(v)),
    "einsum": lambda q, k, v: torch.einsum("bnm,bmd->bnd", torch.einsum("bnd,bmd->bnm", q, k), v),
    "heads by einsum": lambda q, k, v: join(
        torch.einsum("bhnm,bhmd->bhnd", torch.einsum("bhnd,bhmd->bhnm", split(q), split(k)), split(v))
    ),
    "bmm": lambda q, k, v: torch.bmm(torch.bmm(q, k.permute(0, 2, 1)), v),
    "channels": lambda q, k, v: (q.transpose(1, 2) @ k @ v.transpose(1, 2)).transpose(1, 2),
    "masked": lambda q, k, v: (q @ k.transpose(1, 2) * torch.ones(N, N, dtype=f64).tril()) @ v,
    "a mask that is added": lambda q, k, v: (
        (q @ k.transpose(1, 2) + torch.full((N, N), -1e3, dtype=f64).triu(1)).softmax(-1) @ v
    ),
    "token gates": lambda q, k, v: (q * k).sum(-1, keepdim=True) * v,
    "spikes of the gates": lambda q, k, v: q.sum(1, keepdim=True) * k + v,
}
NORMS = {
    "batch-norm on transposes": lambda: nn.BatchNorm1d(D),
    "layer-norm": lambda: nn.LayerNorm(D),
}


class Attention(nn.Module):
    """Attention on spikes, with neurons behind it and a residual."""

    def __init__(self, form, norm):
        super().__init__()
        self.form = form
        self.q, self.k, self.v, self.out = (nn.Linear(D, D) for _ in range(4))
        self.norms = nn.ModuleList(NORMS[norm]() for _ in range(4))
        self.neurons = nn.ModuleList(LIF(threshold=0.2) for _ in range(5))

    def normed(self, i, x):
        norm = self.norms[i]
        return norm(x.transpose(1, 2)).transpose(1, 2) if isinstance(norm, nn.BatchNorm1d) else norm(x)

    def forward(self, x):
        q, k, v = (self.neurons[i](self.normed(i, f(x))) for i, f in enumerate((self.q, self.k, self.v)))
        mixed = self.neurons[3](self.form(q, k, v))
        return self.neurons[4](self.normed(3, self.out(mixed)) + x)


class Plain(Attention):
    """The same on `[T, B, N, D]`, with every function called for each timestep and batch-norm over all."""

    def each(self, call, *values):
        return torch.stack([call(*parts) for parts in zip(*values, strict=True)])

    def normed(self, i, x):
        norm = self.norms[i]
        if isinstance(norm, nn.LayerNorm):
            return self.each(norm, x)
        return norm(x.flatten(0, 1).transpose(1, 2)).transpose(1, 2).unflatten(0, (T, B))

    def forward(self, x):
        q, k, v = (
            plain_lif(self.normed(i, self.each(f, x)), threshold=0.2) for i, f in enumerate((self.q, self.k, self.v))
        )
        mixed = plain_lif(self.each(self.form, q, k, v), threshold=0.2)
        return plain_lif(self.normed(3, self.each(self.out, mixed)) + x, threshold=0.2)


def run(network, call, x):
    x = x.clone().requires_grad_()
    out = call(x)
    (out * torch.linspace(-2, 3, out.numel(), dtype=f64).cos().view(out.shape)).sum().backward()
    return out.detach(), [x.grad, *(p.grad for p in network.parameters())]


def assert_same(ours, plain):
    torch.testing.assert_close(ours[0], plain[0], rtol=0, atol=1e-12)
    for gradient, expected in zip(ours[1], plain[1], strict=True):
        if expected is None:
            assert gradient is None or gradient.eq(0).all()
        else:
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["static", "events"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", FORMS)
def test_attention_is_what_a_plain_loop_computes(name, norm, kind):
    torch.manual_seed(0)
    network = Attention(FORMS[name], norm).to(f64)
    plain = Plain(FORMS[name], norm).to(f64)
    plain.load_state_dict(network.state_dict())
    x = torch.randn(B, N, D, dtype=f64) if kind == "static" else torch.randn(T, B, N, D, dtype=f64)
    ours = run(network, lambda x: temporal(network)(x, T if kind == "static" else None), x)
    expected = run(plain, lambda x: plain(x.expand(T, B, N, D)), x)
    assert 0.01 < expected[0].mean() < 0.99
    assert_same(ours, expected)
    state = None
    with torch.no_grad():
        whole = temporal(network.eval())(x, T if kind == "static" else None)
        for t in range(T):
            y, state = temporal(network).step(x if kind == "static" else x[t], state)
            torch.testing.assert_close(y, whole[t], rtol=0, atol=1e-12)
