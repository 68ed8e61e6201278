"""Leaky integrate-and-fire neurons over a sequence and for one timestep; `neuron.py` has the equations.

Membranes are in float32 or better, whatever the dtype of the current.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .loops import (
    NormalisedCurrent,
    PackedSpikes,
    fused_lif,
    fused_norm_lif,
    fused_norm_lif_step,
    is_channels_last,
    path_of,
)
from .neuron import Neuron
from .surrogate import spike


def lif(current: Tensor, neuron: Neuron | None = None, *, detach_membrane: bool = False, **options: Any) -> Tensor:
    """Turn input currents into spikes with leaky integrate-and-fire neurons, one neuron per element.

    Args:
        current: input currents `[T, B, ...]`, floating point.
        neuron: decay, threshold and the other options of the neurons.
        detach_membrane: cut the gradient's path through the previous timestep's membrane (SLTT, Meng et al., 2023). Spikes and
            membranes stay the same; only the gradient changes.
        options: options of `Neuron`, instead of one: `lif(current, decay=0.9)`.

    Returns:
        Spikes `[T, B, ...]`, zeros and ones in the dtype of `current`.

    Raises:
        UserError: for a current of integers or without a time axis, an option out of its range, or an option that is a tensor and
            does not broadcast over a timestep of the currents.
    """
    return lif_in_bits(current, _given(neuron, options), detach_membrane=detach_membrane)[0]


def lif_in_bits(
    current: Tensor,
    neuron: Neuron,
    *,
    detach_membrane: bool = False,
    timesteps: int | None = None,
    only_bits: bool = False,
) -> tuple[Any, PackedSpikes | None]:
    """`lif`, which also returns the spikes in bits, without a graph, if the loop makes them.

    Args:
        timesteps: T, for currents `[1, B, ...]` that are the same at all timesteps.
        only_bits: hold the spikes in bits only, where the loop can: the first result is then `SpikesInBits`.
    """
    path = path_of(current, neuron, timesteps)
    T = len(current) if timesteps is None else timesteps
    if not path.is_eager:
        return fused_lif(current, T, neuron, detach_membrane, path, only_bits=only_bits)
    if len(current) < T:
        current = current.expand(T, *current.shape[1:])
    steps = _timesteps(membrane_precision(current))
    neuron = neuron.over(steps[0])
    membrane = neuron.initial_membrane(steps[0])
    spikes = []
    for current_t in steps:
        spikes_t, membrane = _advance(current_t, membrane, neuron)
        spikes.append(spikes_t)
        if detach_membrane:
            membrane = membrane.detach()
    return _sequence(spikes, current).to(current.dtype), None


def _timesteps(current: Tensor) -> Sequence[Tensor]:
    """The timesteps of `[T, B, ...]`. Gradients lie in memory as it does: another order would cost each layer a copy."""
    # unbind, not current[t]: indexing in a loop makes the backward pass quadratic in T
    if is_channels_last(current):
        return [step.permute(0, 3, 1, 2) for step in current.permute(0, 1, 3, 4, 2).unbind(0)]
    return current.unbind(0)


def _sequence(steps: Sequence[Tensor], like: Tensor) -> Tensor:
    """`[T, B, ...]` from its timesteps, in memory as `like`."""
    if is_channels_last(like):
        return torch.stack([step.permute(0, 2, 3, 1) for step in steps]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(steps))


def norm_lif(
    current: NormalisedCurrent, neuron: Neuron, *, detach_membrane: bool = False, only_bits: bool = False
) -> tuple[Any, PackedSpikes]:
    """`lif_in_bits` with a batch-norm computed in the same loop."""
    return fused_norm_lif(current, neuron, detach_membrane, only_bits=only_bits)


def lif_step(
    current: Tensor, state: Tensor | None = None, neuron: Neuron | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Advance leaky integrate-and-fire neurons by one timestep.

    Args:
        current: input current `[B, ...]` of this timestep.
        state: the membrane `[B, ...]` that the previous step returned; None at the first timestep, which starts at `v_init`.
        neuron: decay, threshold and the other options of the neurons.
        options: options of `Neuron`, instead of one.

    Returns:
        The spikes `[B, ...]` and the membrane `[B, ...]` after reset, to be passed to the next step.

    Raises:
        UserError: for a current of integers, a state of the wrong shape, an option out of its range, or an option that is a
            tensor and does not broadcast over the current.
    """
    neuron = _given(neuron, options)
    if not current.is_floating_point():
        raise UserError(f"lif_step takes a floating-point current [B, ...]; got {current.dtype} {list(current.shape)}")
    _check_state(state, current.shape)
    incoming = membrane_precision(current)
    neuron = neuron.over(incoming)
    spikes, membrane = _advance(incoming, neuron.initial_membrane(incoming) if state is None else state, neuron)
    return spikes.to(current.dtype), membrane


def norm_lif_step(current: NormalisedCurrent, state: Tensor | None, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """`lif_step`, without a graph, with a batch-norm of `[1, B, C, ...]` computed in the same loop."""
    _check_state(state, current.x.shape[1:])
    return fused_norm_lif_step(current, state, neuron)


def _given(neuron: Neuron | None, options: dict[str, Any]) -> Neuron:
    """The neuron, or one with these options.

    Raises:
        UserError: if both are given.
    """
    if neuron is not None and options:
        raise UserError(f"got a Neuron and also {', '.join(options)}: give one or the other")
    return Neuron(**options) if neuron is None else neuron


def _check_state(state: Tensor | None, expected: torch.Size) -> None:
    if state is not None and state.shape != expected:
        raise UserError(
            f"the state is {list(state.shape)}, the current {list(expected)}: expected the same shape, one membrane per neuron"
        )


def _advance(current: Tensor, membrane: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """One timestep in the precision of the membrane: spikes, and the membrane after reset."""
    u = neuron.integrate(current, membrane)
    spikes = spike(u - neuron.threshold, neuron.derivative)
    return spikes, neuron.reset(u, spikes.detach() if neuron.detach_reset else spikes)


def membrane_precision(current: Tensor) -> Tensor:
    """Currents in the precision of the membrane, float32 or better."""
    return current.float() if current.dtype in (torch.float16, torch.bfloat16) else current
