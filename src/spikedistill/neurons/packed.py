"""Spikes of many timesteps in one bit each."""

import torch
from torch import Tensor


class PackedSpikes:
    """Spikes `[T, B, ...]`, eight timesteps to a byte; written and read a few timesteps at a time.

    Args:
        timesteps: T.
        like: a tensor `[B, ...]` of the shape of one timestep, on the device to use.
    """

    def __init__(self, timesteps: int, like: Tensor) -> None:
        self.timesteps = timesteps
        self.bytes = torch.zeros(-(-timesteps // 8), *like.shape, dtype=torch.uint8, device=like.device)

    def write(self, start: int, spikes: Tensor) -> None:
        """Take in the zeros and ones `[n, B, ...]` of the timesteps from `start` on, which were not written before."""
        for t, fired in enumerate(spikes.to(torch.uint8).unbind(0), start):
            self.bytes[t // 8] |= fired << (t % 8)

    def read(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Zeros and ones `[stop - start, B, ...]`."""
        return torch.stack([((self.bytes[t // 8] >> (t % 8)) & 1).to(dtype) for t in range(start, stop)])
