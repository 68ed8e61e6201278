"""Networks that users register."""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, overload

from torch import nn

from ..errors import UserError
from ..neurons import LIF
from ..options import check_options, defaults_of
from ..through_time import Temporal
from .layers import MODELS, OwnModel, Sizes
from .neuron_layers import layer_of

_Own = TypeVar("_Own", bound=Callable[..., nn.Module])
# The arguments that `create_model` passes to a registered network: sizes of the data, and a function that makes its neurons.
TOLD = ("num_classes", "in_channels", "image_size", "neuron")


@overload
def register_model(build: _Own) -> _Own: ...


@overload
def register_model(build: str) -> Callable[[_Own], _Own]: ...


def register_model(build: _Own | str) -> _Own | Callable[[_Own], _Own]:
    """Register a network of your own: a function or class that makes a module.

    Use it as a decorator, `@register_model("my_cnn")`, or `@register_model` for the name of the function or class, where `MyCNN` is
    "my_cnn". The module is written for samples `[B, ...]` with `LIF` between its layers. The parameters `num_classes`,
    `in_channels`, `image_size` `(H, W)` and `neuron` receive values of the run; omit those that you do not need. `neuron(channels)`
    makes a layer of neurons with the run's settings, or ReLU for the ANN twin. Each other parameter has a default and is an option,
    `--model.options.NAME`.

    Raises:
        UserError: if the name is taken, or a parameter has no default that is a number, a text or a switch.
    """
    if isinstance(build, str):
        return partial(_enter, build)
    return _enter(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", build.__name__).lower(), build)


def _enter(name: str, build: _Own) -> _Own:
    options = defaults_of(build, f"model {name!r}", without=TOLD)
    takes = frozenset(TOLD) & inspect.signature(build).parameters.keys()
    MODELS.register(name, OwnModel(build, takes, options))
    return build


def build_own(
    name: str,
    own: OwnModel,
    sizes: Sizes,
    changed: Mapping[str, bool],
    neuron: str,
    options: Mapping[str, Any],
    neuron_options: Mapping[str, Any],
) -> nn.Module:
    """A registered network.

    Args:
        name: its name.
        own: the network.
        sizes: what the data fixes.
        changed: settings of layouts, and whether they differ from their defaults.
        neuron: the name of the neurons.
        options: its own options, and arguments of `LIF`.
        neuron_options: options of registered neurons.

    Raises:
        UserError: for a setting that it does not take.
    """
    if refused := [setting for setting, differs in changed.items() if differs]:
        raise UserError(
            f"the registered network {name!r} takes no {', '.join(refused)}, which layouts of this library have: leave it out"
        )
    mine = {option: value for option, value in options.items() if option in own.options}
    of_lif = {option: value for option, value in options.items() if option not in own.options}
    if "neuron" not in own.takes:
        defaults = inspect.signature(LIF).parameters
        of_lif = {option: value for option, value in of_lif.items() if not _is_default(option, value, defaults)}
        told = [*of_lif, *neuron_options, *(["neuron"] if neuron != "lif" else [])]
        if told:
            raise UserError(
                f"the network {name!r} makes its own neurons, so it takes no {', '.join(told)}: give it a parameter neuron, and "
                "call neuron(channels) for each layer of neurons"
            )
    check_options(f"model {name!r}", own.options, mine)
    given: dict[str, Any] = sizes._asdict()
    if "neuron" in own.takes:
        given["neuron"] = layer_of(neuron, of_lif, dict(neuron_options))
    network = own.build(**{key: value for key, value in given.items() if key in own.takes}, **mine)
    if not isinstance(network, nn.Module) or isinstance(network, Temporal):
        raise UserError(
            f"the registered network {name!r} returned a {type(network).__name__}, expected a torch.nn.Module for samples "
            "[B, ...], without temporal(...)"
        )
    return network


def _is_default(option: str, value: Any, defaults: Mapping[str, inspect.Parameter]) -> bool:
    return option in defaults and value == defaults[option].default
