"""SEW-ResNet (Fang et al., Deep Residual Learning in Spiking Neural Networks, NeurIPS 2021), with addition."""

from torch import Tensor, nn

from ..layers import Layers, Layout, Sizes, kaiming_fan_out, register_layout
from .resnet import BasicBlock, ResNet, imagenet_stem


class SEWBlock(BasicBlock):
    """conv-BN-neuron-conv-BN-neuron, plus the shortcut: spikes are added to spikes, so a block returns counts 0, 1, 2, ..."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(layers, inputs, outputs, stride)
        if isinstance(self.shortcut, nn.Sequential):
            self.shortcut.append(layers.neuron(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.body(x)) + self.shortcut(x)

    def added_norms(self) -> list[nn.Module]:
        """None, because this block adds spikes."""
        return []


@register_layout()
def sew_resnet18(layers: Layers, sizes: Sizes) -> Layout:
    """SEW-ResNet-18, for large images: its ImageNet stem leaves a single pixel of a 32x32 image for the last stage."""
    return kaiming_fan_out(ResNet(layers, sizes, stem=imagenet_stem, block=SEWBlock, depths=(2, 2, 2, 2)))


@register_layout()
def sew_resnet34(layers: Layers, sizes: Sizes) -> Layout:
    """SEW-ResNet-34, for large images: its ImageNet stem leaves a single pixel of a 32x32 image for the last stage."""
    return kaiming_fan_out(ResNet(layers, sizes, stem=imagenet_stem, block=SEWBlock, depths=(3, 4, 6, 3)))
