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
MIN_ELEMENTS = 2**20
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
        flat = current.reshape(len(current), -1)
        spikes, u = compiled(_forward)(flat, decay, threshold, v_reset, v_init)
        ctx.save_for_backward(u)
        ctx.options, ctx.shape = options, current.shape
        return spikes.view(current.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (u,) = ctx.saved_tensors
        decay, threshold, v_reset, detach_reset, derivative, _, detach_membrane = ctx.options
        grad = grads[0].reshape(u.shape)
        to_current = compiled(_backward)(grad, u, decay, threshold, v_reset, detach_reset, derivative, detach_membrane)
        return to_current.view(ctx.shape), *[None] * len(ctx.options)


def _forward(
    current: Tensor, decay: float, threshold: float, v_reset: float | None, v_init: float
) -> tuple[Tensor, Tensor]:
    """Spikes and membranes before reset, `[T, N]`."""
    membrane = torch.full_like(current[0], v_init, dtype=torch.promote_types(current.dtype, torch.float32))
    spikes, before = [], []
    for current_t in current.unbind(0):
        u = decay * membrane + current_t.to(membrane.dtype)
        fired = (u - threshold >= 0).to(u.dtype)
        membrane = u - threshold * fired if v_reset is None else (1 - fired) * u + v_reset * fired
        spikes.append(fired.to(current.dtype))
        before.append(u)
    return torch.stack(spikes), torch.stack(before)


def _backward(
    grad: Tensor,
    u: Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    detach_membrane: bool,
) -> Tensor:
    """Gradient to the currents, `[T, N]`: the dynamics' chain rule from the last timestep to the first."""
    to_membrane = torch.zeros_like(u[0])
    to_current = []
    for grad_t, u_t in zip(grad.unbind(0)[::-1], u.unbind(0)[::-1], strict=True):
        to_spikes = grad_t.to(u.dtype)
        if not detach_reset:
            to_spikes = to_spikes + to_membrane * (-threshold if v_reset is None else v_reset - u_t)
        survives = to_membrane if v_reset is None else to_membrane * (1 - (u_t - threshold >= 0).to(u.dtype))
        to_u = survives + to_spikes * derivative(u_t - threshold)
        to_current.append(to_u.to(grad.dtype))
        to_membrane = torch.zeros_like(to_u) if detach_membrane else decay * to_u
    return torch.stack(to_current[::-1])


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled once for each T and set of options and for every size of the rest."""
    fused = torch.compile(function, dynamic=True, fullgraph=True)

    def call(*arguments: Any) -> Any:
        # every T is a loop of its own: more of them than PyTorch expects of one function
        with torch._dynamo.config.patch(recompile_limit=256):
            return fused(*arguments)

    return call
