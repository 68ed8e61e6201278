"""Networks by name."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from ..errors import UserError
from ..options import OptionValue
from ..renamed import with_learn_decay
from ..setting_types import MOST_PIXELS, MOST_TIMESTEPS, WIDEST
from ..through_time import OPTIONS as RULE_OPTIONS
from ..through_time import Gradient, Rule, Temporal, rule_of, temporal
from . import layouts  # noqa: F401 it fills MODELS
from .branches import Branched, branch
from .joint import Joint, check_exits, exit_heads
from .layers import MODELS, DropPath, Layers, Named, Normalize, OwnModel, Sizes
from .neuron_layers import layer_of, relu
from .own import build_own
from .plain import normalised
from .threshold_batch_norm import start_at_threshold
from .timestep_batch_norm import TimestepBatchNorm

_MOST_CLASSES, _MOST_CHANNELS = 1_000_000, 65_536


def list_models() -> list[str]:
    """Names that `create_model` takes."""
    return list(MODELS)


def count_heads(name: str) -> int:
    """The number of heads of a network with branches: one after every stage; the last is the network's own."""
    with torch.device("meta"):  # takes no memory
        return len(_layout(name, "branches").build(Layers(neuron=relu), Sizes(3, (32, 32), 10)).stage_channels)


def has_stages(name: str) -> bool:
    """Whether a network is a layout of this library, in stages that can have auxiliary heads.

    Raises:
        UserError: for an unknown name.
    """
    return isinstance(MODELS[name], Named)


def model_options(name: str) -> dict[str, OptionValue]:
    """The own options of a registered network and their defaults; none for the layouts of this library.

    Raises:
        UserError: for an unknown name.
    """
    named = MODELS[name]
    return dict(named.options) if isinstance(named, OwnModel) else {}


def takes_neuron(name: str) -> bool:
    """Whether the neurons of a network can be chosen.

    Raises:
        UserError: for an unknown name.
    """
    named = MODELS[name]
    return isinstance(named, Named) or "neuron" in named.takes


def _layout(name: str, what: str) -> Named:
    """The layout of that name.

    Raises:
        UserError: for an unknown name, or a registered network, which has no stages.
    """
    named = MODELS[name]
    if not isinstance(named, Named):
        raise UserError(
            f"{what} needs a network with stages, which the registered network {name!r} does not have: leave it out, or put heads "
            "on named layers with spikedistill.models.Branched"
        )
    return named


