"""One timestep of a layer that defines its own `step`: what it receives, and whether what it returns can be used."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..neurons import SpikingNeuron, membrane_precision
from .draws import excused

_FORMS = "a tensor, a tuple of tensors, or a dict of tensors by name, each with one row per sample"


class WrongStep(UserError):
    """The `step` of a layer did something that the library cannot use.

    Args:
        neuron: the layer.
        message: what it did, and what to do instead.
    """

    def __init__(self, neuron: SpikingNeuron, message: str) -> None:
        super().__init__(message)
        self.neuron = neuron
        self.path = ""

    def find_in(self, network: nn.Module) -> None:
        """Name the layer by its path in the network."""
        self.path = next((path for path, module in network.named_modules() if module is self.neuron), "")

    def __str__(self) -> str:
        where = f" of layer {self.path!r}" if self.path else ""
        return f"{type(self.neuron).__name__}.step{where} {self.args[0]}"


def run_step(neuron: SpikingNeuron, current: Tensor, before: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Call the layer's `step`.

    Args:
        neuron: the layer.
        current: its input `[B, ...]`.
        before: the parts of its state by name, "" for a state that is one tensor; empty at the first timestep.

    Returns:
        The spikes in the dtype of `current`, and the parts of the state after them.

    Raises:
        WrongStep: for spikes or a state that cannot be used, or a layer that keeps something on itself.
    """
    if not current.is_floating_point():
        raise WrongStep(neuron, f"got currents of {current.dtype}: convert the network's input, x.float()")
    given, state = membrane_precision(current), _joined(before)
    if torch.compiler.is_compiling():
        returned: Any = neuron.step(given, state)
    else:
        kept, read = _contents(neuron), _writes(given, *before.values())
        with excused():
            returned = neuron.step(given, state)
        _check_unchanged(neuron, kept)
        if _writes(given, *before.values()) != read:
            raise WrongStep(
                neuron,
                "changed its current or its state in place, and others may read them too: make new tensors, as u = u + current",
            )
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise WrongStep(neuron, f"returned {_in_words(returned)}, expected two values: the spikes and the state")
    spikes, state = returned
    _check_spikes(neuron, spikes, given)
    after = _parts(neuron, state, given.shape[0])
    if before and before.keys() != after.keys():
        raise WrongStep(
            neuron,
            f"returned a state of {_names(after)}, and of {_names(before)} at the timestep before: expected the same parts at "
            "every timestep",
        )
    return spikes.to(current.dtype), after


def check_gradient(neuron: SpikingNeuron, current: Tensor, spikes: Tensor) -> None:
    """Refuse spikes without a gradient: nothing before the layer would learn.

    Raises:
        WrongStep: in that case.
    """
    if current.requires_grad and not spikes.requires_grad and torch.is_grad_enabled():
        raise WrongStep(
            neuron,
            "returned spikes without a gradient, so the layers before it would not learn: make spikes with "
            "spikedistill.spike(u - threshold), which has a surrogate gradient",
        )


def _joined(parts: Mapping[str, Tensor]) -> Any:
    """The state as `step` returned it."""
    if not parts:
        return None
    if "" in parts:
        return parts[""]
    return tuple(parts[place] for place in sorted(parts, key=int)) if "0" in parts else dict(parts)


def _parts(neuron: SpikingNeuron, state: Any, samples: int) -> dict[str, Tensor]:
    """The tensors of a state by name.

    Raises:
        WrongStep: for anything else.
    """
    if _is_plain(state):
        parts: dict[str, Any] = {"": state}
    elif type(state) is tuple:
        parts = {str(place): part for place, part in enumerate(state)}
    elif type(state) is dict and all(isinstance(name, str) and name.isidentifier() for name in state):
        parts = state
    else:
        raise WrongStep(neuron, f"returned {_in_words(state)} as the state, expected {_FORMS}")
    if not parts:
        raise WrongStep(neuron, f"returned {_in_words(state)} as the state, which is empty: expected {_FORMS}")
    for name, part in parts.items():
        if not _is_plain(part) or part.ndim == 0 or part.shape[0] != samples:
            of = f"part {name!r} of the state" if name else "the state"
            raise WrongStep(neuron, f"returned {_in_words(part)} as {of} of {samples} samples, expected {_FORMS}")
    return dict(parts)


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor, and of no subclass but that of `torch.export`."""
    return type(value) is Tensor or (isinstance(value, Tensor) and torch.compiler.is_exporting())


def _check_spikes(neuron: SpikingNeuron, spikes: Any, current: Tensor) -> None:
    if not _is_plain(spikes) or spikes.shape != current.shape:
        raise WrongStep(
            neuron,
            f"returned {_in_words(spikes)} as the spikes, expected a tensor of the currents' shape {list(current.shape)}",
        )
    if spikes.dtype != current.dtype:
        raise WrongStep(
            neuron,
            f"returned spikes of {spikes.dtype}, expected the currents' dtype {current.dtype}: spikedistill.spike(u - threshold) "
            "makes such spikes",
        )


def _contents(neuron: nn.Module) -> dict[str, tuple[Any, int | None]]:
    """The attributes of a layer by name; for a tensor, also how often it has been written to."""
    found: dict[str, tuple[Any, int | None]] = {}

    def look(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, part in value.items():
                look(f"{name}[{key!r}]", part)
        elif isinstance(value, (list, tuple)):
            for place, part in enumerate(value):
                look(f"{name}[{place}]", part)
        # a container is compared by its parts and its length
        found[name] = value, len(value) if isinstance(value, (Mapping, list)) else _writes(value)[0]

    for path, module in neuron.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                for own, tensor in value.items():
                    look(f"{path}.{own}" if path else own, tensor)
            elif name != "_modules":
                look(f"{path}.{name}" if path else name, value)
    return found


def _writes(*values: Any) -> list[int | None]:
    """How often each tensor has been written to; None if that is not counted."""
    return [value._version if isinstance(value, Tensor) and not value.is_inference() else None for value in values]


def _check_unchanged(neuron: SpikingNeuron, before: Mapping[str, tuple[Any, int | None]]) -> None:
    """Refuse a layer whose attributes changed in `step`.

    Raises:
        WrongStep: naming the attribute.
    """
    after = _contents(neuron)
    for name, (value, written) in after.items():
        held, had_written = before.get(name, (_Nothing, None))
        if value is not held or written != had_written:
            raise WrongStep(
                neuron,
                f"changed self.{name}: a layer keeps no state on itself, so return it as part of the state, which the next step "
                "receives",
            )


class _Nothing:
    """Marks an attribute that did not exist."""


def _names(parts: Mapping[str, Tensor]) -> str:
    return "one tensor" if "" in parts else ", ".join(map(repr, parts))


def _in_words(value: Any) -> str:
    """A value in words, for messages."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if type(value) in (tuple, list, dict):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value) if value is None or isinstance(value, (bool, int, float, str)) else f"a {type(value).__name__}"
