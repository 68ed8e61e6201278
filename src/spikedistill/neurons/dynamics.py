"""Leaky integrate-and-fire dynamics over a whole sequence and for one step.

With the decay lambda, the threshold theta and the input current I:

    u_t = lambda * v_{t-1} + I_t          membrane before the spike; v_0 = v_init
    s_t = 1 if u_t >= theta else 0
    v_t = u_t - theta * s_t               soft reset (v_reset=None)
    v_t = (1 - s_t) * u_t + v_reset * s_t hard reset

The membrane is kept in float32 or better, whatever the dtype of the current.
"""

import torch
from torch import Tensor

from .compiler import applies, kernels_for
from .fused import BLOCK, fused_lif
from .fused_norm import NormalisedCurrent, fused_norm_lif, fused_norm_lif_step
from .packed import PackedSpikes
from .surrogate import Surrogate, resolve_surrogate, spike

_FLOAT32 = torch.finfo(torch.float32)


def lif(
    current: Tensor,
    *,
    decay: float | Tensor = 0.5,
    threshold: float = 1.0,
    v_reset: float | None = None,
    detach_reset: bool = False,
    surrogate: str | Surrogate = "sigmoid",
    v_init: float | Tensor = 0.0,
    detach_membrane: bool = False,
) -> Tensor:
    """Turn input currents into spikes with leaky integrate-and-fire neurons, one independent neuron per element.

    Args:
        current: input currents `[T, B, ...]`, floating point.
        decay: share of the membrane that survives a timestep, in [0, 1]; 1 is a neuron without leak (IF). A tensor that
            broadcasts over `[B, ...]` may be learned (PLIF, Fang et al., 2021).
        threshold: a neuron fires where its membrane is at or above it.
        v_reset: None subtracts the threshold after a spike (soft reset); a number puts the membrane there (hard reset).
        detach_reset: leave the reset out of the gradient.
        surrogate: name or callable, the derivative of a spike; see `spikedistill.neurons.surrogate`.
        v_init: membrane before the first timestep, a number or a tensor that broadcasts over `[B, ...]`.
        detach_membrane: cut the gradient's path through the previous timestep's membrane (SLTT, Meng et al., 2023). The
            spikes stay the same, and so does the memory: it is a gradient rule only.

    Returns:
        Spikes `[T, B, ...]`, zeros and ones in the dtype of `current`.

    Raises:
        ValueError: for a current without a time axis or of integers, or an option out of its range.
    """
    spikes, _ = lif_in_bits(
        current,
        decay=decay,
        threshold=threshold,
        v_reset=v_reset,
        detach_reset=detach_reset,
        surrogate=surrogate,
        v_init=v_init,
        detach_membrane=detach_membrane,
    )
    return spikes


