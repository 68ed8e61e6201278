"""Surrogate gradients: functions that replace the derivative of the spike's step function.

Each function maps the distance of the membrane from its threshold, `x = u - threshold`, to ds/du at that point, elementwise.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import UserError
from ..registry import Registry

Surrogate = Callable[[Tensor], Tensor]
"""A surrogate: a function from the distance of the membrane from the threshold to ds/du, elementwise."""
_Surrogate = TypeVar("_Surrogate", bound=Surrogate)


def sigmoid(x: Tensor, alpha: float = 4.0) -> Tensor:
    """Derivative of a logistic function: ds/du = alpha * p * (1 - p), p = 1 / (1 + exp(-alpha x))."""
    return _logistic_slope(x, alpha, height=alpha)


def _logistic_slope(x: Tensor, alpha: float, height: float) -> Tensor:
    """height * p (1 - p) = height / (2 cosh(alpha x) + 2), p = 1 / (1 + exp(-alpha x)); cannot overflow."""
    if not (torch.compiler.is_compiling() and x.dtype == torch.float32 and x.device.type == "cpu"):
        e = torch.exp(-alpha * x.abs())  # p (1 - p) is the same on both sides of the threshold
        return height * e / (1 + e).square()
    # A compiled loop on a CPU calls exp as a function, which costs as much as all else in it. Instead: p(y) = 2 cosh(y) by its
    # Taylor series at y / 4 and p(2y) = p(y)^2 - 2, exact to 2e-6 of its value up to y = 9, where 5e-4 of the peak is left.
    square, unit = x.square(), (alpha / 4) ** 2
    series = [2 * unit**k / math.factorial(2 * k) for k in range(7)]
    p = square * series.pop() + series.pop()
    while series:
        p = p * square + series.pop()
    return height / (p.square() - 2).square()


def rectangular(x: Tensor, width: float = 1.0) -> Tensor:
    """A box of unit area: ds/du = 1 / width where |x| < width / 2, else 0 (Wu et al., STBP, 2018)."""
    return (x.abs() < width / 2).to(x.dtype) / width


def triangular(x: Tensor, gamma: float = 1.0) -> Tensor:
    """A triangle of unit area: ds/du = max(0, gamma - |x|) / gamma^2 (Esser et al., 2016; Deng et al., TET, 2022)."""
    return (gamma - x.abs()).clamp(min=0) / gamma**2


def arctan(x: Tensor, alpha: float = 2.0) -> Tensor:
    """Derivative of an arc tangent: ds/du = (alpha / 2) / (1 + (pi alpha x / 2)^2) (Fang et al., PLIF, 2021)."""
    return (alpha / 2) / (1 + (math.pi / 2 * alpha * x).square())


def dspike(x: Tensor, gamma: float = 2.5) -> Tensor:
    """The derivative of a hyperbolic tangent between -1 and 1, of unit area (Li et al., Dspike, NeurIPS 2021).

    ds/du = gamma * k * (1 - tanh^2(gamma x)) where |x| < 1, else 0, with k = 1 / (2 tanh gamma). Here the temperature gamma is
    fixed; the paper chooses it in every epoch, by finite differences of the loss.
    """
    slope = _logistic_slope(x, 2 * gamma, height=2 * gamma / math.tanh(gamma))  # 1 - tanh^2(gamma x) = 4 p (1 - p)
    return slope * (x.abs() < 1).to(x.dtype)


SURROGATES: Registry[Surrogate] = Registry("surrogate", "spikedistill.surrogates")
"""Surrogate gradients by name."""
for _own in (sigmoid, rectangular, triangular, arctan, dspike):
    SURROGATES.register(_own.__name__, _own)


def register_surrogate(name: str) -> Callable[[_Surrogate], _Surrogate]:
    """Register a surrogate under a name, for `LIF(surrogate=name)` and `--model.lif.surrogate NAME`.

    Use it as a decorator of a function from x = u - threshold to ds/du, elementwise. It returns a tensor of the shape and dtype of
    x.

    Args:
        name: a name that is not taken, without spaces, commas and equals signs.

    Raises:
        UserError: if the name is taken, or the function returns anything else.
    """

    def enter(surrogate: _Surrogate) -> _Surrogate:
        x = torch.linspace(-2, 2, 9).view(3, 3)
        slope = surrogate(x)
        if (
            not isinstance(slope, Tensor)
            or slope.shape != x.shape
            or slope.dtype != x.dtype
            or not slope.isfinite().all()
        ):
            got = f"{list(slope.shape)} {slope.dtype}" if isinstance(slope, Tensor) else type(slope).__name__
            raise UserError(
                f"surrogate {name!r} returned {got} for x {list(x.shape)} {x.dtype} from -2 to 2, expected ds/du for each x: "
                "finite numbers of the same shape and dtype"
            )
        SURROGATES.register(name, surrogate)
        return surrogate

    return enter


class Form(NamedTuple):
    """The formula of a surrogate over x, as kernels take it.

    logistic: height * e / (1 + e)^2 with e = exp(-width |x|), where |x| < end. rectangle: height where |x| < end. triangle:
    height * max(0, width - |x|). arctan: height / (1 + (width x)^2).
    """

    name: Literal["logistic", "rectangle", "triangle", "arctan"]
    width: float
    height: float
    end: float = math.inf


def form_of(surrogate: Surrogate) -> Form | None:
    """The form of one of the library's own surrogates, at its default; None for any other."""
    return next((form for own, form in _FORMS.items() if own is surrogate), None)  # others may have no hash


def known_form(surrogate: Surrogate) -> Form:
    """The form of a surrogate for which `form_of` knows one."""
    form = form_of(surrogate)
    assert form is not None
    return form


def _default(surrogate: Any) -> float:
    return float(surrogate.__defaults__[0])


_FORMS: dict[Surrogate, Form] = {
    sigmoid: Form("logistic", _default(sigmoid), _default(sigmoid)),
    dspike: Form("logistic", 2 * _default(dspike), 2 * _default(dspike) / math.tanh(_default(dspike)), 1.0),
    rectangular: Form("rectangle", 1.0, 1 / _default(rectangular), _default(rectangular) / 2),
    triangular: Form("triangle", _default(triangular), 1 / _default(triangular) ** 2),
    arctan: Form("arctan", math.pi / 2 * _default(arctan), _default(arctan) / 2),
}


def resolve_surrogate(surrogate: str | Surrogate) -> Surrogate:
    """Return the surrogate of that name, or the callable itself.

    Raises:
        UserError: for an unknown name.
    """
    return surrogate if callable(surrogate) else SURROGATES[surrogate]


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.surrogate = surrogate
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate(distance), None


def spike(distance: Tensor, surrogate: str | Surrogate = "sigmoid") -> Tensor:
    """Fire where a membrane has reached its threshold: 1 where `distance >= 0`, else 0, with a surrogate's gradient.

    Args:
        distance: the distance of the membrane from its threshold, `u - threshold`, floating point.
        surrogate: the name of a surrogate, or a callable `x -> ds/du`.

    Returns:
        Spikes of the shape and dtype of `distance`.

    Raises:
        UserError: for an unknown surrogate, or a distance that is not a floating-point tensor.
    """
    if not isinstance(distance, Tensor) or not distance.is_floating_point():
        got = f"a tensor of {distance.dtype}" if isinstance(distance, Tensor) else f"a {type(distance).__name__}"
        raise UserError(f"spike got {got}, expected a floating-point tensor u - threshold")
    return _Spike.apply(distance, resolve_surrogate(surrogate))
