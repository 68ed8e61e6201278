"""Spiking transformers in three stages, each with twice the channels of the one before and fewer tokens."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ..attention import SelfAttention, TokenAttention
from ..layers import Layers, Layout, Sizes, register_layout
from .transformers import Tokens, Transformer, block, max_pool


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
    layers: Layers, before: int, after: int, *, kernel: int = 3, stride: int = 1, halved: bool = False
) -> nn.Sequential:
    """Neurons behind a convolution and batch-norm, with max-pooling of the currents if `halved`."""
    current = layers.conv_norm(before, after, kernel=kernel, stride=stride)
    return nn.Sequential(current, *([max_pool()] if halved else []), layers.neuron(after))


Embeddings = Sequence[Callable[[int, int], nn.Module]]
"""Make the embedding of each stage, of the channels before and after it."""


def hierarchical(
    layers: Layers,
    sizes: Sizes,
    embeddings: Embeddings,
    mixers: Sequence[Callable[[int], nn.Module | None]],
    counts: Sequence[int],
    depths: Sequence[int],
    *,
    adds_currents: bool = False,
) -> Transformer:
    """Three stages, each an embedding and blocks.

    Args:
        layers: the kinds of layer.
        sizes: what the data fixes.
        embeddings: those of the stages.
        mixers: make what mixes the tokens in a block of each stage, of its channels.
        counts: channels per stage.
        depths: blocks per stage.
        adds_currents: whether residuals add currents or spikes.
    """
    last = sum(depths) - 1
    places = iter(range(last + 1))
    stages: list[tuple[nn.Module, int]] = []
    for before, count, embed, mixer, depth in zip(
        [sizes.in_channels, *counts[:-1]], counts, embeddings, mixers, depths, strict=True
    ):
        tokens = Tokens(layers, count, adds_currents)
        blocks = [block(tokens.at(next(places) / last), mixer(count)) for _ in range(depth)]
        stages.append((nn.Sequential(embed(before, count), *blocks), count))
    return Transformer(layers, stages, sizes.num_classes, final_neuron=adds_currents)


def doubling(layers: Layers, last: int, multiple: int) -> list[int]:
    """Channels of three stages, of which the last has that many at width 1; all are multiples of a number."""
    return [layers.channels(last // part, multiple) for part in (4, 2, 1)]


def qkformer_of(
    layers: Layers, sizes: Sizes, embeddings: Embeddings, channels: int, heads: int, depths: Sequence[int]
) -> Transformer:
    """QKFormer of any size: attention over tokens in the first two stages, spiking self-attention in the last."""

    def over_tokens(count: int) -> nn.Module:
        return TokenAttention(layers, count, heads)

    mixers = over_tokens, over_tokens, lambda count: SelfAttention(layers, count, heads)
    return hierarchical(layers, sizes, embeddings, mixers, doubling(layers, channels, heads), depths)


def imagenet_embeddings(layers: Layers) -> Embeddings:
    """Those of QKFormer for ImageNet: each halves the resolution at its first convolution, and the first one once before."""

    def first(inputs: int, outputs: int) -> nn.Module:
        half = max(1, outputs // 2)
        return nn.Sequential(spikes(layers, inputs, half, halved=True), later(half, outputs))

    def later(before: int, after: int) -> nn.Module:
        body = nn.Sequential(spikes(layers, before, after, halved=True), spikes(layers, after, after))
        return SplitEmbedding(nn.Identity(), body, spikes(layers, before, after, kernel=1, stride=2))

    return first, later, later


@register_layout()
def qkformer(layers: Layers, sizes: Sizes) -> Layout:
    """QKFormer HST-4-384 for small images (Zhou et al., NeurIPS 2024): residuals of spikes, 8 heads.

    Stages at the full resolution, half and a quarter of it. 6,706,234 parameters with 10 classes.
    """

    def first(inputs: int, outputs: int) -> nn.Module:
        half = max(1, outputs // 2)
        way = spikes(layers, half, outputs), spikes(layers, half, outputs, kernel=1)
        return SplitEmbedding(spikes(layers, inputs, half), *way)

    def later(before: int, after: int) -> nn.Module:
        body = nn.Sequential(spikes(layers, before, after), spikes(layers, after, after, halved=True))
        return SplitEmbedding(nn.Identity(), body, spikes(layers, before, after, kernel=1, stride=2))

    return qkformer_of(layers, sizes, (first, later, later), 384, 8, (1, 1, 2))


@register_layout()
def qkformer_10_384(layers: Layers, sizes: Sizes) -> Layout:
    """QKFormer HST-10-384 for ImageNet (Zhou et al., NeurIPS 2024): residuals of spikes, 6 heads.

    Stages at a quarter, an eighth and a 16th of the resolution. 16,473,688 parameters with 1000 classes.
    """
    return qkformer_of(layers, sizes, imagenet_embeddings(layers), 384, 6, (1, 2, 7))


@register_layout()
def qkformer_10_768(layers: Layers, sizes: Sizes) -> Layout:
    """QKFormer HST-10-768 for ImageNet (Zhou et al., NeurIPS 2024): residuals of spikes, 12 heads.

    Stages at a quarter, an eighth and a 16th of the resolution. 64,962,760 parameters with 1000 classes.
    """
    return qkformer_of(layers, sizes, imagenet_embeddings(layers), 768, 12, (1, 2, 7))


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

    def later(before: int, after: int) -> nn.Module:
        body = nn.Sequential(spikes(layers, before, after, halved=True), layers.conv_norm(after, after))
        shortcut = nn.Sequential(layers.conv_norm(before, after, kernel=1), max_pool())
        return SplitEmbedding(layers.neuron(before), body, shortcut)

    biased = replace(layers, conv_bias=True)
    mixers = (
        lambda count: None,
        lambda count: biased.conv_norm(count, count, groups=count),
        lambda count: SelfAttention(layers, count, 8),
    )
    counts = doubling(layers, 384, 8)
    return hierarchical(layers, sizes, (first, later, later), mixers, counts, (1, 1, 2), adds_currents=True)