def lif_in_bits(
    current: Tensor,
    *,
    decay: float | Tensor,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: str | Surrogate,
    v_init: float | Tensor,
    detach_membrane: bool,
    timesteps: int | None = None,
) -> tuple[Tensor, PackedSpikes | None]:
    """`lif`, and its spikes in bits too, without a graph, where these come along.

    Args:
        timesteps: how many, where the currents are `[1, B, ...]`, the same at all of them.
    """
    check_options(decay, threshold, v_reset, v_init)
    if current.ndim == 0 or current.shape[0] == 0 or not current.is_floating_point():
        raise ValueError(
            f"lif takes floating-point currents [T, B, ...] with T >= 1; got {current.dtype} {list(current.shape)}"
        )
    derivative = resolve_surrogate(surrogate)
    T = len(current) if timesteps is None else timesteps
    kernels = kernels_for(current, derivative, T // len(current)) is not None
    numbers = are_numbers(decay, v_init)
    if len(current) < T and not (kernels and numbers and T <= BLOCK):
        current = current.expand(T, *current.shape[1:])
    if numbers and (kernels or applies(current)):
        rest = decay, threshold, v_reset, detach_reset, derivative, v_init, detach_membrane
        return fused_lif(current, T, *rest)  # type: ignore[arg-type]
    # unbind, not current[t]: indexing in a loop makes the backward pass quadratic in T
    steps = membrane_precision(current).unbind(0)
    membrane = initial_membrane(steps[0], v_init)
    spikes = []
    for current_t in steps:
        spikes_t, membrane = _advance(current_t, membrane, decay, threshold, v_reset, detach_reset, derivative)
        spikes.append(spikes_t)
        if detach_membrane:
            membrane = membrane.detach()
    return torch.stack(spikes).to(current.dtype), None


def norm_lif(
    current: NormalisedCurrent,
    *,
    decay: float = 0.5,
    threshold: float = 1.0,
    v_reset: float | None = None,
    detach_reset: bool = False,
    surrogate: str | Surrogate = "sigmoid",
    v_init: float = 0.0,
    detach_membrane: bool = False,
) -> tuple[Tensor, PackedSpikes]:
    """`lif` of currents whose batch-norm has waited: the spikes `[T, B, ...]`, and the same in bits without a graph."""
    derivative = resolve_surrogate(surrogate)
    return fused_norm_lif(current, decay, threshold, v_reset, detach_reset, derivative, v_init, detach_membrane)


def are_numbers(*options: float | Tensor) -> bool:
    """Whether none of the options is learned: the compiled paths take numbers."""
    return not any(isinstance(option, Tensor) for option in options)


def lif_step(
    current: Tensor,
    state: Tensor | None = None,
    *,
    decay: float | Tensor = 0.5,
    threshold: float = 1.0,
    v_reset: float | None = None,
    detach_reset: bool = False,
    surrogate: str | Surrogate = "sigmoid",
    v_init: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor]:
    """Advance leaky integrate-and-fire neurons by one timestep.

    Args:
        current: input current `[B, ...]` of this timestep.
        state: membrane `[B, ...]` that the previous step returned; None before the first, which starts at `v_init`.

    The other arguments are those of `lif`.

    Returns:
        The spikes `[B, ...]` and the membrane `[B, ...]` after reset, to be passed to the next step.

    Raises:
        ValueError: for a current of integers, a state of another shape, or an option out of its range.
    """
    check_options(decay, threshold, v_reset, v_init)
    if not current.is_floating_point():
        raise ValueError(f"lif_step takes a floating-point current [B, ...]; got {current.dtype} {list(current.shape)}")
    _check_state(state, current.shape)
    incoming = membrane_precision(current)
    membrane = initial_membrane(incoming, v_init) if state is None else state
    spikes, membrane = _advance(
        incoming, membrane, decay, threshold, v_reset, detach_reset, resolve_surrogate(surrogate)
    )
    return spikes.to(current.dtype), membrane


def norm_lif_step(
    current: NormalisedCurrent,
    state: Tensor | None,
    *,
    decay: float = 0.5,
    threshold: float = 1.0,
    v_reset: float | None = None,
    v_init: float = 0.0,
    **for_gradient: object,
) -> tuple[Tensor, Tensor]:
    """`lif_step`, without a graph, of currents `[1, B, C, ...]` whose batch-norm has waited."""
    _check_state(state, current.x.shape[1:])
    return fused_norm_lif_step(current, state, decay, threshold, v_reset, v_init)


def _check_state(state: Tensor | None, expected: torch.Size) -> None:
    if state is not None and state.shape != expected:
        raise ValueError(
            f"the state is {list(state.shape)}, the current {list(expected)}: they must be of the same samples and neurons"
        )


def _advance(
    current: Tensor,
    membrane: Tensor,
    decay: float | Tensor,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    derivative: Surrogate,
) -> tuple[Tensor, Tensor]:
    """One timestep in the precision of the membrane: spikes, and the membrane after reset."""
    u = integrate(current, membrane, decay)
    spikes = spike(u - threshold, derivative)
    return spikes, reset(u, spikes.detach() if detach_reset else spikes, threshold, v_reset)


def integrate(current: Tensor, membrane: Tensor, decay: float | Tensor) -> Tensor:
    """Leak and integrate: u = decay * v + I."""
    return decay * membrane + current


def reset(u: Tensor, spikes: Tensor, threshold: float, v_reset: float | None) -> Tensor:
    """Membrane after the spike: soft where `v_reset` is None, hard otherwise."""
    if v_reset is None:
        return u - threshold * spikes
    return (1 - spikes) * u + v_reset * spikes


def membrane_precision(current: Tensor) -> Tensor:
    """Currents in the precision of the membrane: float32 at least."""
    return current.float() if current.dtype in (torch.float16, torch.bfloat16) else current


def initial_membrane(like: Tensor, v_init: float | Tensor) -> Tensor:
    """Membrane `[B, ...]` before the first timestep."""
    if isinstance(v_init, Tensor):
        return v_init.to(like.dtype).expand_as(like)
    return torch.full_like(like, v_init)


def check_options(
    decay: float | Tensor, threshold: float, v_reset: float | None = None, v_init: float | Tensor = 0.0
) -> None:
    """Refuse dynamics that cannot be meant.

    Raises:
        ValueError: for a decay outside [0, 1], a threshold that is not positive, or a number that is not finite in float32.
    """
    if not isinstance(decay, Tensor) and not 0 <= decay <= 1:
        raise ValueError(f"decay is {decay}, expected 0 (no memory) to 1 (no leak)")
    # reset and spike would read it as 0 or infinite otherwise
    if not _FLOAT32.tiny <= threshold <= _FLOAT32.max:
        raise ValueError(f"threshold is {threshold}, expected a positive number, finite in float32")
    for name, value in (("v_reset", v_reset), ("v_init", v_init)):
        if value is not None and not isinstance(value, Tensor) and not abs(value) <= _FLOAT32.max:
            raise ValueError(f"{name} is {value}, expected a number that is finite in float32")
