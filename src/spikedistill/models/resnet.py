"""Residual networks for small images: currents and skip spikes are added, and the sum fires."""

from collections.abc import Sequence

from torch import Tensor, nn

from .layers import Layers


class BasicBlock(nn.Module):
    """conv-BN-neuron-conv-BN, plus the shortcut, then the neuron: every convolution's input is spikes."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layers.conv_norm(inputs, outputs, stride=stride),
            layers.neuron(outputs),
            layers.conv_norm(outputs, outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else layers.conv_norm(inputs, outputs, kernel=1, stride=stride)
        self.neuron = layers.neuron(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem conv3x3-BN-neuron without max-pool, stages of basic blocks, global average pooling and a linear head.

    Args:
        layers: the kinds of layer and the width.
        depths: blocks per stage; each stage but the first halves the resolution.
        widths: channels per stage at width 1.
    """

    def __init__(
        self, layers: Layers, num_classes: int, in_channels: int, depths: Sequence[int], widths: Sequence[int]
    ) -> None:
        super().__init__()
        channels = layers.channels(widths[0])
        self.stem = nn.Sequential(layers.conv_norm(in_channels, channels), layers.neuron(channels))
        stages: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[nn.Module] = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(layers, channels, layers.channels(width), stride))
                channels = layers.channels(width)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stages(self.stem(x))).flatten(1))
