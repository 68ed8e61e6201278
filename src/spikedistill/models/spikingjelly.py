"""Weights of SpikingJelly's residual networks, read into ours."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..errors import UserError
from .files import check_finite
from .layouts.resnet import BasicBlock, ResNet

# Ours and SpikingJelly's names of the same layer; both are torchvision's layout.
_RENAMED = [
    (r"^stem\.0\.0\b", "conv1"),
    (r"^stem\.0\.1\b", "bn1"),
    (r"\bbody\.0\.0\b", "conv1"),
    (r"\bbody\.0\.1\b", "bn1"),
    (r"\bbody\.2\.0\b", "conv2"),
    (r"\bbody\.2\.1\b", "bn2"),
    (r"\bshortcut\b", "downsample"),
    (r"^stages\.0\b", "layer1"),
    (r"^stages\.1\b", "layer2"),
    (r"^stages\.2\b", "layer3"),
    (r"^stages\.3\b", "layer4"),
    (r"^head\b", "fc"),
]


def load_spikingjelly(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copy the weights of a SpikingJelly `sew_resnet*` or `spiking_resnet*` into the network of that name here.

    Weights alone are copied, so the neurons are for `create_model` to match. SpikingJelly's reset is hard by default, to 0.0; it
    measures membranes from there, so that any other `v_reset` is subtracted from the threshold. `IFNode` is `LIF(decay=1.0)`.
    `LIFNode(tau, v_threshold=theta)` divides its input by tau and is `LIF(decay=1 - 1/tau, threshold=tau * theta)`, with
    surrogates taken at a membrane tau times as large; with `decay_input=False` only the decay is to be converted. Nor does a
    state dict say how a SEW network combines spikes: ours adds (`cnf="ADD"`). torchvision's ResNet-18 and 34 load alike, into
    `spiking_resnet18` and `spiking_resnet34` with `neuron="relu"`.

    Args:
        model: the network, as `create_model` makes it.
        state_dict: what `state_dict()` of SpikingJelly's network returned.

    Raises:
        UserError: for a network of another family, or a state dict with missing, unknown or differently shaped entries, or with
            numbers that are not finite; nothing is copied then.
    """
    network = next((module for module in model.modules() if isinstance(module, ResNet)), None)
    if network is None or not any(isinstance(module, BasicBlock) for module in network.modules()):
        raise UserError(
            "SpikingJelly's residual networks fit into sew_resnet18, sew_resnet34 and the like; this is none"
        )
    ours = {_spikingjelly_name(name): name for name in network.state_dict()}
    shapes = {theirs: network.state_dict()[name].shape for theirs, name in ours.items()}
    differing = [
        f"{name} {list(state_dict[name].shape)} for {list(shape)}"
        for name, shape in shapes.items()
        if name in state_dict and state_dict[name].shape != shape
    ]
    mismatches = [
        _count("missing", [name for name in shapes if name not in state_dict]),
        _count("unknown to this network", [name for name in state_dict if name not in shapes]),
        _count("of another shape", differing),
    ]
    if any(mismatches):
        raise UserError(f"the state dict is not one of this network: {'; '.join(filter(None, mismatches))}")
    check_finite(state_dict, "the state dict")
    network.load_state_dict({ours[name]: tensor for name, tensor in state_dict.items()})


def _spikingjelly_name(name: str) -> str:
    for pattern, theirs in _RENAMED:
        name = re.sub(pattern, theirs, name)
    return name


def _count(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {what} ({', '.join(names[:3])}{more})" if names else ""
