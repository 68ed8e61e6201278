"""A layer on spikes, and its weights in the order in which spikes read them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..neurons import PackedSpikes, is_dense
from . import kernels
from .kernels import Geometry, Norm
from .rows import SpikeRows, as_samples, channels_last, rows_of


class _Kept(NamedTuple):
    layout: tuple[int, ...]
    writes: tuple[int, int]
    digest: int
    blocks: Tensor


class KeptBlocks:
    """The blocks of weights that do not change between calls, as in evaluation.

    Weights may be written to in ways that PyTorch does not count, such as through `.data`, so a digest of them is compared.
    """

    def __init__(self) -> None:
        self._kept: Any = WeakIdKeyDictionary()

    def of(self, weight: Tensor, dtype: torch.dtype, geometry: Geometry, *, goes_on: bool = False) -> Tensor:
        """The blocks of a weight `[O, C / groups, ...]`, rounded to a dtype.

        Args:
            weight: the weight.
            dtype: of the layer.
            geometry: of the layer.
            goes_on: whether this is a later timestep of a sequence, at whose first one the digest was compared. Then only the
                writes that PyTorch counts are.
        """
        if not weight.is_contiguous():
            return kernels.to_blocks(weight.to(dtype), geometry)
        # what decides about the order
        layout = geometry.channels, geometry.groups, geometry.taps, weight.dtype.itemsize, dtype.itemsize
        writes = weight.data_ptr(), 0 if weight.is_inference() else weight._version
        kept = self._kept.get(weight)
        fits = kept is not None and kept.layout == layout
        if goes_on and fits and kept.writes == writes:
            return kept.blocks
        digest = kernels.digest(weight)
        if not fits or kept.digest != digest:
            kept = _Kept(layout, writes, digest, kernels.to_blocks(weight.to(dtype), geometry))
            self._kept[weight] = kept
        elif kept.writes != writes:
            self._kept[weight] = kept._replace(writes=writes)
        return kept.blocks


@dataclass(frozen=True)
class SparseLayer:
    """A convolution or linear layer on spikes.

    Attributes:
        spikes: its input.
        geometry: of the layer.
        dtype: of its output and of the gradient with respect to it.
    """

    spikes: SpikeRows | PackedSpikes
    geometry: Geometry
    dtype: torch.dtype

    @property
    def rows(self) -> SpikeRows:
        """The input as the layer reads it; layers after the same neurons share it."""
        return rows_of(self.spikes, self.dtype)

    @cached_property
    def density(self) -> float:
        """The share of neurons before the layer that fire at a timestep."""
        spikes = self.spikes if isinstance(self.spikes, SpikeRows) else self.spikes.rows
        if spikes is None:
            bits = self.spikes.bits  # type: ignore[union-attr]
            number = kernels.count_bits(bits) if is_dense(bits) else int(bits.count_nonzero())
            return number / max(1, self.timesteps * self.input_shape.numel())
        return float(spikes.density)

    @property
    def timesteps(self) -> int:
        return self.spikes.timesteps

    @property
    def input_shape(self) -> torch.Size:
        """Of a sample batch of the input."""
        return self.spikes.shape if isinstance(self.spikes, SpikeRows) else self.spikes.bits.shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample batch of the output."""
        g, axes = self.geometry, len(self.input_shape)
        return (g.images, g.outputs, *(g.out_h, g.out_w)[4 - axes :])

    def forward(self, blocks: Tensor, bias: Tensor | None, norm: Norm | None = None) -> Tensor:
        """The output `[T, B, O, ...]` with weights in blocks, without a graph, with the channels last in memory.

        Args:
            blocks: the weights.
            bias: `[O]`.
            norm: a batch-norm after it, which is then computed too.
        """
        bias = None if bias is None else bias.detach().float()
        out = kernels.forward(self.rows.rows, blocks, bias, self.geometry, self.dtype, norm)
        return as_samples(out, self.shape)

    def weight_gradient(self, grad: Tensor, weight: Tensor) -> Tensor:
        """The gradient with respect to the weight from that with respect to the output `[T, B, O, ...]`."""
        found = kernels.weight_gradient(self.rows.rows, channels_last(grad.to(self.dtype)), self.geometry, weight.shape)
        return found.to(weight.dtype)
