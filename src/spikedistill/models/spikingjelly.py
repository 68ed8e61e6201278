"""Loads the weights of SpikingJelly's residual networks into the networks of the same names here."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..errors import UserError
from .files import check_finite
from .layouts.resnet import BasicBlock, ResNet

# Our names and SpikingJelly's names of the same layers; both networks have torchvision's layout.
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

    Only weights are copied. Choose the neurons to match with the arguments of `create_model`:

    - SpikingJelly's reset is hard by default, to 0.0. SpikingJelly measures membranes from the reset, so subtract any other
      `v_reset` from the threshold.
    - `IFNode` is `LIF(decay=1.0)`.
    - `LIFNode(tau, v_threshold=theta)` divides its input by tau. It is `LIF(decay=1 - 1/tau, threshold=tau * theta)`, with the
      surrogate taken at a membrane tau times as large. With `decay_input=False` only the decay changes.

    A SEW network here adds spikes (`cnf="ADD"`); the state dict does not say whether SpikingJelly's does. torchvision's ResNet-18
    and 34 load in the same way, into `spiking_resnet18` and `spiking_resnet34` with `neuron="relu"`.

    Args:
        model: the network, as `create_model` makes it.
        state_dict: the `state_dict()` of SpikingJelly's network.

    Raises:
        UserError: for a network of another family, or a state dict with missing, unknown or differently shaped entries, or with
            numbers that are not finite. Nothing is copied then.
    """
    network = _residual_network(model)
    if network is None:
        raise UserError(
            "SpikingJelly's residual networks fit into sew_resnet18, sew_resnet34 and the like; got another network"
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


def in_our_names(model: nn.Module, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict with SpikingJelly's names renamed to ours; any other state dict unchanged."""
    network = _residual_network(model)
    if network is None or "conv1.weight" not in state_dict:
        return state_dict
    ours = {_spikingjelly_name(name): name for name in network.state_dict()}
    return {ours.get(name, name): tensor for name, tensor in state_dict.items()}


def _residual_network(model: nn.Module) -> ResNet | None:
    """The residual network of basic blocks in a model; None if there is none."""
    network = next((module for module in model.modules() if isinstance(module, ResNet)), None)
    has_blocks = network is not None and any(isinstance(module, BasicBlock) for module in network.modules())
    return network if has_blocks else None


def _spikingjelly_name(name: str) -> str:
    for pattern, theirs in _RENAMED:
        name = re.sub(pattern, theirs, name)
    return name


def _count(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {what} ({', '.join(names[:3])}{more})" if names else ""
