"""Residual networks whose shortcut carries membrane currents, real numbers: neurons sit before convolutions, not after sums."""

from dataclasses import replace

from torch import Tensor, nn

from ..layers import Layers, Layout, Sizes, kaiming_fan_out, register_layout
from .resnet import ResNet, shortcut


class PreActivationBlock(nn.Module):
    """neuron-conv-BN-neuron-conv-BN, plus the shortcut of the real-valued input.

    The convolutions of the body take spikes. The shortcut has a convolution if the shape changes; it takes real numbers.
    """

    adds_currents = True

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layers.neuron(inputs),
            layers.conv_norm(inputs, outputs, stride=stride),
            layers.neuron(outputs),
            layers.conv_norm(outputs, outputs),
        )
        self.shortcut = shortcut(layers, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def small_current_stem(layers: Layers, inputs: int, outputs: int) -> nn.Module:
    """For small images: conv3x3-BN; the first block brings the first neuron."""
    return nn.Sequential(layers.conv_norm(inputs, outputs))


def imagenet_current_stem(layers: Layers, inputs: int, outputs: int) -> nn.Module:
    """For large images: conv7x7-BN-maxpool; the first block brings the first neuron."""
    return nn.Sequential(layers.conv_norm(inputs, outputs, kernel=7, stride=2), nn.MaxPool2d(3, 2, padding=1))


@register_layout(residual_branches=True)
def resnet34(layers: Layers, sizes: Sizes) -> Layout:
    """Pre-activation ResNet-34 for ImageNet, as TWKD and ESD (Yu et al., ICML 2025; Zhao et al., NeurIPS 2025) train it.

    No neuron between the last block and the head, so the linear layer reads real-valued features; every convolution has a bias,
    those of the shortcuts too, as in the released code. 21,344,484 parameters with 100 classes.
    """
    network = ResNet(
        replace(layers, conv_bias=True),
        sizes,
        stem=imagenet_current_stem,
        block=PreActivationBlock,
        depths=(3, 4, 6, 3),
    )
    return kaiming_fan_out(network)


@register_layout()
def ms_resnet18(layers: Layers, sizes: Sizes) -> Layout:
    """MS-ResNet-18 (Hu et al., TNNLS 2024) for small images: membrane shortcut, a last neuron before the pooling.

    Inferred, because the papers that use it on small images do not say: the stem conv3x3-BN without max-pool, stages of
    64-128-256-512 channels, of which the first keeps the resolution, no biases, BN gains of 1, PyTorch's initialisation.
    """
    return ResNet(
        layers,
        sizes,
        stem=small_current_stem,
        block=PreActivationBlock,
        depths=(2, 2, 2, 2),
        final_neuron=True,
    )
