"""A spiking network trained with an ANN of the same layout: their convolutions share singular vectors, and both have exits.

Guo et al.: Joint A-SNN: Joint Training of Artificial and Spiking Neural Networks via Self-Distillation and Weight Factorization
(Pattern Recognition, 2023).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import UserError
from ..setting_types import MOST_PIXELS
from ..through_time import Temporal, mean_rate
from ..through_time.features import outputs_of
from .branches import Branched
from .layers import Layers, Layout, Sizes


class SharedFactors(nn.Module):
    """The weight of a convolution as a function of its singular values, with singular vectors that several convolutions share.

    At every position of the kernel W = U diag(σ) V, with U `[kh, kw, c_out, r]` and V `[kh, kw, r, c_in]` trained like any weight,
    without a constraint that keeps them orthogonal.

    Args:
        weight: the weight `[c_out, c_in, kh, kw]` to factorise.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        left, _, right = torch.linalg.svd(weight.detach().permute(2, 3, 0, 1), full_matrices=False)
        self.left, self.right = nn.Parameter(left.contiguous()), nn.Parameter(right.contiguous())

    def forward(self, values: Tensor) -> Tensor:
        last = torch.channels_last
        # the vectors have the memory format of the network
        as_asked = last if self.left.is_contiguous(memory_format=last) and not self.left.is_contiguous() else None
        weight = (self.left * values.unsqueeze(-2) @ self.right).permute(2, 3, 0, 1)
        return weight.contiguous(memory_format=as_asked or torch.contiguous_format)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The singular values `[kh, kw, r]` of a weight with these vectors."""
        return (self.left.mT @ weight.permute(2, 3, 0, 1) @ self.right.mT).diagonal(dim1=-2, dim2=-1)


class Joint(Branched):
    """A spiking network and an ANN of its layout. Calls, `step` and `save_model` use only the spiking network; `heads` uses both.

    Each convolution shares its singular vectors with its twin in the ANN; its singular values are its own. Batch-norms and linear
    layers are not shared. Both networks have an exit after every stage but the last, with convolutions shared in the same way.

    Args:
        network: the spiking network.
        twin: its ReLU twin, which starts with the same weights.
        exits: exits with spiking neurons by the name of the layer whose output they take, from shallow to deep.
        twin_exits: their ReLU twins.
    """

    def __init__(
        self, network: Temporal, twin: nn.Module, exits: Mapping[str, nn.Module], twin_exits: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(network, exits)
        self.twin = twin
        self.twin_branches = nn.ModuleList(twin_exits.values())
        share_factors(self.module, twin)
        share_factors(self.branches, self.twin_branches)

    def heads(self, x: Tensor, timesteps: int | None = None) -> tuple[Tensor, Tensor]:
        """Run both networks and all exits.

        Args:
            x: the input of the network, `[B, ...]` with `timesteps`, or `[T, B, ...]` without. The ANN takes the mean over time.
            timesteps: T, only for a static input.

        Returns:
            The spiking network's logits `[T, B, C]`, and the logits of the exits `[2n, B, C]`: n of the ANN from shallow to deep,
            the last being its own output, then n of the spiking network in the same order, each the mean over time.
        """
        with outputs_of(self.module, self.layers) as spikes, outputs_of(self.twin, self.layers) as activations:
            logits = self(x, timesteps)
            of_twin = self.twin(x if timesteps is not None else x.mean(0))
            own = logits.to(torch.promote_types(logits.dtype, torch.float32)).mean(0)
            parts = [
                *_read(self.twin_branches, self.layers, activations),
                of_twin,
                *_read(self.branches, self.layers, spikes),
                own,
            ]
        return logits, torch.stack([part.to(own.dtype) for part in parts])


def _read(branches: nn.ModuleList, layers: tuple[str, ...], outputs: Mapping[str, Any]) -> list[Tensor]:
    return [mean_rate(branch(outputs[layer])) for layer, branch in zip(layers, branches, strict=True)]


def share_factors(one: nn.Module, other: nn.Module) -> None:
    """Copy the weights of the first network to the second, and let their convolutions share the singular vectors of the first."""
    other.load_state_dict(one.state_dict(), strict=False)
    twins = dict(other.named_modules())
    for name, conv in list(one.named_modules()):
        if isinstance(conv, nn.Conv2d):
            factors = SharedFactors(conv.weight)
            parametrize.register_parametrization(conv, "weight", factors)
            parametrize.register_parametrization(twins[name], "weight", factors)


def exit_head(layers: Layers, inputs: int, channels: int, shrink: int, num_classes: int) -> nn.Module:
    """An exit: 1x1, strided and 1x1 convolutions with batch-norms and neurons, global average pooling and a linear layer.

    Args:
        layers: the kinds of layer.
        inputs: channels of its input.
        channels: channels of its last convolution; the others have a quarter.
        shrink: kernel and stride of the second convolution.
        num_classes: C.
    """
    middle = max(1, channels // 4)
    shapes: list[tuple[int, int, int]] = [(inputs, middle, 1), (middle, middle, shrink), (middle, channels, 1)]
    blocks: list[nn.Module] = []
    for before, after, kernel in shapes:
        conv = nn.Conv2d(before, after, kernel, stride=kernel, bias=False)
        blocks += [conv, layers.norm(after), layers.neuron(after)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def exit_heads(layers: Layers, stages: Mapping[str, int], prefix: str, num_classes: int) -> dict[str, nn.Module]:
    """An exit after every stage but the last, by the name of the stage's last layer; each reduces the size as later stages do."""
    last = list(stages.values())[-1]
    return {
        prefix + name: exit_head(layers, stages[name], last, shrink, num_classes)
        for name, shrink in _shrinks(list(stages)).items()
    }


