"""Spiking transformers: an embedding of patches by convolutions, then blocks of attention and two-layer networks.

Their residual connections are of two kinds. Some add spikes: neurons follow each body, and blocks return counts 0, 1, 2, ... Others
add currents: each body begins with neurons, so all its convolutions take spikes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

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


@dataclass(frozen=True)
class Tokens:
    """What residual connections carry from block to block.

    Attributes:
        layers: the kinds of layer.
        channels: of a token.
        adds_currents: whether residuals add currents or spikes.
        drop_path: the share of samples for which a residual body is left out in training.
    """

    layers: Layers
    channels: int
    adds_currents: bool = False
    drop_path: float = 0.0

    def at(self, depth: float) -> Self:
        """The tokens at a depth from 0, where no body is left out, to 1, where most are."""
        return replace(self, drop_path=self.layers.drop_path * depth)


class Residual(nn.Module):
    """A body plus its input.

    Args:
        tokens: of input and output. Where residuals add currents, neurons come before the body; otherwise behind it.
        body: from spikes to currents.
    """

    def __init__(self, tokens: Tokens, body: nn.Module) -> None:
        super().__init__()
        self.adds_currents = tokens.adds_currents
        neuron = tokens.layers.neuron(tokens.channels)
        self.body = nn.Sequential(neuron, body) if self.adds_currents else nn.Sequential(body, neuron)
        self.drop = DropPath(tokens.drop_path) if tokens.drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.body(x))


def max_pool() -> nn.Module:
    """3x3 max-pooling with stride 2: half the height and width, rounded up."""
    return nn.MaxPool2d(3, 2, padding=1)


def block(tokens: Tokens, mixer: nn.Module | None) -> nn.Sequential:
    """A residual mixer of tokens, if there is one, then a residual network of two layers on each token."""
    bodies = mixer, mlp(tokens.layers, tokens.channels)
    return nn.Sequential(*(Residual(tokens, body) for body in bodies if body is not None))


def columnar(
    tokens: Tokens, sizes: Sizes, attention: Callable[[], nn.Module], blocks: int, halvings: Sequence[bool]
) -> Transformer:
    """Tokens of one size from the embedding on, in blocks of one kind.

    The embedding has four convolutions, and a fifth as a residual, which tells tokens where they are. It is the first stage; the
    other two have half of the blocks each.

    Args:
        tokens: what the blocks pass on.
        sizes: what the data fixes.
        attention: makes the attention of a block.
        blocks: how many.
        halvings: behind which of the four convolutions the resolution is halved.
    """
    layers, channels = tokens.layers, tokens.channels
    counts = [max(1, channels // part) for part in (8, 4, 2)] + [channels]
    embedding: list[nn.Module] = []
    for place, (inputs, outputs, halved) in enumerate(
        zip([sizes.in_channels, *counts[:-1]], counts, halvings, strict=True)
    ):
        embedding.append(layers.conv_norm(inputs, outputs))
        if not tokens.adds_currents or place < 3:  # the residual after the last begins with its neurons
            embedding.append(layers.neuron(outputs))
        if halved:
            embedding.append(max_pool())
    embedding.append(Residual(tokens, layers.conv_norm(channels, channels)))
    made = [block(tokens.at(place / (blocks - 1)), attention()) for place in range(blocks)]
    parts = embedding, made[: blocks // 2], made[blocks // 2 :]
    stages = [(nn.Sequential(*part), channels) for part in parts]
    return Transformer(layers, stages, sizes.num_classes, final_neuron=tokens.adds_currents)


def truncated_normal(layer: nn.Conv2d | nn.Linear) -> None:
    """Draw weights from N(0, 0.02²), and start biases at 0."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def sdt_of(layers: Layers, sizes: Sizes, blocks: int, halvings: Sequence[bool]) -> Transformer:
    """The spike-driven transformer with 512 channels. Its convolutions begin as those of its released code."""
    tokens = Tokens(layers, layers.channels(512), adds_currents=True)
    network = columnar(tokens, sizes, lambda: SpikeDrivenAttention(layers, tokens.channels), blocks, halvings)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            truncated_normal(module)
    return network


@register_layout()
def spikformer(layers: Layers, sizes: Sizes) -> Layout:
    """Spikformer-4-384 for small images (Zhou et al., ICLR 2023): residuals of spikes, 12 heads.

    Four blocks on a quarter of the resolution. 9,324,730 parameters with 10 classes.
    """
    tokens = Tokens(layers, layers.channels(384, 12))
    halvings = False, False, True, True
    network = columnar(tokens, sizes, lambda: SelfAttention(layers, tokens.channels, 12, bias=True), 4, halvings)
    for module in network.stages[1:].modules():
        if isinstance(module, nn.Conv2d):  # linear layers in the released code
            truncated_normal(module)
    return network


@register_layout()
def spikformer_8_512(layers: Layers, sizes: Sizes) -> Layout:
    """Spikformer-8-512 for ImageNet (Zhou et al., ICLR 2023): residuals of spikes, 8 heads.

    Eight blocks on a 16th of the resolution. 29,689,384 parameters with 1000 classes.
    """
    tokens = Tokens(layers, layers.channels(512, 8))
    halvings = True, True, True, True
    return columnar(tokens, sizes, lambda: SelfAttention(layers, tokens.channels, 8), 8, halvings)


@register_layout()
def sdt(layers: Layers, sizes: Sizes) -> Layout:
    """Spike-driven transformer 2-512 for small images (Yao et al., NeurIPS 2023): residuals of currents.

    Two blocks on a quarter of the resolution. 10,233,418 parameters with 10 classes; the released code has 64 more in each block,
    which it does not use.
    """
    return sdt_of(layers, sizes, 2, (False, False, True, True))


@register_layout()
def sdt_8_512(layers: Layers, sizes: Sizes) -> Layout:
    """Spike-driven transformer 8-512 for ImageNet (Yao et al., NeurIPS 2023): residuals of currents.

    Eight blocks on a 16th of the resolution. 29,689,384 parameters with 1000 classes; the released code has 64 more in each block,
    which it does not use.
    """
    return sdt_of(layers, sizes, 8, (True, True, True, True))
