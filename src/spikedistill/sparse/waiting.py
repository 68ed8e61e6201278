"""Layers on spikes that wait for the neurons after them: one pass over the spikes then computes layer, batch-norm and neurons.

Only without a graph. The outputs of the layer never reach memory.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ..neurons import Neuron, NormalisedCurrent, ReadLater, SpikesInBits, is_channels_last
from . import kernels
from .kernels import Norm
from .layer import SparseLayer
from .rows import SpikeRows, as_samples, channels_last

# With fewer currents, spikes are not worth holding in rows.
MIN_ELEMENTS = 2**15


@dataclass(frozen=True)
class LayerOnSpikes:
    """The output of a layer on spikes, which is not computed yet.

    Attributes:
        layer: the layer.
        blocks, bias: its parameters.
    """

    requires_grad = False

    layer: SparseLayer
    blocks: Tensor
    bias: Tensor | None

    @cached_property
    def like(self) -> Tensor:
        """A tensor `[T, B, O, ...]` without memory."""
        return torch.empty(1, dtype=self.layer.dtype).expand(self.layer.timesteps, *self.layer.shape)

    def value(self) -> Tensor:
        return self.layer.forward(self.blocks, self.bias)

    def normalised(self, norm: Norm) -> "NormalisedLayer":
        """With a batch-norm after it."""
        return NormalisedLayer(self, norm)

    def plus(self, residual: Tensor | SpikeRows) -> "NormalisedLayer":
        return NormalisedLayer(self, None, residual)

    def fire(
        self, neuron: Neuron, membrane: Tensor | None = None, *, keeps: bool = False
    ) -> tuple[SpikeRows, Tensor | None]:
        """The spikes of neurons on its output; see `NormalisedLayer.fire`."""
        return NormalisedLayer(self, None).fire(neuron, membrane, keeps=keeps)


@dataclass(frozen=True)
class NormalisedLayer:
    """A layer on spikes, perhaps with a batch-norm after it, and with a residual that is added."""

    requires_grad = False

    layer: LayerOnSpikes
    norm: Norm | None
    residual: Tensor | SpikeRows | None = None
    _given: ReadLater = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_given", ReadLater(self.residual, *(self.norm or ())))

    @property
    def like(self) -> Tensor:
        return self.layer.like

    def plus(self, residual: Tensor | SpikeRows) -> "NormalisedLayer":
        return replace(self, residual=residual)

    def value(self) -> Tensor:
        """The currents, for layers that are no neurons."""
        self._given.check()
        out = self.layer.layer.forward(self.layer.blocks, self.layer.bias, self.norm)
        if self.residual is None:
            return out
        return out + (self.residual.value() if isinstance(self.residual, SpikeRows) else self.residual)

    def fire(
        self, neuron: Neuron, membrane: Tensor | None = None, *, keeps: bool = False
    ) -> tuple[SpikeRows, Tensor | None]:
        """Send the currents through neurons.

        Args:
            neuron: of numbers only.
            membrane: before the first timestep, `[B, O, ...]`; None for a sequence that begins.
            keeps: whether the membranes after the last timestep are needed.

        Returns:
            The spikes, and the membranes after the last timestep, or None.
        """
        self._given.check()
        waiting, layer = self.layer, self.layer.layer
        if layer.geometry.groups > 1:  # whose blocks of outputs begin within words of the spikes
            return fire_in_rows(self.value(), layer.timesteps, neuron, membrane, keeps=keeps)
        residual, before = _residual(self.residual, layer.dtype), _start(neuron, membrane)
        bias = None if waiting.bias is None else waiting.bias.detach().float()
        given = layer.rows.rows, waiting.blocks, bias, layer.geometry, self.norm, residual, before, neuron
        return _spikes(kernels.forward_and_fire(*given, layer.dtype, keeps=keeps), torch.Size(layer.shape), layer.dtype)


def may_fire_in_rows(current: Tensor | NormalisedCurrent, timesteps: int, neuron: Neuron) -> bool:
    """Whether `fire_in_rows` takes these currents, and there are enough of them."""
    x = current if isinstance(current, Tensor) else current.x
    enough = x.numel() // len(x) * timesteps >= MIN_ELEMENTS
    return neuron.has_numbers_only and is_channels_last(x) and enough


def fire_in_rows(
    current: Tensor | NormalisedCurrent,
    timesteps: int,
    neuron: Neuron,
    membrane: Tensor | None = None,
    residual: SpikeRows | None = None,
    *,
    keeps: bool = False,
) -> tuple[SpikeRows, Tensor | None]:
    """The spikes of neurons, for the layers on spikes after them, without a graph.

    Args:
        current: `[T or 1, B, C, ...]`, with the channels last in memory.
        timesteps: T.
        neuron, membrane, keeps: see `NormalisedLayer.fire`.
        residual: spikes to be added, in place of the residual of a normalised current.
    """
    added: Tensor | SpikeRows | None = residual
    if isinstance(current, Tensor):
        x, scale = current, torch.ones(current.shape[2])
        shift = torch.zeros_like(scale)
    else:
        x, (scale, shift) = current.x, current.scale_and_shift()
        if residual is None:
            assert not isinstance(current.residual, SpikesInBits)  # which have a graph
            added = current.residual
    more = _residual(added, x.dtype)
    given = channels_last(x), timesteps, scale.flatten(), shift.flatten(), more, _start(neuron, membrane), neuron
    return _spikes(kernels.fire_rows(*given, keeps=keeps), x.shape[1:], x.dtype)


def _residual(residual: Tensor | SpikeRows | None, dtype: torch.dtype) -> Tensor | None:
    if isinstance(residual, SpikeRows):
        return residual.rows
    return None if residual is None else channels_last(residual.to(dtype))


def _start(neuron: Neuron, membrane: Tensor | None) -> float | Tensor:
    if membrane is not None:
        return channels_last(membrane.float().unsqueeze(0))[0]
    assert not isinstance(neuron.v_init, Tensor)
    return neuron.v_init


def _spikes(
    found: tuple[Tensor, int, Tensor | None], shape: torch.Size, dtype: torch.dtype
) -> tuple[SpikeRows, Tensor | None]:
    rows, number, after = found
    membrane = None if after is None else as_samples(after.unsqueeze(0), shape)[0]
    return SpikeRows(rows, shape, number, dtype), membrane
