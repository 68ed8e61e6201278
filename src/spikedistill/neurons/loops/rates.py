"""Derivatives of mean rates with respect to their currents: by a kernel, or by the loop of `eligibility`, which may be compiled."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..neuron import Neuron
from .fused import currents_of, may_write_only_bits, unit_norm
from .fused_norm import NormalisedCurrent, stored_residual
from .memory_format import as_shown, as_stored
from .packed import PackedSpikes, SpikesInBits, carrier
from .paths import Path, on_path


def rates_by_kernel(
    current: Tensor | NormalisedCurrent,
    lengths: tuple[int, ...],
    neuron: Neuron,
    path: Path,
    *,
    only_bits: bool = False,
) -> tuple[Tensor | SpikesInBits, Tensor, Tensor]:
    """Spikes `[T, B, ...]`, and for each of m segments the mean rate and its derivative, `[m, B, ...]`; see `on_gpu.respond`.

    Args:
        only_bits: see `fused_lif`.
    """
    assert path.kernels is not None
    x, *rest = _parts(current, path)
    timesteps = sum(lengths)
    only_bits = only_bits and may_write_only_bits(x, timesteps, path)
    more = {"only_bits": True} if only_bits else {}
    with torch.no_grad():
        found = path.kernels.respond(as_stored(x, x), *rest, len(lengths), neuron, timesteps=timesteps, **more)
    spikes, rates, to_current = (as_shown(part, x) for part in found)
    return (
        SpikesInBits(carrier(x, timesteps), PackedSpikes(timesteps, spikes)) if only_bits else spikes,
        rates,
        to_current,
    )


def rates_by_loop(
    respond: Callable[..., tuple[Any, ...]],
    current: Tensor | NormalisedCurrent,
    lengths: tuple[int, ...],
    sources: tuple[str, ...],
    neuron: Neuron,
    path: Path,
) -> list[Any]:
    """The results of `respond` for the currents, lengths, sources, neuron, dtype of the spikes and a unit as in `fused`."""
    x, scale, shift, residual = _parts(current, path)
    if len(x) < sum(lengths):
        x = x.expand(sum(lengths), *x.shape[1:])
    with torch.no_grad():
        given = as_stored(x, x), scale, shift, residual, torch.ones_like(scale), lengths, sources, neuron
        return [None if part is None else as_shown(part, x) for part in on_path(path, _on_normalised(respond))(*given)]


def _parts(current: Tensor | NormalisedCurrent, path: Path) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """x, scale, shift and the residual as stored, of currents x * scale + shift + residual."""
    if isinstance(current, Tensor):
        return current, *unit_norm(current), None
    return current.x, *current.scale_and_shift(), stored_residual(current, path)


@functools.cache
def _on_normalised(respond: Callable[..., Any]) -> Callable[..., Any]:
    def loop(
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        residual: Tensor | None,
        unit: Tensor,
        lengths: Any,
        sources: Any,
        neuron: Neuron,
    ) -> Any:
        return respond(currents_of(x, scale, shift, residual), lengths, sources, neuron, x.dtype, unit)

    return loop
