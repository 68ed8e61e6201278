"""Plain stacks of convolutions with average pooling between them, and a classifier."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from ...errors import UserError
from ..layers import Layers, Layout, Sizes, classifier, kaiming_fan_out, register_layout

POOL = 0


class VGG(Layout):
    """conv3x3-BN-neuron blocks and 2x2 average pooling, then the classifier; convolutions have a bias.

    A convolution after a pooling takes means of four spikes; all others take spikes.

    Args:
        layers: the kinds of layer and the width.
        sizes: what the data fixes.
        plan: the channels of each block at width 1, and `POOL` between them.
        flatten: pass all positions to the linear layer, which fixes the height and width of the image; otherwise pass their mean.
        hidden: of the classifier; see `classifier`.

    A stage ends before each pooling and at the last neuron.

    Raises:
        UserError: if images of that size are too small for the poolings.
    """

    def __init__(
        self, layers: Layers, sizes: Sizes, plan: Sequence[int], *, flatten: bool, hidden: Sequence[int] = ()
    ) -> None:
        super().__init__()
        layers = replace(layers, conv_bias=True)
        self.smallest = 2 ** plan.count(POOL)
        self._check(sizes.image_size)
        features: list[nn.Module] = []
        channels = sizes.in_channels
        self.stage_channels = {}
        for place, count in enumerate(plan):
            if count == POOL:
                features.append(nn.AvgPool2d(2))
                continue
            inputs, channels = channels, layers.channels(count)
            features += [layers.conv_norm(inputs, channels), layers.neuron(channels)]
            if place + 1 == len(plan) or plan[place + 1] == POOL:
                self.last_neuron = len(features) - 1
                self.stage_channels[f"features.{self.last_neuron}"] = channels
        self.features = nn.Sequential(*features)
        self.pool = nn.Identity() if flatten else nn.AdaptiveAvgPool2d(1)
        rows, columns = (side // self.smallest if flatten else 1 for side in sizes.image_size)
        self.head = classifier(layers, channels * rows * columns, sizes.num_classes, hidden)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x.shape[-2:])
        return self._pooled_to_logits(self.features(x))

    def classify(self, x: Tensor) -> Tensor:
        return self._pooled_to_logits(self.features[self.last_neuron + 1 :](x))

    def _pooled_to_logits(self, x: Tensor) -> Tensor:
        return self.head(self.pool(x).flatten(1))

    def _check(self, image_size: Sequence[int]) -> None:
        if min(image_size) < self.smallest:
            height, width = image_size
            raise UserError(
                f"images of {height}x{width} (height x width) are too small for the poolings of this network: expected "
                f"{self.smallest}x{self.smallest} or larger"
            )


@register_layout(flattens=True)
def vgg9(layers: Layers, sizes: Sizes) -> Layout:
    """Eight convolutions and a linear layer over all positions, for small images (VGGSNN of Deng et al., TET, ICLR 2022).

    Inferred: the VGG-9 of other papers is this network.
    """
    plan = (64, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
    return kaiming_fan_out(VGG(layers, sizes, plan, flatten=True))


@register_layout(flattens=True)
def vggsnn(layers: Layers, sizes: Sizes) -> Layout:
    """`vgg9` under the name that papers use on event frames of 48x48."""
    return vgg9(layers, sizes)


@register_layout()
def vgg11(layers: Layers, sizes: Sizes) -> Layout:
    """Eight convolutions for small images, in the order of Yu et al. (RateBP, NeurIPS 2024), global pooling, a linear layer."""
    plan = (64, POOL, 128, 256, POOL, 512, 512, POOL, 512, POOL, 512, 512)
    return kaiming_fan_out(VGG(layers, sizes, plan, flatten=False))


@register_layout(flattens=True)
def vgg11_fc(layers: Layers, sizes: Sizes) -> Layout:
    """Eight convolutions and three linear layers, as in papers on robustness (Ding et al., SNN-RAT, NeurIPS 2022).

    The first linear layer takes all positions. Between the linear layers are two layers of 4096 neurons. Biases start at 0.
    61,745,764 parameters with 100 classes.
    """
    plan = (64, POOL, 128, 256, POOL, 512, 512, 512, POOL, 512, 512)
    network = kaiming_fan_out(VGG(layers, sizes, plan, flatten=True, hidden=(4096, 4096)))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return network


@register_layout()
def vgg13(layers: Layers, sizes: Sizes) -> Layout:
    """Ten convolutions for small images, two before each pooling (Simonyan and Zisserman, 2015).

    Inferred: global pooling and one linear layer as in `vgg11`, in place of the original's three linear layers.
    """
    plan = (64, 64, POOL, 128, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
    return kaiming_fan_out(VGG(layers, sizes, plan, flatten=False))
