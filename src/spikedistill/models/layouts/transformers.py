"""Spiking transformers: an embedding of patches by convolutions, then blocks of attention and two-layer networks.

Their residual connections are of two kinds. Some add spikes: neurons follow each body, and blocks return counts 0, 1, 2, ... Others
add currents: each body begins with neurons, so all its convolutions take spikes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ..attention import SelfAttention, SpikeDrivenAttention, mlp
from ..layers import DropPath, Layers, Layout, Sizes, register_layout


class Transformer(Layout):
    """Stages, global average pooling and a linear layer.

    Args:
        layers: the kinds of layer.
        stages: each with its channels at the end.
        num_classes: C.
        final_neuron: put neurons between the pooling and the linear layer, where residuals are currents.
    """

    def __init__(
        self, layers: Layers, stages: Sequence[tuple[nn.Module, int]], num_classes: int, *, final_neuron: bool = False
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(stage for stage, _ in stages))
        self.stage_channels = {f"stages.{place}": channels for place, (_, channels) in enumerate(stages)}
        self.pool = nn.AdaptiveAvgPool2d(1)
        last = stages[-1][1]
        self.final = layers.neuron(last) if final_neuron else nn.Identity()
        self.head = nn.Linear(last, num_classes)
        truncated_normal(self.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.stages(x))

    def classify(self, x: Tensor) -> Tensor:
        return self.head(self.final(self.pool(x).flatten(1)))


class Residual(nn.Module):
    """A body plus its input.

    Args:
        layers: the kinds of layer, and the share of samples for which the body is left out in training.
        body: from spikes to currents, with as many channels.
        channels: of both.
        adds_currents: add currents, with neurons before the body; otherwise spikes, with neurons behind it.
    """

    def __init__(self, layers: Layers, body: nn.Module, channels: int, *, adds_currents: bool = False) -> None:
        super().__init__()
        neuron = layers.neuron(channels)
        self.adds_currents = adds_currents
        self.body = nn.Sequential(neuron, body) if adds_currents else nn.Sequential(body, neuron)
        self.drop = DropPath(layers.drop_path) if layers.drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.body(x))


def max_pool() -> nn.Module:
    """3x3 max-pooling with stride 2: half the height and width, rounded up."""
    return nn.MaxPool2d(3, 2, padding=1)


def at_depth(layers: Layers, place: int, depth: int) -> Layers:
    """The layers of a block by its place among `depth`: none drops its bodies in the first, and most do in the last."""
    return replace(layers, drop_path=layers.drop_path * place / max(depth - 1, 1))


def block(layers: Layers, mixer: nn.Module | None, channels: int, *, adds_currents: bool = False) -> nn.Sequential:
    """A residual mixer of tokens, if there is one, then a residual network of two layers on each token."""
    bodies = mixer, mlp(layers, channels)
    return nn.Sequential(
        *(Residual(layers, body, channels, adds_currents=adds_currents) for body in bodies if body is not None)
    )


def columnar(
    layers: Layers,
    sizes: Sizes,
    attention: Callable[[Layers], nn.Module],
    *,
    channels: int,
    depth: int,
    halvings: Sequence[bool],
    adds_currents: bool,
) -> Transformer:
    """Tokens of one size from the embedding on, in blocks of one kind.

    The embedding has four convolutions, and a fifth as a residual, which tells tokens where they are. It is the first stage; the
    other two have half of the blocks each.

    Args:
        layers: the kinds of layer and the width.
        sizes: what the data fixes.
        attention: makes the attention of a block.
        channels: of a token.
        depth: how many blocks.
        halvings: behind which of the four convolutions the resolution is halved.
        adds_currents: whether residuals add currents or spikes.
    """
    counts = [max(1, channels // share) for share in (8, 4, 2)] + [channels]
    embedding: list[nn.Module] = []
    for place, (inputs, outputs, halved) in enumerate(
        zip([sizes.in_channels, *counts[:-1]], counts, halvings, strict=True)
    ):
        embedding.append(layers.conv_norm(inputs, outputs))
        if not adds_currents or place < 3:  # the residual after the last begins with its neurons
            embedding.append(layers.neuron(outputs))
        if halved:
            embedding.append(max_pool())
    embedding.append(
        Residual(at_depth(layers, 0, 1), layers.conv_norm(channels, channels), channels, adds_currents=adds_currents)
    )
    blocks = [
        block(at_depth(layers, place, depth), attention(layers), channels, adds_currents=adds_currents)
        for place in range(depth)
    ]
    parts = embedding, blocks[: depth // 2], blocks[depth // 2 :]
    stages = [(nn.Sequential(*part), channels) for part in parts]
    return Transformer(layers, stages, sizes.num_classes, final_neuron=adds_currents)


def spikformer_of(
    layers: Layers, sizes: Sizes, channels: int, heads: int, depth: int, halvings: Sequence[bool], *, bias: bool
) -> Transformer:
    """Spikformer of any size; `bias` is that of the convolutions of q, k and v."""
    width = layers.channels(channels, heads)
    return columnar(
        layers,
        sizes,
        lambda layers: SelfAttention(layers, width, heads, bias=bias),
        channels=width,
        depth=depth,
        halvings=halvings,
        adds_currents=False,
    )


def sdt_of(layers: Layers, sizes: Sizes, channels: int, depth: int, halvings: Sequence[bool]) -> Transformer:
    """The spike-driven transformer of any size. Its convolutions and their biases begin as those of its released code."""
    width = layers.channels(channels)
    network = columnar(
        layers,
        sizes,
        lambda layers: SpikeDrivenAttention(layers, width),
        channels=width,
        depth=depth,
        halvings=halvings,
        adds_currents=True,
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            truncated_normal(module)
    return network


def truncated_normal(layer: nn.Conv2d | nn.Linear) -> None:
    """Draw weights from N(0, 0.02²), and start biases at 0."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@register_layout()
