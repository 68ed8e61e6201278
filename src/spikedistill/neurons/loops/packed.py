"""Spikes of many timesteps, one bit each."""

import functools
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .memory_format import as_shown, as_stored
from .paths import kernels_for


class PackedSpikes:
    """Spikes `[T, B, ...]`, eight timesteps to a byte; written and read a few timesteps at a time.

    Args:
        timesteps: T.
        bits: `[ceil(T / 8), B, ...]`, bit t % 8 of byte t // 8 is the spike of timestep t.

    Attributes:
        rows: the same spikes as layers on spikes read them, once one has.
        source: the layer of neurons that fired them, if it is known.
    """

    def __init__(self, timesteps: int, bits: Tensor) -> None:
        self.timesteps = timesteps
        self.bits = bits
        self.rows: Any = None
        self.source: Any = None

    @classmethod
    def silent(cls, timesteps: int, like: Tensor) -> Self:
        """Without spikes, for neurons `[B, ...]` of the shape and on the device of `like`."""
        return cls(timesteps, torch.zeros(-(-timesteps // 8), *like.shape, dtype=torch.uint8, device=like.device))

    def write(self, start: int, spikes: Sequence[Tensor]) -> None:
        """Store the zeros and ones `[B, ...]` of the timesteps from `start` on, each timestep once."""
        for t, fired in enumerate(spikes, start):
            self.bits[t // 8] |= fired.to(torch.uint8) << (t % 8)

    def read(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Zeros and ones `[stop - start, B, ...]`.

        Raises:
            IndexError: for timesteps outside 0 to T.
        """
        if not 0 <= start <= stop <= self.timesteps:
            raise IndexError(f"there are {self.timesteps} timesteps; asked for {start} to {stop - 1}")
        bits = as_stored(self.bits, self.bits)
        if (kernels := kernels_for(bits)) and dtype in kernels.DTYPES:
            return as_shown(kernels.unpack(bits, start, stop, dtype), self.bits)
        spikes = torch.empty(stop - start, *bits.shape[1:], dtype=dtype, device=bits.device)
        for out, t in zip(spikes.unbind(0), range(start, stop), strict=True):
            # a loop over bytes only is fast; a compiled loop over bytes and floats is not
            out.copy_((bits[t // 8] & (1 << t % 8)).ne_(0))
        return as_shown(spikes, self.bits)

    def count(self) -> Tensor:
        """How many spikes there are, float64."""
        bits = self.bits.flatten()
        # eight bytes at a time: sums of neighbouring bits, of pairs of these, and of nibbles
        x = F.pad(bits, [0, -len(bits) % 8]).view(torch.int64)
        x = x - ((x >> 1) & 0x5555555555555555)
        x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
        return ((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F).view(torch.uint8).sum(dtype=torch.int64).double()

    def padded(self, sizes: list[int]) -> Self:
        """Padded with neurons that never fire; sizes as for `torch.nn.functional.pad`."""
        return type(self)(self.timesteps, F.pad(self.bits, sizes))


class SpikesInBits:
    """Spikes `[T, B, ...]` with their graph, whose values are held in bits.

    Args:
        carrier: a tensor of their shape that has their graph and no memory.
        packed: their values.
    """

    def __init__(self, carrier: Tensor, packed: PackedSpikes) -> None:
        self.like = carrier
        self.packed = packed

    @property
    def requires_grad(self) -> bool:
        return self.like.requires_grad

    def value(self) -> Tensor:
        """Zeros and ones."""
        return _Unpacked.apply(self.like, self.packed)

    def mean(self) -> Tensor:
        """The share of ones, a scalar."""
        return _Mean.apply(self.like, self.packed)


def carrier(like: Tensor, timesteps: int) -> Tensor:
    """A tensor of T times the shape of a timestep of `like`, without memory."""
    return like.new_zeros(()).expand(timesteps, *like.shape[1:])


class _Unpacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, carrier: Tensor, packed: PackedSpikes) -> Tensor:
        return packed.read(0, packed.timesteps, carrier.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, carrier: Tensor, packed: PackedSpikes) -> Tensor:
        ctx.like = carrier
        return (packed.count() / carrier.numel()).to(carrier.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (grads[0] / ctx.like.numel()).expand(ctx.like.shape), None


def pack(spikes: Sequence[Tensor], unit: Tensor | float = 1.0) -> Tensor:
    """Zeros and ones `[B, ...]` of T timesteps, floating point, in the bits of `[ceil(T / 8), B, ...]`.

    Args:
        unit: ones with the axes that a compiled loop needs.
    """
    # a compiled loop keeps these sums in registers; it would write a stack or shifted bytes to memory
    groups = [spikes[first : first + 8] for first in range(0, len(spikes), 8)]
    sums = [functools.reduce(torch.add, [fired * 2.0**t for t, fired in enumerate(group)]) for group in groups]
    return torch.stack([(total * unit).to(torch.uint8) for total in sums])
