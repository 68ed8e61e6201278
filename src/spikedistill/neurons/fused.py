"""The dynamics of a whole sequence compiled into one loop forward and one backward.

Eager PyTorch writes every intermediate of every timestep to memory, which costs several times what the arithmetic does. The same
equations, compiled, read the currents and write the spikes once. The eager path stays the reference: small tensors, machines
without a C++ compiler and networks that are compiled as a whole use it.
"""

import functools
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .surrogate import Surrogate

# Below so many elements the eager path is fast enough that compiling is not earned back.
MIN_ELEMENTS = 2**19
_pays_off = ContextVar("_pays_off", default=True)

logger = logging.getLogger("spikedistill")


def applies(current: Tensor) -> bool:
    """Whether currents `[T, B, ...]` are worth the compiled path, and there is one."""
    if current.numel() < MIN_ELEMENTS or torch.compiler.is_compiling():
        return False
    return _pays_off.get() and compiler_works()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Keep to the eager path inside: for work of a few passes, where compiling would take longer than they do."""
    token = _pays_off.set(False)
    try:
        yield
    finally:
        _pays_off.reset(token)


@functools.cache
def compiler_works() -> bool:
    """Whether `torch.compile` works on this machine; where it does not, one log line says so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler's own parts
            torch.compile(torch.neg)(torch.zeros(2))
    except Exception as error:
        logger.warning("torch.compile does not work here, so LIF layers run without it: %s", str(error).splitlines()[0])
        return False
    return True


def fused_lif(
    current: Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    v_init: float,
    detach_membrane: bool,
) -> Tensor:
    """`lif` without its checks, for plain numbers."""
    return _FusedLIF.apply(current, decay, threshold, v_reset, detach_reset, derivative, v_init, detach_membrane)


class _FusedLIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, *options: Any) -> Tensor:
        decay, threshold, v_reset, _, _, v_init, _ = options
        flat = _with_channels(current.contiguous())
        spikes, _ = compiled(fire)(flat, *_unit(flat), None, decay, threshold, v_reset, v_init)
        ctx.save_for_backward(flat)
        ctx.options = options
        return spikes.view(current.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (flat,) = ctx.saved_tensors
        grad = grads[0].reshape(flat.shape)
        to_current = compiled(gradient_to_currents)(grad, flat, *_unit(flat), None, *ctx.options)
        return to_current.view(grads[0].shape), *[None] * len(ctx.options)


def _with_channels(current: Tensor) -> Tensor:
    """Currents as `[T, B, C, N]`, the form of the compiled loops."""
    return current.flatten(3) if current.ndim > 3 else current.reshape(len(current), 1, 1, -1)


def _unit(flat: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and shift of currents that are what they are: one compiled loop serves them and those of a batch-norm."""
    precision = torch.promote_types(flat.dtype, torch.float32)
    ones = torch.ones(flat.shape[2], 1, dtype=precision, device=flat.device)
    return ones, torch.zeros_like(ones)


def currents_of(x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None) -> list[Tensor]:
    """The currents x * scale + shift + residual, `[B, C, N]` of every timestep, in the precision of the scale.

    Args:
        x: `[T, B, C, N]`.
        scale, shift: `[C, 1]`.
        residual: like x, or None.
    """
    scaled = [x_t.to(scale.dtype) * scale + shift for x_t in x.unbind(0)]
    if residual is None:
        return scaled
    return [one + more.to(scale.dtype) for one, more in zip(scaled, residual.unbind(0), strict=True)]


def fire(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    decay: float,
    threshold: float,
    v_reset: float | None,
    v_init: float,
) -> tuple[Tensor, Tensor]:
    """Spikes `[T, B, C, N]` in the dtype of x, and in bytes."""
    spikes, _ = _dynamics(currents_of(x, scale, shift, residual), decay, threshold, v_reset, v_init)
    return torch.stack([s.to(x.dtype) for s in spikes]), torch.stack([s.to(torch.uint8) for s in spikes])


def _dynamics(
    currents: list[Tensor], decay: float, threshold: float, v_reset: float | None, v_init: float
) -> tuple[list[Tensor], list[Tensor]]:
    """Spikes and membranes before the spike of every timestep."""
    spikes, before = [], []
    membrane = torch.full_like(currents[0], v_init)
    for current in currents:
        u = decay * membrane + current
        fired = (u - threshold >= 0).to(u.dtype)
        membrane = u - threshold * fired if v_reset is None else (1 - fired) * u + v_reset * fired
        spikes.append(fired)
        before.append(u)
    return spikes, before


def gradient_to_currents(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    v_init: float,
    detach_membrane: bool,
) -> Tensor:
    """Gradient to the currents, `[T, B, C, N]`: the membranes once more, then the chain rule backwards through time."""
    _, before = _dynamics(currents_of(x, scale, shift, residual), decay, threshold, v_reset, v_init)
    to_membrane = torch.zeros_like(before[0])
    to_current = []
    for grad_t, u_t in zip(grad.unbind(0)[::-1], before[::-1], strict=True):
        to_spikes = grad_t.to(u_t.dtype)
        if not detach_reset:
            to_spikes = to_spikes + to_membrane * (-threshold if v_reset is None else v_reset - u_t)
        survives = to_membrane if v_reset is None else to_membrane * (1 - (u_t - threshold >= 0).to(u_t.dtype))
        to_u = survives + to_spikes * derivative(u_t - threshold)
        to_current.append(to_u.to(grad_t.dtype))
        to_membrane = torch.zeros_like(to_u) if detach_membrane else decay * to_u
    return torch.stack(to_current[::-1])


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which takes no part in a graph, compiled once for each T and set of options and for every size of the rest."""
    from torch.fx.experimental import _config as shapes

    fused = torch.compile(function, dynamic=True, fullgraph=True)

    def call(*arguments: Any) -> Any:
        # without a past and a base, which would be compiled for anew; so would sizes that happen to be equal
        plain = [argument.detach() if isinstance(argument, Tensor) else argument for argument in arguments]
        # every T is a loop of its own: more of them than PyTorch expects of one function
        with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=256), shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            return fused(*plain)

    return call
