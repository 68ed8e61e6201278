"""Layers and spikes of every shape, and the dense layer in float64 that they are held against."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from spikedistill.neurons import PackedSpikes
from spikedistill.neurons.loops.packed import pack
from spikedistill.sparse import Geometry, SpikeRows


class Case(NamedTuple):
    """Spikes `[T, B, C, H, W]`, a layer on them, and the arguments of `conv2d` after its bias."""

    spikes: Tensor
    weight: Tensor
    bias: Tensor
    places: tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]

    @property
    def geometry(self) -> Geometry:
        return Geometry.of(tuple(self.spikes.shape[1:]), tuple(self.weight.shape), *self.places)

    @property
    def rows(self) -> SpikeRows:
        return rows_of(self.spikes)

    def dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The output `[T, B, O, ...]` of the dense layer."""
        x, weight, bias = (part.to(dtype) for part in (self.spikes.flatten(0, 1), self.weight, self.bias))
        return F.conv2d(x, weight, bias, *self.places).unflatten(0, self.spikes.shape[:2])


def rows_of(spikes: Tensor, dtype: torch.dtype = torch.float32) -> SpikeRows:
    return SpikeRows.of(PackedSpikes(len(spikes), pack(list(spikes.float().unbind(0)))), dtype)


@st.composite
def cases(draw, groups=(1, 1, 2, 3)):
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (3, 1), (2, 4)]))
    stride, padding, dilation = (
        tuple(draw(st.lists(st.integers(first, last), min_size=2, max_size=2)))
        for first, last in ((1, 3), (0, 2), (1, 2))
    )
    spans = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = [draw(st.integers(max(1, span), max(1, span) + 8)) for span in spans]
    group = draw(st.sampled_from(groups))
    channels, outputs = (group * draw(st.sampled_from([1, 3, 16, 21, 33, 64, 65, 130])) for _ in range(2))
    timesteps, samples = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    density = draw(st.sampled_from([0.0, 0.02, 0.2, 0.5, 0.9, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    steady = torch.rand(samples, channels, *size, generator=generator)  # spikes that come at most timesteps
    each = torch.rand(timesteps, samples, channels, *size, generator=generator)
    spikes = ((0.7 * steady + 0.3 * each) < density).float()
    weight = torch.randn(outputs, channels // group, *kernel, generator=generator)
    return Case(spikes, weight, torch.randn(outputs, generator=generator), (stride, padding, dilation, group))