@with_learn_decay
def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | Sequence[int] = 32,
    gradient: Gradient | Rule = "bptt",
    neuron: str = "lif",
    neuron_options: Mapping[str, Any] | None = None,
    norm: Literal["batch", "timestep_batch", "tdbn"] = "batch",
    norm_timesteps: int | None = None,
    width: float = 1.0,
    drop_path: float = 0.0,
    branches: bool = False,
    branch_count: int | None = None,
    joint: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **options: Any,
) -> Temporal:
    """Make a network by name, ready to run over time.

    Args:
        name: one of `list_models()`.
        num_classes: C, the size of the logits.
        in_channels: channels of the input; 2 for event frames.
        image_size: height and width of the input, `(H, W)`, or one number for both; needed by layouts that flatten.
        gradient: how gradients flow back through time, a rule or its name; see `spikedistill.temporal`.
        neuron: "lif", "relu" for the ANN twin, the same layout without spikes, or the name of a registered neuron.
        neuron_options: options of a registered neuron, by name.
        norm: "batch", whose statistics are those of all timesteps; "timestep_batch", whose statistics are each timestep's own
            (see `TimestepBatchNorm`); or "tdbn", which is "batch" with weights that start at the threshold of the neurons, less
            at residual additions (tdBN, Zheng et al., AAAI 2021).
        norm_timesteps: for "timestep_batch", how many timesteps the network is trained with.
        width: factor on every hidden channel count, at most 64.
        drop_path: for transformers, the share of samples for which the last block's bodies are left out in training, in [0, 1). It
            grows evenly from 0 at the first block (stochastic depth, Huang et al., ECCV 2016).
        branches: give every stage but the last an auxiliary head for training (ESD, Zhao et al., NeurIPS 2025); see
            `spikedistill.models.Branched`, whose method `heads` returns the logits of all of them.
        branch_count: with `branches`, how many: those behind the deepest stages.
        joint: train an ANN of the same layout alongside the network, with an exit after every stage of both (Joint A-SNN, Guo et
            al., 2023); see `spikedistill.models.Joint`, whose method `heads` returns the logits of all exits.
        mean, std: statistics of the channels of images in [0, 1], which the network then normalises itself.
        options: options of a registered network, arguments of `spikedistill.LIF`, and of a gradient rule that is given by name. A
            decay or threshold that is "learned" is one for each layer; "learned_per_channel" is one for each channel.

    Returns:
        The network; called with images `[B, C, H, W]` and `timesteps=T`, or event frames `[T, B, C, H, W]`, it returns logits
        `[T, B, num_classes]`.

    Raises:
        UserError: for an unknown name, an option out of its range, or "tdbn" for a network that adds up currents before a
            threshold (ReLU twins, `resnet34`, `ms_resnet18`, `sdt`, `sdt_8_512` and `max_former`); or for a `joint` network with
            branches, without neurons, with `norm="timestep_batch"`, which its ANN cannot have, or for images that are too small for
            its exits.
    """
    lif_options = {option: value for option, value in options.items() if option not in RULE_OPTIONS}
    rule = rule_of(gradient, **{option: value for option, value in options.items() if option in RULE_OPTIONS})
    named = MODELS[name]
    if not 0 < width <= WIDEST:
        raise UserError(f"width is {width}, expected a positive factor such as 0.25 or 1.0, at most {WIDEST}")
    if not isinstance(drop_path, int | float) or not 0 <= drop_path < 1:
        raise UserError(f"drop_path is {drop_path!r}, expected a share of samples, at least 0 and below 1")
    for what, count, most in (
        ("num_classes", num_classes, _MOST_CLASSES),
        ("in_channels", in_channels, _MOST_CHANNELS),
    ):
        if type(count) is not int or not 1 <= count <= most:
            raise UserError(f"{what} is {count!r}, expected a whole number, at least 1 and at most {most}")
    if (mean, std) != (None, None) and (mean is None or std is None or not len(mean) == len(std) == in_channels):
        raise UserError(
            f"mean={mean} and std={std}: give both, a number for each of the {in_channels} channels, or neither"
        )
    if not all(math.isfinite(value) for value in mean or ()) or not all(0 < value < math.inf for value in std or ()):
        raise UserError(f"mean={mean} and std={std}: each must be finite, and each std above 0")
    if joint and (branches or neuron == "relu" or norm != "batch"):
        raise UserError(
            f"a joint network is one of spiking neurons with an ANN alongside; got branches={branches}, neuron={neuron!r} and "
            f"norm={norm!r}: leave them out"
        )
    sizes = Sizes(in_channels, _height_and_width(image_size), num_classes)
    if isinstance(named, OwnModel):
        changed = {"width": width != 1, "norm": norm != "batch", "branches": branches, "joint": joint}
        changed["drop_path"] = drop_path != 0
        network = build_own(name, named, sizes, changed, neuron, lif_options, neuron_options or {})
        whole = network if mean is None or std is None else normalised(network, mean, std)
        return temporal(whole, gradient=rule, sample_axes=f"{in_channels}, H, W")
    layer = layer_of(neuron, lif_options, dict(neuron_options or {}))
    layers = Layers(neuron=layer, norm=_norm(norm, norm_timesteps), width=width, drop_path=drop_path)
    layout = named.build(layers, sizes)
    if drop_path and not any(isinstance(module, DropPath) for module in layout.modules()):
        raise UserError(f"drop_path leaves out bodies of a transformer's blocks, and {name} is none: leave it out")
    if norm == "tdbn":
        start_at_threshold(layout)
    network, prefix = _normalised(layout, mean, std)
    size = "{}, {}".format(*sizes.image_size) if named.flattens else "H, W"
    model = temporal(
        network,
        gradient=rule,
        sample_axes=f"{in_channels}, {size}",
    )
    if joint:
        of_twin = replace(layers, neuron=relu)
        twin, _ = _normalised(named.build(of_twin, sizes), mean, std)
        exits, twin_exits = (exit_heads(kind, layout.stage_channels, prefix, num_classes) for kind in (layers, of_twin))
        return check_exits(Joint(model, twin, exits, twin_exits), lambda other: named.build(of_twin, other), sizes)
    if not branches:
        return model
    # a head after every stage but the last; its blocks have the channels of the later stages
    names, counts = [prefix + layer for layer in layout.stage_channels], list(layout.stage_channels.values())
    most = len(counts) - 1
    if branch_count is not None and not 1 <= branch_count <= most:
        raise UserError(f"branch_count is {branch_count}, expected 1 to {most}, the stages of {name} but the last")
    stages = range(most - (branch_count or most), most)
    heads = {names[stage]: branch(counts[stage:], num_classes, residual=named.residual_branches) for stage in stages}
    return Branched(model, heads)


def _height_and_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of images, which `create_model` and model files give as two numbers, or as one for both.

    Raises:
        UserError: if it is anything else, or a side is not in 1..`MOST_PIXELS`.
    """
    sides = [*image_size] if isinstance(image_size, Sequence) else [image_size, image_size]
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MOST_PIXELS for side in sides):
        raise UserError(
            f"image_size is {image_size!r}, expected a whole number, at least 1 and at most {MOST_PIXELS}, or two: height and width"
        )
    return sides[0], sides[1]


def _normalised(layout: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[nn.Module, str]:
    """The layout, after a normalisation of images if statistics are given; and the prefix which that adds to layer names."""
    if mean is None or std is None:
        return layout, ""
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=layout)), "network."


def _norm(norm: str, timesteps: int | None) -> Callable[[int], nn.Module]:
    if norm not in ("batch", "timestep_batch", "tdbn"):
        raise UserError(f"norm is {norm!r}, expected 'batch', 'timestep_batch' or 'tdbn'")
    if norm != "timestep_batch":
        if timesteps is not None:
            raise UserError(f"norm_timesteps={timesteps} only means something under norm='timestep_batch'")
        return nn.BatchNorm2d
    if type(timesteps) is not int or not 1 <= timesteps <= MOST_TIMESTEPS:
        raise UserError(
            f"norm='timestep_batch' keeps statistics for each timestep: norm_timesteps is {timesteps}, expected the number of "
            "timesteps to train with"
        )
    return lambda channels: TimestepBatchNorm(channels, timesteps)
