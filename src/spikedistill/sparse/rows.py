"""Spikes in rows of bits, as layers on spikes read them."""

from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from ..neurons import PackedSpikes
from .kernels import Geometry, bits_of_rows, pool_rows, rows_of_bits, unpack_rows


class SpikeRows:
    """Spikes `[T, B, C, ...]`: for each position of an image and 64 channels, a word of bits at every timestep.

    Args:
        rows: `[positions, words, T]`.
        shape: of a sample batch, `[B, C, H, W]`, `[B, C, L]` or `[B, C]`.
        number: how many spikes there are.
        dtype: in which `value` returns them.

    Attributes:
        source: the layer of neurons that fired them, if it is known.
    """

    requires_grad = False

    def __init__(self, rows: Tensor, shape: torch.Size, number: int, dtype: torch.dtype) -> None:
        self.rows = rows
        self.shape = shape
        self.number = number
        self.dtype = dtype
        self.source: Any = None

    @classmethod
    def of(cls, packed: PackedSpikes, dtype: torch.dtype) -> Self:
        """Those of packed spikes `[T, B, C, ...]`, whose bits lie in memory with the channels last."""
        stored = channels_last(packed.bits)
        rows, number = rows_of_bits(stored, packed.timesteps)
        found = cls(rows, packed.bits.shape[1:], number, dtype)
        found.source = packed.source
        return found

    @property
    def timesteps(self) -> int:
        return self.rows.shape[-1]

    @property
    def density(self) -> float:
        """The share of neurons that fire at a timestep."""
        return self.number / max(1, self.timesteps * self.shape.numel())

    @cached_property
    def like(self) -> Tensor:
        """A tensor `[T, B, C, ...]` without memory."""
        return torch.empty(1, dtype=self.dtype).expand(self.timesteps, *self.shape)

    def read(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Zeros and ones `[stop - start, B, C, ...]`."""
        return as_samples(unpack_rows(self.rows, self.shape[1], start, stop, dtype), self.shape)

    def value(self) -> Tensor:
        return self.read(0, self.timesteps, self.dtype)

    def packed(self) -> PackedSpikes:
        """The same spikes with the timesteps of a neuron in a byte."""
        return PackedSpikes(self.timesteps, as_samples(bits_of_rows(self.rows, self.shape[1]), self.shape))

    def max_pooled(self, windows: Geometry) -> Self:
        """A window has a spike where any neuron in it has one; the geometry is that of the windows, with as many outputs."""
        rows, number = pool_rows(self.rows, windows)
        shape = torch.Size((*self.shape[:2], *(windows.out_h, windows.out_w)[4 - len(self.shape) :]))
        pooled = type(self)(rows, shape, number, self.dtype)
        pooled.source = self.source
        return pooled


def rows_of(spikes: PackedSpikes | SpikeRows, dtype: torch.dtype) -> SpikeRows:
    """The spikes in rows; those made of packed spikes are kept with them."""
    if isinstance(spikes, SpikeRows):
        return spikes
    if spikes.rows is None:
        spikes.rows = SpikeRows.of(spikes, dtype)
    found: SpikeRows = spikes.rows
    return found


def channels_last(x: Tensor) -> Tensor:
    """`[t, B, C, ...]` as `[t, positions, C]`; a view if the channels come last in memory."""
    return x.movedim(2, -1).contiguous().view(len(x), -1, x.shape[2])


def as_samples(stored: Tensor, shape: Any) -> Tensor:
    """`[t, positions, C]` as a view `[t, B, C, ...]` of samples of that shape."""
    return stored.view(len(stored), shape[0], *shape[2:], shape[1]).movedim(-1, 2)
