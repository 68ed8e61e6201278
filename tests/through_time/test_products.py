"""Products of two signals that both vary, under rules of mean rates: exact values, and what their gradient leaves out.

A segment's mean of a product is mean(a) mean(b) + cov(a, b). The gradient leaves the covariance out. The references below are plain
sums over tensors [T, B, ...] in float64.
"""

import pytest
import torch
from torch import nn

from spikedistill import LIF, create_model, temporal
from spikedistill.objectives import sce

f64 = torch.float64
T, B, N = 6, 3, 4
# name -> a product of values [..., N, N], linear in each
FORMS = {
    "elements": lambda a, b: a * b,
    "matrices": lambda a, b: a @ b,
    "matrices, transposed": lambda a, b: torch.matmul(a, b.transpose(-2, -1)),
    "einsum": lambda a, b: torch.einsum("...ij,...kj->...ik", a, b),
    "batches of matrices": torch.bmm,
    "a gate": lambda a, b: a * b.sum(-1, keepdim=True),
}
WEIGHTS = torch.tensor([0.5 ** (T - t) for t in range(1, T + 1)], dtype=f64)
RULES = {
    "rate": ({"gradient": "rate"}, [torch.full((T,), 1 / T, dtype=f64)]),
    "rate in 2 and 4": (
        {"gradient": "rate", "segments": (2, 4)},
        [torch.tensor([0.5] * 2 + [0.0] * 4, dtype=f64), torch.tensor([0.0] * 2 + [0.25] * 4, dtype=f64)],
    ),
    "rate in chunks": ({"gradient": "rate", "chunk": 4}, [torch.full((T,), 1 / T, dtype=f64)]),
    "dsr": ({"gradient": "dsr"}, [WEIGHTS / WEIGHTS.sum()]),
}


