"""How the mean firing rate of a neuron answers to a change of its input that lasts: the gradient of rate-based training.

Within a segment of timesteps, the input current is perturbed by the same amount at each step and the membrane at the segment's
start is held fixed. With g_t the surrogate derivative at u_t and k_t = dv_t/du_t (what of the membrane survives the reset):

    du_t/dI = 1 + lambda * k_{t-1} * du_{t-1}/dI ,       dr/dI = mean_t g_t * du_t/dI

and alike for the decay (source v_{t-1} instead of 1) and for the initial membrane (source lambda at the first step only). One
segment is rate-based backpropagation (Yu et al., RateBP, NeurIPS 2024), segments of length one are SLTT (Meng et al., 2023).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dynamics import initial_membrane, integrate, membrane_precision, reset
from .fused import applies, compiled
from .surrogate import Surrogate, resolve_surrogate


class Response(NamedTuple):
    """Spikes of a sequence and what the mean rate of each of its m segments owes to its inputs.

    Attributes:
        spikes: `[T, B, ...]`, zeros and ones in the dtype of the current.
        to_current: dr/dI of each segment, `[m, B, ...]`.
        to_decay: dr/d(decay) of each segment, `[m, B, ...]`; None unless asked for.
        to_v_init: dr/d(v_init), `[m, B, ...]`, zero after the first segment; None unless asked for.
    """

    spikes: Tensor
    to_current: Tensor
    to_decay: Tensor | None
    to_v_init: Tensor | None


def lif_response(
    current: Tensor,
    lengths: Sequence[int],
    *,
    decay: float | Tensor = 0.5,
    threshold: float = 1.0,
    v_reset: float | None = None,
    detach_reset: bool = False,
    surrogate: str | Surrogate = "sigmoid",
    v_init: float | Tensor = 0.0,
    with_decay: bool = False,
    with_v_init: bool = False,
) -> Response:
    """Run the dynamics of `lif` without a graph and collect the eligibility of every segment.

    Args:
        current: currents `[T, B, ...]`.
        lengths: timesteps of each segment; they sum to T.
        with_decay: collect the response to the decay too.
        with_v_init: collect the response to the initial membrane too.

    The other arguments are those of `lif`.
    """
    plain = not isinstance(decay, Tensor) and not isinstance(v_init, Tensor)
    run = compiled(_response) if plain and applies(current) else _response
    with torch.no_grad():
        return run(
            current,
            tuple(lengths),
            decay,
            threshold,
            v_reset,
            detach_reset,
            resolve_surrogate(surrogate),
            v_init,
            with_decay,
            with_v_init,
        )


def _response(
    current: Tensor,
    lengths: tuple[int, ...],
    decay: float | Tensor,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
    v_init: float | Tensor,
    with_decay: bool,
    with_v_init: bool,
) -> Response:
    currents = membrane_precision(current).unbind(0)
    steps = iter(currents)
    membrane = initial_membrane(currents[0], v_init)
    spikes, to_current, to_decay, to_v_init = [], [], [], []
    for segment, length in enumerate(lengths):
        # dv/d(source) at the segment's start; a plain number wherever the reset is soft and detached
        from_current, from_decay, from_v_init = Trace(), Trace(), Trace(1.0 if segment == 0 else 0.0)
        for _ in range(length):
            current_t = next(steps)
            u = integrate(current_t, membrane, decay)
            distance = u - threshold
            slope = derivative(distance)
            spikes_t = (distance >= 0).to(u.dtype)
            survives = _survival(u, spikes_t, slope, threshold, v_reset, detach_reset)
            from_current.advance(1.0, decay, survives, slope)
            if with_decay:
                from_decay.advance(membrane, decay, survives, slope)
            if with_v_init:
                from_v_init.advance(0.0, decay, survives, slope)
            membrane = reset(u, spikes_t, threshold, v_reset)
            spikes.append(spikes_t)
        to_current.append(from_current.total / length)
        to_decay.append(from_decay.total / length)
        to_v_init.append(from_v_init.total / length)
    return Response(
        spikes=torch.stack(spikes).to(current.dtype),
        to_current=torch.stack(to_current),
        to_decay=torch.stack(to_decay) if with_decay else None,
        to_v_init=torch.stack(to_v_init) if with_v_init else None,
    )


class Trace:
    """The running derivative of the membrane with respect to one source, and its sum weighted by the surrogate."""

    def __init__(self, membrane: float = 0.0) -> None:
        self.membrane: Any = membrane
        self.total: Any = 0.0

    def advance(self, source: float | Tensor, decay: float | Tensor, survives: float | Tensor, slope: Tensor) -> None:
        """One timestep: du = source + decay * dv, weighted by ds/du, then through the reset."""
        u = source + decay * self.membrane
        self.total = self.total + slope * u
        self.membrane = survives * u


def _survival(
    u: Tensor, spikes: Tensor, slope: Tensor, threshold: float, v_reset: float | None, detach_reset: bool
) -> float | Tensor:
    """dv/du through the reset."""
    if v_reset is None:
        return 1.0 if detach_reset else 1.0 - threshold * slope
    return 1 - spikes if detach_reset else 1 - spikes + (v_reset - u) * slope
