"""Residual networks whose blocks add input currents and the spikes of the shortcut before the neuron."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..layers import Layers, Layout, Sizes, classifier, kaiming_fan_out, register_layout


class ResNet(Layout):
    """A stem, stages of residual blocks, global average pooling and a head.

    Args:
        layers: the kinds of layer and the width.
        sizes: what the data fixes.
        stem: makes the layers before the first stage, of `(layers, inputs, outputs)`.
        block: makes a residual block, of `(layers, inputs, outputs, stride)`.
        depths: blocks per stage; each stage but the first halves the resolution.
        widths: channels per stage at width 1.
        final_neuron: put a neuron between the last block and the pooling.
        hidden: of the classifier; see `classifier`.
    """

    def __init__(
        self,
        layers: Layers,
        sizes: Sizes,
        *,
        stem: Callable[[Layers, int, int], nn.Module],
        block: Callable[[Layers, int, int, int], nn.Module],
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        final_neuron: bool = False,
        hidden: Sequence[int] = (),
    ) -> None:
        super().__init__()
        channels = layers.channels(widths[0])
        self.stem = stem(layers, sizes.in_channels, channels)
        self.stage_channels = {}
        stages: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[nn.Module] = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(layers, channels, layers.channels(width), stride))
                channels = layers.channels(width)
            stages.append(nn.Sequential(*blocks))
            self.stage_channels[f"stages.{stage}"] = channels
        self.stages = nn.Sequential(*stages)
        self.final = layers.neuron(channels) if final_neuron else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = classifier(layers, channels, sizes.num_classes, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.stages(self.stem(x)))

    def classify(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.final(x)).flatten(1))


class BasicBlock(nn.Module):
    """conv-BN-neuron-conv-BN, plus the shortcut, then the neuron: every convolution's input is spikes."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layers.conv_norm(inputs, outputs, stride=stride),
            layers.neuron(outputs),
            layers.conv_norm(outputs, outputs),
        )
        self.shortcut = shortcut(layers, inputs, outputs, stride)
        self.neuron = layers.neuron(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.body(x) + self.shortcut(x))

    def added_norms(self) -> list[nn.Module]:
        """The batch-norms whose outputs are added: the body's last, and the shortcut's if it has one."""
        return [branch[-1] for branch in (self.body[-1], self.shortcut) if isinstance(branch, nn.Sequential)]


def shortcut(layers: Layers, inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity, or conv1x1-BN if a block changes the shape of its input."""
    same = stride == 1 and inputs == outputs
    return nn.Identity() if same else layers.conv_norm(inputs, outputs, kernel=1, stride=stride)


def small_stem(layers: Layers, inputs: int, outputs: int) -> nn.Module:
    """For small images: conv3x3-BN-neuron, no max-pool."""
    return nn.Sequential(layers.conv_norm(inputs, outputs), layers.neuron(outputs))


def imagenet_stem(layers: Layers, inputs: int, outputs: int) -> nn.Module:
    """For large images: conv7x7-BN-neuron-maxpool, a quarter of the resolution."""
    return nn.Sequential(
        layers.conv_norm(inputs, outputs, kernel=7, stride=2), layers.neuron(outputs), nn.MaxPool2d(3, 2, padding=1)
    )


@register_layout()
def resnet18(layers: Layers, sizes: Sizes) -> Layout:
    """ResNet-18 for small images, such as CIFAR; PyTorch's initialisation."""
    return ResNet(layers, sizes, stem=small_stem, block=BasicBlock, depths=(2, 2, 2, 2))


@register_layout()
def resnet19(layers: Layers, sizes: Sizes) -> Layout:
    """ResNet-19 for small images (Zheng et al., STBP-tdBN, AAAI 2021): three wide stages and a hidden layer."""
    return ResNet(
        layers,
        sizes,
        stem=small_stem,
        block=BasicBlock,
        depths=(3, 3, 2),
        widths=(128, 256, 512),
        hidden=(256,),
    )


@register_layout()
def cifar_resnet34(layers: Layers, sizes: Sizes) -> Layout:
    """ResNet-34 for small images; with `neuron="relu"` it is the teacher of TWKD (Yu et al., ICML 2025) on CIFAR.

    He et al.'s layout (2016), activations after the additions, behind conv3x3-BN-neuron without max-pool; no biases. 21,328,292
    parameters with 100 classes.
    """
    return kaiming_fan_out(ResNet(layers, sizes, stem=small_stem, block=BasicBlock, depths=(3, 4, 6, 3)))


@register_layout()
def spiking_resnet18(layers: Layers, sizes: Sizes) -> Layout:
    """ResNet-18 for large images, with the ImageNet stem, as in He et al. (2016) and SpikingJelly."""
    return kaiming_fan_out(ResNet(layers, sizes, stem=imagenet_stem, block=BasicBlock, depths=(2, 2, 2, 2)))


@register_layout()
def spiking_resnet34(layers: Layers, sizes: Sizes) -> Layout:
    """ResNet-34 for large images, with the ImageNet stem, as in He et al. (2016) and SpikingJelly."""
    return kaiming_fan_out(ResNet(layers, sizes, stem=imagenet_stem, block=BasicBlock, depths=(3, 4, 6, 3)))
