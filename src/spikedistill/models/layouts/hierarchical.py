"""Spiking transformers in three stages, each with twice the channels of the one before and fewer tokens."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ..attention import SelfAttention, TokenAttention
from ..layers import Layers, Layout, Sizes, register_layout
from .transformers import Transformer, at_depth, block, max_pool


class SplitEmbedding(nn.Module):
    """Two ways from one layer of spikes, added: a body of 3x3 convolutions, and a 1x1 convolution.

    Args:
        first: what comes before the ways part.
        body: the long way.
        shortcut: the short one.
    """

    def __init__(self, first: nn.Module, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.first, self.body, self.shortcut = first, body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.body(x) + self.shortcut(x)


def spikes(
    layers: Layers, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, halved: bool = False
) -> nn.Sequential:
    """Neurons behind a convolution and batch-norm, with max-pooling of the currents if `halved`."""
    current = layers.conv_norm(inputs, outputs, kernel=kernel, stride=stride)
    return nn.Sequential(current, *([max_pool()] if halved else []), layers.neuron(outputs))


def hierarchical(
    layers: Layers,
    sizes: Sizes,
    embeddings: Sequence[Callable[[int, int], nn.Module]],
    mixers: Sequence[Callable[[int], nn.Module | None]],
    *,
    channels: int,
    heads: int,
    depths: Sequence[int],
    adds_currents: bool = False,
) -> Transformer:
    """Three stages, each an embedding and blocks.

    Args:
        layers: the kinds of layer and the width.
        sizes: what the data fixes.
        embeddings: make the embedding of each stage, of the channels before and after it.
        mixers: make what mixes the tokens in a block of each stage, of its channels.
        channels: of the last stage at width 1.
        heads: among which the channels of every stage are split.
        depths: blocks per stage.
        adds_currents: whether residuals add currents or spikes.
    """
    counts = [layers.channels(channels // share, heads) for share in (4, 2, 1)]
    stages: list[tuple[nn.Module, int]] = []
    first = 0
    for before, count, embed, mixer, depth in zip(
        [sizes.in_channels, *counts[:-1]], counts, embeddings, mixers, depths, strict=True
    ):
        blocks = [
            block(at_depth(layers, place + first, sum(depths)), mixer(count), count, adds_currents=adds_currents)
            for place in range(depth)
        ]
        first += depth
        stages.append((nn.Sequential(embed(before, count), *blocks), count))
    return Transformer(layers, stages, sizes.num_classes, final_neuron=adds_currents)


def qkformer_for_imagenet(layers: Layers, sizes: Sizes, channels: int, heads: int) -> Transformer:
    """QKFormer-10: each embedding halves the resolution at its first convolution, and the first embedding once before."""

    def first(inputs: int, outputs: int) -> nn.Module:
        half = max(1, outputs // 2)
        return nn.Sequential(spikes(layers, inputs, half, halved=True), later(half, outputs))

    def later(inputs: int, outputs: int) -> nn.Module:
        body = nn.Sequential(spikes(layers, inputs, outputs, halved=True), spikes(layers, outputs, outputs))
        return SplitEmbedding(nn.Identity(), body, spikes(layers, inputs, outputs, kernel=1, stride=2))

    return qkformer_of(layers, sizes, (first, later, later), channels=channels, heads=heads, depths=(1, 2, 7))


def qkformer_of(
    layers: Layers,
    sizes: Sizes,
    embeddings: Sequence[Callable[[int, int], nn.Module]],
    *,
    channels: int,
    heads: int,
    depths: Sequence[int],
) -> Transformer:
    """QKFormer of any size: attention over tokens in the first two stages, spiking self-attention in the last."""
    mixers = [
        lambda count: TokenAttention(layers, count, heads),
        lambda count: TokenAttention(layers, count, heads),
        lambda count: SelfAttention(layers, count, heads),
    ]
    return hierarchical(layers, sizes, embeddings, mixers, channels=channels, heads=heads, depths=depths)


@register_layout()
def qkformer(layers: Layers, sizes: Sizes) -> Layout:
    """QKFormer HST-4-384 for small images (Zhou et al., NeurIPS 2024): residuals of spikes, 8 heads.

    Stages at the full resolution, half and a quarter of it. 6,706,234 parameters with 10 classes.
    """

    def first(inputs: int, outputs: int) -> nn.Module:
        half = max(1, outputs // 2)
        way = spikes(layers, half, outputs), spikes(layers, half, outputs, kernel=1)
        return SplitEmbedding(spikes(layers, inputs, half), *way)

    def later(inputs: int, outputs: int) -> nn.Module:
        body = nn.Sequential(spikes(layers, inputs, outputs), spikes(layers, outputs, outputs, halved=True))
        return SplitEmbedding(nn.Identity(), body, spikes(layers, inputs, outputs, kernel=1, stride=2))

    return qkformer_of(layers, sizes, (first, later, later), channels=384, heads=8, depths=(1, 1, 2))


@register_layout()
def qkformer_10_384(layers: Layers, sizes: Sizes) -> Layout:
    """QKFormer HST-10-384 for ImageNet (Zhou et al., NeurIPS 2024): residuals of spikes, 6 heads.

    Stages at a quarter, an eighth and a 16th of the resolution. 16,473,688 parameters with 1000 classes.
    """
    return qkformer_for_imagenet(layers, sizes, 384, 6)


@register_layout()
def qkformer_10_768(layers: Layers, sizes: Sizes) -> Layout:
    """QKFormer HST-10-768 for ImageNet (Zhou et al., NeurIPS 2024): residuals of spikes, 12 heads.

    Stages at a quarter, an eighth and a 16th of the resolution. 64,962,760 parameters with 1000 classes.
    """
    return qkformer_for_imagenet(layers, sizes, 768, 12)


@register_layout()
def max_former(layers: Layers, sizes: Sizes) -> Layout:
    """Max-Former-4-384 for small images (Fang et al., NeurIPS 2025): residuals of currents, attention in the last stage only.

    The first stage mixes no tokens, the second by a 3x3 depthwise convolution, the third by spiking self-attention of 8 heads; they
    are at the full resolution, half and a quarter of it. 6,568,282 parameters with 10 classes.
    """

    def first(inputs: int, outputs: int) -> nn.Module:
        half = max(1, outputs // 2)
        way = layers.conv_norm(half, outputs), layers.conv_norm(half, outputs, kernel=1)
        return SplitEmbedding(spikes(layers, inputs, half), *way)

    def later(inputs: int, outputs: int) -> nn.Module:
        body = nn.Sequential(spikes(layers, inputs, outputs, halved=True), layers.conv_norm(outputs, outputs))
        shortcut = nn.Sequential(layers.conv_norm(inputs, outputs, kernel=1), max_pool())
        return SplitEmbedding(layers.neuron(inputs), body, shortcut)

    biased = replace(layers, conv_bias=True)
    mixers = [
        lambda count: None,
        lambda count: biased.conv_norm(count, count, groups=count),
        lambda count: SelfAttention(layers, count, 8),
    ]
    return hierarchical(
        layers, sizes, (first, later, later), mixers, channels=384, heads=8, depths=(1, 1, 2), adds_currents=True
    )