class Scaled(nn.Module):
    """A product of two halves of the input, each scaled by a weight."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.one, self.other = (nn.Parameter(torch.randn(N, N, dtype=f64)) for _ in range(2))
        self.silent = LIF(decay=0.5)  # gives "dsr" the decay of its weights

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        return self.form((a * self.one).flatten(0, 1), (b * self.other).flatten(0, 1))


def run(network, call, x):
    network.zero_grad()
    out = call(x)
    probe = torch.linspace(-2, 3, out[0].numel(), dtype=f64).cos().view(out[0].shape)
    (out * probe).sum().backward()
    return out.detach(), [network.one.grad, network.other.grad], probe


def plain(network, x):
    """`[T, B, 2, N, N] -> [T, B, N, N]`, one timestep after another."""
    return torch.stack([network(step) for step in x])


def gap_of_rates(network, x, probe, weights):
    """What the gradient of all outputs leaves out: T times, in each segment, the covariance of one factor with the other's change.

    The factors are scale times x. Under the mean of a segment, d(mean product) = cov(dx, b) more than the product of means.
    """
    found = [torch.zeros(N, N, dtype=f64) for _ in range(2)]
    scales = [network.one.detach().requires_grad_(), network.other.detach().requires_grad_()]
    parts = x.chunk(2, dim=2)
    for weight in weights:
        share = weight.view(-1, 1, 1, 1, 1)
        centred = [part - (share * part).sum(0) for part in parts]
        a, b = ((part * scale).squeeze(2) for part, scale in zip(centred, scales, strict=True))
        covariance = sum(w * network.form(one, other) for w, one, other in zip(weight, a, b, strict=True))
        count = int((weight > 0).sum())
        grads = torch.autograd.grad((count * covariance * probe).sum(), scales, allow_unused=True)
        found = [total + grad for total, grad in zip(found, grads, strict=True)]
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_values_are_exact_and_the_gradient_leaves_out_the_covariance_over_time(form, rule):
    torch.manual_seed(0)
    network, (options, weights) = Scaled(FORMS[form]), RULES[rule]
    x = torch.randn(T, B, 2, N, N, dtype=f64)
    ours, gradients, probe = run(network, temporal(network, **options), x)
    exact, of_values, _ = run(network, lambda x: plain(network, x), x)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-12)
    if rule == "dsr":  # all timesteps stand for the weighted mean
        of_values = [
            torch.autograd.grad((T * torch.einsum("t,t...->...", weights[0], plain(network, x)) * probe).sum(), p)[0]
            for p in (network.one, network.other)
        ]
    for gradient, of_all, gap in zip(gradients, of_values, gap_of_rates(network, x, probe, weights), strict=True):
        assert gap.norm() > 0.1 * of_all.norm(), "a case in which little is left out shows nothing"
        torch.testing.assert_close(gradient, of_all - gap, rtol=0, atol=1e-10)


@pytest.mark.parametrize("constant", ["one", "other", "both"])
@pytest.mark.parametrize("rule", ["rate", "rate in 2 and 4", "rate in chunks"])
@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_that_of_bptt_where_one_factor_is_constant_over_time(form, rule, constant):
    torch.manual_seed(0)
    network = Scaled(FORMS[form])
    x = torch.randn(T, B, 2, N, N, dtype=f64)
    for place, name in enumerate(("one", "other")):
        if constant in (name, "both"):
            x[:, :, place] = x[0, :, place].clone()
    ours, expected = (run(network, temporal(network, **options), x) for options in (RULES[rule][0], {}))
    torch.testing.assert_close(ours[0], expected[0], rtol=0, atol=1e-12)
    for gradient, of_bptt in zip(ours[1], expected[1], strict=True):
        torch.testing.assert_close(gradient, of_bptt, rtol=0, atol=1e-10)


def test_what_is_left_out_is_at_most_the_product_of_the_standard_deviations():
    torch.manual_seed(0)
    for scale in (0.0, 0.1, 1.0):
        a = torch.rand(T, 500, dtype=f64)
        b = 0.3 + scale * torch.rand(T, 500, dtype=f64)

        class Gated(nn.Module):
            def __init__(self):
                super().__init__()
                self.gain = nn.Parameter(torch.ones(500, dtype=f64))

            def forward(self, x):
                left, right = x.chunk(2, dim=1)
                return (left * self.gain) * right

        gradients = []
        for gradient in ("rate", "bptt"):
            network = Gated()
            temporal(network, gradient=gradient)(torch.cat([a, b], 1).unsqueeze(1)).mean(0).sum().backward()
            gradients.append(network.gain.grad)
        most = a.std(0, correction=0) * b.std(0, correction=0)
        assert ((gradients[0] - gradients[1]).abs() <= most + 1e-12).all()
        assert (most > 0).any() == (scale > 0)


def test_by_hand():
    """Spikes 1, 1, 0, 0 and 1, 0, 0, 1: the product fires once in 4 timesteps, as two rates of a half say; and twice in 2."""
    a = torch.tensor([1.0, 1, 0, 0], dtype=f64).view(4, 1, 1).requires_grad_()
    b = torch.tensor([1.0, 0, 0, 1], dtype=f64).view(4, 1, 1).requires_grad_()

    class Both(nn.Module):
        def forward(self, x):
            one, other = x.chunk(2, dim=1)
            return one * other

    out = temporal(Both(), gradient="rate")(torch.cat([a, b], 2))
    assert out.flatten().tolist() == [1, 0, 0, 0]
    out.mean(0).sum().backward()
    # a lasting change of one rate changes the product's by the other's, a half; each timestep is a quarter of the mean
    assert a.grad.flatten().tolist() == b.grad.flatten().tolist() == [0.125] * 4


SQUARES = {
    "elements": lambda s: s * s,
    "matrix": lambda s: s @ s,
    "einsum": lambda s: torch.einsum("bij,bij->bi", s, s),
    "flat": lambda s: s.flatten(1) * s.reshape(s.shape[0], -1),
    "similarities": lambda s: s @ s.transpose(1, 2),
    "scaled and shifted": lambda s: (2 * s - 1) * s.clone() / 3,
    "after a change in place": lambda s: s * changed(s.clone()),
    "repeated": lambda s: s[:, None].expand(-1, 2, -1, -1) * s.unsqueeze(1).repeat(1, 2, 1, 1),
}
NO_SQUARES = {
    "parts": lambda s: s[:, :2] * s[:, 2:],
    "queries and keys of one tensor": lambda s: torch.matmul(s.chunk(2, 1)[0], s.chunk(2, 1)[1].transpose(1, 2)),
    "a sum as a gate": lambda s: s * s.sum(-1, keepdim=True),
    "a constant": lambda s: s.detach() * s,
}


def changed(s):
    s += 1
    return s


class Formed(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form, self.neuron = form, LIF()

    def forward(self, x):
        return self.form(self.neuron(x))


@pytest.mark.parametrize("gradient", [{"gradient": "rate"}, {"gradient": "rate", "chunk": 4}, {"gradient": "dsr"}])
def test_a_signal_times_itself_is_refused_in_any_shape(gradient):
    for form in SQUARES.values():
        with pytest.raises(
            TypeError, match=r"holds squares, which are not linear in time; the square of spikes is the"
        ):
            temporal(Formed(form), **gradient)(torch.rand(T, B, N, N))


@pytest.mark.parametrize("gradient", [{"gradient": "rate"}, {"gradient": "rate", "chunk": 4}, {"gradient": "dsr"}])
def test_products_of_parts_of_a_signal_are_taken(gradient):
    for form in NO_SQUARES.values():
        x = torch.rand(T, B, N, N) * 3
        out = temporal(Formed(form), **gradient)(x)
        torch.testing.assert_close(out, temporal(Formed(form), gradient="bptt")(x))


@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate", "dsr"])
def test_a_transformer_learns_under_every_rule(gradient):
    torch.manual_seed(0)
    model = create_model("sdt", num_classes=3, in_channels=1, width=1 / 16, gradient=gradient)
    y = torch.arange(9) % 3
    x = torch.rand(9, 1, 8, 8) * 0.5
    x[y == 0, :, ::4] += 1.0  # lying stripes, standing ones, or none
    x[y == 1, :, :, ::4] += 1.0
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(15):
        optimizer.zero_grad()
        loss = sce(model(x, timesteps=3), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.8 * losses[0]
