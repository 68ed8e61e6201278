"""Initialises a network with the weights of a trained one of the same layout, also with other classes, neurons or batch-norms."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..neurons import SpikingNeuron
from ..through_time import Temporal
from .files import ModelFile, check_finite
from .spikingjelly import in_our_names
from .timestep_batch_norm import TimestepBatchNorm

# The arguments of `create_model` that decide shapes, in the order in which they are checked to explain a mismatch.
_OF_SHAPES = ("name", "width", "in_channels", "image_size", "norm")


class Start(NamedTuple):
    """What a network starts from.

    Attributes:
        tensors: the weights that were taken, by their names in the plain module.
        said: one line: which weights were taken, and which are initialised anew.
    """

    tensors: dict[str, Tensor]
    said: str


def starting_weights(
    network: Temporal, file: ModelFile, path: Path, *, spec: Mapping[str, Any], classes: Sequence[str]
) -> Start:
    """Fit the weights of a file to an untrained network.

    - All tensors must agree in name and shape. So an ANN's weights fit its spiking twin.
    - Statistics of batch-norm come along.
    - The classifier, the last convolution or linear layer, is initialised anew if the file has other classes.
    - Parameters of neurons that the file lacks, such as a learned decay, start at their initial values.
    - A batch-norm with statistics of each timestep takes the statistics of all timesteps for every timestep, or repeats those of
      the last.
    - The mean and standard deviation of the images stay those of the network's own data set.
    - Names may also be those of SpikingJelly and torchvision, for the networks that `load_spikingjelly` takes.

    Args:
        network: the network, which is not changed.
        file: the weights; a plain safetensors file describes no network, classes or input.
        path: the file, for messages.
        spec: the arguments of `create_model` for the network.
        classes: names of the network's classes.

    Raises:
        UserError: naming the first tensor that does not fit, or one that is not finite.
    """
    check_finite(file.tensors, path)
    own = network.module.state_dict()
    names = _without_normalisation(own)
    theirs = in_our_names(network, file.tensors)
    theirs = {bare: theirs[name] for bare, name in _without_normalisation(theirs).items()}
    layers = dict(network.module.named_modules())
    classifier = _classifier(layers, names)
    anew = {bare for bare in classifier if _of_other_classes(file, classes, own[names[bare]], theirs.get(bare))}
    anew |= {bare for bare, name in names.items() if bare not in theirs and _starts_by_itself(name, layers)}
    taken: dict[str, Tensor] = {}
    for bare, name in names.items():
        if bare in anew:
            continue
        tensor = _over_timesteps(theirs.get(bare), layers[name.rpartition(".")[0]], own[name])
        if tensor is None or tensor.shape != own[name].shape:
            raise _misfit(path, bare, tensor, own[name], file, spec)
        taken[name] = tensor
    strangers = [bare for bare in sorted(theirs) if bare not in names and not bare.endswith("num_batches_tracked")]
    if strangers:
        raise _misfit(path, strangers[0], theirs[strangers[0]], None, file, spec)
    if not taken:
        raise UserError(f"{path} holds only a classifier of other classes, so no weight fits this network")
    return Start(taken, _said(path, file, taken, sorted(anew), len(classes), own))


def _without_normalisation(names: Iterable[str]) -> dict[str, str]:
    """The given names by their form in a network that does not normalise images."""
    if not any(name.startswith("normalize.") for name in names):
        return {name: name for name in names}
    return {name.removeprefix("network."): name for name in names if not name.startswith("normalize.")}


def _classifier(layers: Mapping[str, nn.Module], names: Mapping[str, str]) -> list[str]:
    """The tensors of the last layer with weights."""
    weighted = (path for path, layer in layers.items() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d))
    last = [path for path in weighted if not _is_in_neurons(path, layers)][-1:]
    return [bare for bare, name in names.items() if name.rpartition(".")[0] in last]


def _of_other_classes(file: ModelFile, classes: Sequence[str], own: Tensor, theirs: Tensor | None) -> bool:
    """Whether a tensor of the classifier has the same inputs but other classes, by number or by name."""
    if theirs is None or theirs.shape[1:] != own.shape[1:]:
        return False
    return theirs.shape != own.shape or (file.classes is not None and list(file.classes) != list(classes))


def _starts_by_itself(name: str, layers: Mapping[str, nn.Module]) -> bool:
    """Whether a tensor may be missing in the file: a parameter of neurons, or a counter that changes no result."""
    path, _, kind = name.rpartition(".")
    return _is_in_neurons(path, layers) or kind == "num_batches_tracked"


def _is_in_neurons(path: str, layers: Mapping[str, nn.Module]) -> bool:
    parts = path.split(".")
    return any(isinstance(layers[".".join(parts[:end])], SpikingNeuron) for end in range(1, len(parts) + 1))


def _over_timesteps(tensor: Tensor | None, layer: nn.Module, own: Tensor) -> Tensor | None:
    """Running statistics for each of a batch-norm's timesteps."""
    if tensor is None or not isinstance(layer, TimestepBatchNorm) or own.ndim != 2 or tensor.ndim not in (1, 2):
        return tensor
    rows = torch.atleast_2d(tensor)
    return rows[torch.arange(len(own)).clamp(max=len(rows) - 1)]


def _misfit(
    path: Path, name: str, theirs: Tensor | None, own: Tensor | None, file: ModelFile, spec: Mapping[str, Any]
) -> UserError:
    shapes = ["missing" if tensor is None else str(list(tensor.shape) or "a number") for tensor in (theirs, own)]
    both = {
        option: (file.network[option], spec[option])
        for option in _OF_SHAPES
        if option in spec and option in file.network
    }
    differing = [
        f": {option} is {there!r} there and {here!r} here"
        for option, (there, here) in both.items()
        if there != (list(here) if isinstance(here, tuple) else here)
        and (option != "norm" or "timestep_batch" in (there, here))
    ]
    if isinstance(python := file.network.get("python"), str) and python != spec.get("python"):
        differing = [f": it holds {python[:120]}, which was made in Python"]
    why = differing[0] if differing else ""
    return UserError(
        f"{path} does not fit this network{why}; the first difference is {name}, {shapes[0]} there and {shapes[1]} here"
    )


def _said(
    path: Path, file: ModelFile, taken: Mapping[str, Tensor], anew: list[str], classes: int, own: Mapping[str, Tensor]
) -> str:
    parts = [f"training starts from the weights of {path} ({len(taken)} tensors)"]
    if shown := [name for name in anew if not name.endswith("num_batches_tracked")]:
        others = (
            f"{len(file.classes)} classes there, {classes} here"
            if file.classes is not None
            else f"{classes} classes here"
        )
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        parts.append(f"{', '.join(shown[:4])}{more} start anew ({others})")
    if "normalize.mean" in own:
        parts.append("images are normalised by the mean and std of this data set")
    return "; ".join(parts)
