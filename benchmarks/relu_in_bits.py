"""A ReLU network on layers on spikes: its activations in n bits, of which each is a spike at a timestep of its own.

An activation x >= 0 is held as a whole number q = min(round(x / s), 2^n - 1), with s from training images. With bits b_i of q, a
layer W of it is s (2^0 W b_0 + ... + 2^(n-1) W b_(n-1)): what layers on spikes compute over n timesteps, weighted by powers of 2.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spikedistill.models.layers import Normalize
from spikedistill.models.layouts.resnet import BasicBlock, ResNet
from spikedistill.neurons import PackedSpikes
from spikedistill.sparse import KeptBlocks, SparseLayer
from spikedistill.through_time.on_spikes import geometry_of

_SHARE = 0.999  # of activations that the largest number covers
_REPEATS = 20  # of a layer, to time it
_BLOCKS = KeptBlocks()


class Levels(NamedTuple):
    """Activations: whole numbers `[B, C, H, W]`, uint8, and the size of one."""

    q: Tensor
    size: float

    def value(self) -> Tensor:
        return self.q.float() * self.size


class ReluInBits:
    """A trained ReLU ResNet, layer by layer, in float32 until `hold_in_bits`.

    Args:
        normalize: of its images.
        network: the network, in eval mode.
    """

    def __init__(self, normalize: Normalize, network: ResNet) -> None:
        self.bits: int | None = None
        self.normalize, self.network = normalize, network
        self._folded: dict[nn.Module, nn.Conv2d] = {}
        for pair in network.modules():
            if isinstance(pair, nn.Sequential) and isinstance(pair[0], nn.Conv2d):
                conv, norm = pair
                assert isinstance(conv, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                self._folded[pair] = fuse_conv_bn_eval(conv, norm)
        self._stem, *_ = self._folded
        self._blocks = [block for block in network.modules() if isinstance(block, BasicBlock)]
        self._sparse: dict[nn.Module, bool] = {}
        self._sizes: list[float] = []

    @torch.no_grad()
    def hold_in_bits(self, bits: int, images: Tensor) -> None:
        """Hold activations in so many bits from now on, 1 to 8.

        Args:
            bits: n.
            images: `[N, 3, H, W]`, of the training set; they give the size of a level in each layer, and the first of them shows
                which layers are faster on spikes.
        """
        found: list[float] = []
        self.bits, self._sizes, self._sparse = None, [], {}
        self._run(images, found)
        self.bits, self._sizes = bits, [largest / (2**bits - 1) for largest in found]
        self._run(images[:1])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits `[B, C]`."""
        return self._run(images)

    def _run(self, images: Tensor, found: list[float] | None = None) -> Tensor:
        place = iter(self._sizes)

        def relu(currents: Tensor) -> Levels | Tensor:
            if self.bits is None:
                x = currents.relu()
                if found is not None:
                    found.append(float(x.flatten()[:: max(1, x.numel() // 2**20)].quantile(_SHARE)))
                return x
            size = next(place)
            return Levels((currents / size).round_().clamp_(0, 2**self.bits - 1).to(torch.uint8), size)

        x = relu(self._folded[self._stem](self.normalize(images).contiguous(memory_format=torch.channels_last)))
        for block in self._blocks:
            inside = relu(self._layer(block.body[0], x))
            straight = _value(x) if isinstance(block.shortcut, nn.Identity) else self._layer(block.shortcut, x)
            x = relu(self._layer(block.body[2], inside) + straight)
        return self.network.classify(_value(x))

    def _layer(self, pair: nn.Module, x: Levels | Tensor) -> Tensor:
        conv = self._folded[pair]
        if isinstance(x, Tensor):
            return _dense(conv, x)
        if pair not in self._sparse:
            self._sparse[pair] = _seconds(lambda: self._on_spikes(conv, x)) < _seconds(lambda: _dense(conv, x.value()))
        return self._on_spikes(conv, x) if self._sparse[pair] else _dense(conv, x.value())

    def _on_spikes(self, conv: nn.Conv2d, x: Levels) -> Tensor:
        assert self.bits is not None
        geometry = geometry_of("conv2d", x.q.shape, conv.weight, conv.stride, conv.padding)
        assert geometry is not None
        layer = SparseLayer(PackedSpikes(self.bits, x.q.unsqueeze(0)), geometry, torch.float32)
        each = layer.forward(_BLOCKS.of(conv.weight, torch.float32, geometry), None)  # [n, B, O, H, W]
        worth = x.size * 2.0 ** torch.arange(self.bits)
        out = torch.einsum("nbohw,n->bohw", each, worth)
        return out if conv.bias is None else out.add_(conv.bias.view(-1, 1, 1))

    @property
    def on_spikes(self) -> int:
        """How many layers run on spikes."""
        return sum(self._sparse.values())


def _value(x: Levels | Tensor) -> Tensor:
    return x if isinstance(x, Tensor) else x.value()


def _dense(conv: nn.Conv2d, x: Tensor) -> Tensor:
    out: Tensor = conv(x)
    return out


def _seconds(layer: Callable[[], Tensor]) -> float:
    layer()
    begun = time.perf_counter()
    for _ in range(_REPEATS):
        layer()
    return time.perf_counter() - begun
