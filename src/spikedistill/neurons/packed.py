"""Spikes of many timesteps in one bit each."""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiler import applies, compiled
from .memory_format import as_shown, as_stored


class PackedSpikes:
    """Spikes `[T, B, ...]`, eight timesteps to a byte; written and read a few timesteps at a time.

    Args:
        timesteps: T.
        bits: `[ceil(T / 8), B, ...]`, bit t % 8 of byte t // 8 is the spike of timestep t.
    """

    def __init__(self, timesteps: int, bits: Tensor) -> None:
        self.timesteps = timesteps
        self.bits = bits

    @classmethod
    def silent(cls, timesteps: int, like: Tensor) -> Self:
        """No spikes yet, for neurons `[B, ...]` of the shape and on the device of `like`."""
        return cls(timesteps, torch.zeros(-(-timesteps // 8), *like.shape, dtype=torch.uint8, device=like.device))

    def write(self, start: int, spikes: Tensor) -> None:
        """Take in the zeros and ones `[n, B, ...]` of the timesteps from `start` on, which were not written before."""
        for t, fired in enumerate(spikes.to(torch.uint8).unbind(0), start):
            self.bits[t // 8] |= fired << (t % 8)

    def read(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Zeros and ones `[stop - start, B, ...]`."""
        first, count = start // 8, stop - start
        run = compiled(unpack) if applies(self.bits, times=count) else unpack
        bits = as_stored(self.bits[first : -(-stop // 8)], self.bits)
        return as_shown(run(bits, start - 8 * first, count, dtype), self.bits)

    def padded(self, sizes: list[int]) -> Self:
        """With neurons that never fire around them, as `torch.nn.functional.pad` takes their sizes."""
        return type(self)(self.timesteps, F.pad(self.bits, sizes))


def pack(spikes: Sequence[Tensor]) -> Tensor:
    """Zeros and ones `[B, ...]` of T timesteps, floating point, in the bits of `[ceil(T / 8), B, ...]`."""
    # sums of powers of two: compilers make better loops of them than of shifted bytes
    groups = [spikes[first : first + 8] for first in range(0, len(spikes), 8)]
    sums = [torch.stack([fired * 2.0**t for t, fired in enumerate(group)]).sum(0) for group in groups]
    return torch.stack(sums).to(torch.uint8)


def unpack(bits: Tensor, first: int, count: int, dtype: torch.dtype) -> Tensor:
    """The zeros and ones `[count, B, ...]` from bit `first` on."""
    return torch.stack([((bits[t // 8] >> (t % 8)) & 1).to(dtype) for t in range(first, first + count)])