@torch.no_grad()
def check_exits(network: Joint, build: Callable[[Sizes], Layout], sizes: Sizes) -> Joint:
    """The network.

    Args:
        network: the joint network.
        build: makes the ANN's layout for images of another size.
        sizes: the sizes for which the network was made.

    Raises:
        UserError: if images of that size are too small for its exits.
    """
    network.eval()
    try:
        network.heads(torch.zeros(1, sizes.in_channels, *sizes.image_size), 1)
    except RuntimeError:
        height, width = sizes.image_size
        side = bisect_left(range(1, MOST_PIXELS), True, key=lambda side: _have_room(build, sizes, side)) + 1
        raise UserError(
            f"images of {height}x{width} are too small for the exits of this joint network: expected {side}x{side} or larger"
        ) from None
    network.train()
    return network


def _have_room(build: Callable[[Sizes], Layout], sizes: Sizes, side: int) -> bool:
    """Whether features are large enough for every exit if images are `side` pixels high and wide; no memory is used."""
    try:
        with torch.device("meta"):
            layout = build(sizes._replace(image_size=(side, side))).eval()
            with outputs_of(layout, names := list(layout.stage_channels)) as outputs:
                layout(torch.zeros(1, sizes.in_channels, side, side))
    except UserError:  # too small even for the layout
        return False
    return all(min(outputs[name].shape[-2:]) >= shrink for name, shrink in _shrinks(names).items())


def _shrinks(names: Sequence[str]) -> dict[str, int]:
    """The factor by which the exit after each stage but the last reduces height and width: that of the stages after it."""
    return {name: 2 ** (len(names) - 1 - place) for place, name in enumerate(names[:-1])}


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network by name, with each factorised weight as one tensor under its usual name."""
    made = {
        f"{place}.{name}" if place else name: getattr(layer, name)
        for place, layer in module.named_modules()
        if parametrize.is_parametrized(layer)
        for name in layer.parametrizations
    }
    kept = {name: value for name, value in module.state_dict().items() if "parametrizations." not in name}
    return kept | made
