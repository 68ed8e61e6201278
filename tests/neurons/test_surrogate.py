"""Surrogate gradients: their formulas, their area, and where a spike begins."""

import math

import pytest
import torch
from plain_lif import PRIMITIVES

from spikedistill.neurons import SURROGATES, lif
from spikedistill.neurons.surrogate import arctan, dspike, rectangular, resolve_surrogate, sigmoid, spike, triangular

f64 = torch.float64


def test_the_surrogates_of_the_contract_are_there():
    assert set(SURROGATES) == {"sigmoid", "rectangular", "triangular", "arctan", "dspike"}


@pytest.mark.parametrize(
    ("surrogate", "x", "expected"),
    [
        # sigmoid, alpha 4: 4 p (1 - p); at the threshold p = 1/2; at ln(3)/4 p = 3/4
        (sigmoid, 0.0, 1.0),
        (sigmoid, math.log(3) / 4, 4 * 3 / 16),
        (sigmoid, -math.log(3) / 4, 4 * 3 / 16),
        # a box from -1/2 to 1/2 of height 1, its edges outside
        (rectangular, 0.0, 1.0),
        (rectangular, 0.499, 1.0),
        (rectangular, -0.499, 1.0),
        (rectangular, 0.5, 0.0),
        (rectangular, 0.501, 0.0),
        # 1 - |x| down to 0
        (triangular, 0.0, 1.0),
        (triangular, 0.25, 0.75),
        (triangular, -0.75, 0.25),
        (triangular, -1.5, 0.0),
        # alpha 2: 1 / (1 + (pi x)^2), which is 1/2 at x = 1/pi
        (arctan, 0.0, 1.0),
        (arctan, 1 / math.pi, 0.5),
        (arctan, -1 / math.pi, 0.5),
        # gamma 2.5, tanh(2.5) = (e^5 - 1) / (e^5 + 1): at the threshold gamma k = 1.25 (e^5 + 1) / (e^5 - 1) = 1.26696
        (dspike, 0.0, 1.25 * (math.exp(5) + 1) / (math.exp(5) - 1)),
        # tanh(2.5 x) is 1/2 at x = ln(3)/5: three quarters of it are left
        (dspike, math.log(3) / 5, 0.9375 * (math.exp(5) + 1) / (math.exp(5) - 1)),
        (dspike, -math.log(3) / 5, 0.9375 * (math.exp(5) + 1) / (math.exp(5) - 1)),
        # towards the edges it falls to gamma / (2 sinh(gamma) cosh(gamma)) = 2.5 / sinh(5) = 0.03369, and there to nothing
        (dspike, 1 - 1e-14, 2.5 / math.sinh(5)),
        (dspike, 1e-14 - 1, 2.5 / math.sinh(5)),
        (dspike, 1.0, 0.0),
        (dspike, -1.0, 0.0),
        (dspike, 1e6, 0.0),
    ],
)
def test_values_worked_by_hand(surrogate, x, expected):
    assert surrogate(torch.tensor([x], dtype=f64)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SURROGATES)
def test_each_is_the_derivative_of_its_primitive(name):
    x = torch.linspace(-3, 3, 2001, dtype=f64).add(1e-4).requires_grad_()
    (slope,) = torch.autograd.grad(PRIMITIVES[name](x).sum(), x)
    torch.testing.assert_close(SURROGATES[name](x.detach()), slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("surrogate", "half_width", "tail"),
    [
        (sigmoid, 20.0, 0.0),
        (lambda x: sigmoid(x, alpha=1.5), 40.0, 0.0),
        (rectangular, 2.0, 0.0),
        (lambda x: rectangular(x, width=0.25), 2.0, 0.0),
        (triangular, 2.0, 0.0),
        (lambda x: triangular(x, gamma=0.4), 2.0, 0.0),
        (dspike, 2.0, 0.0),
        (lambda x: dspike(x, gamma=0.3), 2.0, 0.0),
        (lambda x: dspike(x, gamma=9.0), 2.0, 0.0),
        # the arc tangent has a heavy tail: beyond R lies 1 - (2/pi) atan(pi alpha R / 2)
        (arctan, 500.0, 1 - 2 / math.pi * math.atan(math.pi * 500)),
        (lambda x: arctan(x, alpha=5.0), 500.0, 1 - 2 / math.pi * math.atan(2.5 * math.pi * 500)),
    ],
)
def test_the_area_is_one(surrogate, half_width, tail):
    # midpoint rule, fine enough for the box's edges
    n = 2_000_000
    step = 2 * half_width / n
    x = (torch.arange(n, dtype=f64) + 0.5) * step - half_width
    assert surrogate(x).sum().item() * step + tail == pytest.approx(1.0, abs=2e-3 if half_width > 100 else 1e-5)


@pytest.mark.parametrize("gamma", [0.3, 2.5, 9.0])
def test_dspike_is_its_formula_at_every_temperature(gamma):
    x = torch.linspace(-1.2, 1.2, 1000, dtype=f64)
    k = 1 / (2 * math.tanh(gamma))
    formula = torch.where(x.abs() < 1, gamma * k * (1 - torch.tanh(gamma * x) ** 2), 0)
    torch.testing.assert_close(dspike(x, gamma), formula, rtol=0, atol=1e-13)


def test_a_spike_is_one_from_zero_on_and_takes_its_gradient_from_the_surrogate():
    x = torch.tensor([-1.0, -1e-300, -0.0, 0.0, 1e-300, 2.0], dtype=f64, requires_grad=True)
    fired = spike(x, triangular)
    assert fired.tolist() == [0, 0, 1, 1, 1, 1]
    fired.backward(torch.arange(1.0, 7.0, dtype=f64))
    # upstream times 1 - |x|: 1*0, 2*1, 3*1, 4*1, 5*1, 6*0
    assert x.grad.tolist() == pytest.approx([0, 2, 3, 4, 5, 0])


def test_a_callable_is_taken_as_it_is():
    assert resolve_surrogate(torch.cos) is torch.cos
    current = torch.tensor([[0.4]], dtype=f64, requires_grad=True)
    lif(current, surrogate=torch.cos).backward(torch.ones(1, 1, dtype=f64))
    assert current.grad.item() == pytest.approx(math.cos(-0.6))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no surrogate is called 'sigmoidal': did you mean 'sigmoid'\?"):
        resolve_surrogate("sigmoidal")