def spikformer(layers: Layers, sizes: Sizes) -> Layout:
    """Spikformer-4-384 for small images (Zhou et al., ICLR 2023): residuals of spikes, 12 heads.

    Four blocks on a quarter of the resolution. 9,324,730 parameters with 10 classes.
    """
    network = spikformer_of(layers, sizes, 384, 12, 4, (False, False, True, True), bias=True)
    for module in network.stages[1:].modules():
        if isinstance(module, nn.Conv2d):  # linear layers in the released code
            truncated_normal(module)
    return network


@register_layout()
def spikformer_8_512(layers: Layers, sizes: Sizes) -> Layout:
    """Spikformer-8-512 for ImageNet (Zhou et al., ICLR 2023): residuals of spikes, 8 heads.

    Eight blocks on a 16th of the resolution. 29,689,384 parameters with 1000 classes.
    """
    return spikformer_of(layers, sizes, 512, 8, 8, (True, True, True, True), bias=False)


@register_layout()
def sdt(layers: Layers, sizes: Sizes) -> Layout:
    """Spike-driven transformer 2-512 for small images (Yao et al., NeurIPS 2023): residuals of currents.

    Two blocks on a quarter of the resolution. 10,233,418 parameters with 10 classes; the released code has 64 more in each block,
    which it does not use.
    """
    return sdt_of(layers, sizes, 512, 2, (False, False, True, True))


@register_layout()
def sdt_8_512(layers: Layers, sizes: Sizes) -> Layout:
    """Spike-driven transformer 8-512 for ImageNet (Yao et al., NeurIPS 2023): residuals of currents.

    Eight blocks on a 16th of the resolution. 29,689,384 parameters with 1000 classes; the released code has 64 more in each block,
    which it does not use.
    """
    return sdt_of(layers, sizes, 512, 8, (True, True, True, True))
