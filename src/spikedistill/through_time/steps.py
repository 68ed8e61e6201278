"""Networks of any library that run one timestep at a time: `step(x, state) -> (logits, state)`."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import UserError
from .finite import check_finite
from .model import Temporal

# The largest difference between two calls on the same input that rounding on an accelerator explains.
_ROUNDING = 1e-4
_CHECKED_STEPS = 3


@runtime_checkable
class Steps(Protocol):
    """Anything that runs one timestep per call and keeps nothing between calls; it need not be an `nn.Module`.

    `step` takes the input `[B, ...]` of one timestep and the state that the previous call returned, None before the
    first timestep. It returns the logits `[B, C]` of this timestep and the new state: tensors with a row for each of
    the B samples, in any nesting of dicts, lists, tuples and dataclasses. None may stand in place of a tensor.

    Two attributes are optional: `spiking`, a tuple of the module types whose outputs are spikes, and `has_time_axis(layer)`, which
    tells whether a layer's tensors start with an axis of time of length 1.
    """

    def step(self, x: Tensor, state: Any = None, /) -> tuple[Tensor, Any]: ...


class Stepwise(nn.Module, ABC):
    """A network with a `step`, to be called over all timesteps as `temporal` networks are.

    Args:
        module: the network inside; its layers are known by their paths in it.

    Attributes:
        spiking: types of the layers whose outputs are spikes.
    """

    spiking: tuple[type[nn.Module], ...] = ()

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    @abstractmethod
    def step(self, x: Tensor, state: Any = None, /) -> tuple[Tensor, Any]:
        """Advance by one timestep; see `Steps`."""

    def has_time_axis(self, layer: nn.Module) -> bool:
        """Whether the tensors of a layer start with an axis of time, of length 1."""
        return False

    def forward(self, x: Tensor, timesteps: int | None = None) -> Tensor:
        """Logits `[T, B, C]` of a static input `[B, ...]` and `timesteps=T`, or of a sequence `[T, B, ...]` without."""
        return torch.stack([logits for logits, _ in steps(self, frames_of(x, timesteps))])


def check_steps(model: Any, *, compiled: bool = False) -> None:
    """Refuse what cannot run one timestep at a time.

    Raises:
        UserError: for an object without a method `step`, or `compiled` for a network that is not from this library.
    """
    if not callable(getattr(model, "step", None)):
        raise UserError(
            f"model is a {type(model).__name__}, expected a network from load, create_model or temporal(module), or anything "
            "with a method step(x, state) -> (logits, state), such as from_spikingjelly(net) or from_snntorch(net)"
        )
    if compiled and not isinstance(model, Temporal):
        raise UserError(
            f"compiled=True compiles networks from load, create_model or temporal(module), and this is a {type(model).__name__}: "
            "leave it out"
        )


def in_eval_mode(model: Any) -> Any:
    """The model, in eval mode; of an object that is no module, the modules among its attributes."""
    if callable(evaluate := getattr(model, "eval", None)):
        evaluate()
    for _, root in _roots(model):
        root.eval()
    return model


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Eval mode while the block runs; afterwards each module has the mode that it had."""
    before = [(module, module.training) for _, root in _roots(model) for module in root.modules()]
    in_eval_mode(model)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def layers_of(model: Any) -> dict[str, nn.Module]:
    """The modules of a network by path, itself as ""; for an object that is no module, those among its attributes."""
    found: dict[str, nn.Module] = {}
    for name, root in _roots(model):
        inside = root.module if isinstance(root, (Temporal, Stepwise)) else root
        for path, module in inside.named_modules():
            found[f"{name}.{path}".strip(".")] = module
    return found


def spiking_types(model: Any) -> tuple[type[nn.Module], ...]:
    """The types of the layers whose outputs are spikes, as the network and the adapters in it declare them."""
    return tuple(kind for part in _declaring(model) for kind in getattr(part, "spiking", ()))


def has_time_axis(model: Any, layer: nn.Module) -> bool:
    """Whether the tensors of a layer start with an axis of time, of length 1."""
    return any(
        part.has_time_axis(layer) for part in _declaring(model) if callable(getattr(part, "has_time_axis", None))
    )


def device_of(model: Any) -> torch.device | None:
    """The device of the network's parameters or buffers; None if it has neither."""
    for module in layers_of(model).values():
        for tensor in (*module.parameters(), *module.buffers()):
            return tensor.device
    return None


def sent_to(model: Any, x: Tensor) -> Tensor:
    """The input on the network's device."""
    device = device_of(model)
    return x if device is None else x.to(device)


def frames_of(x: Tensor, timesteps: int | None) -> list[Tensor]:
    """The inputs `[B, ...]` of all timesteps: T times a static input, or the parts of a sequence `[T, B, ...]`.

    Raises:
        UserError: for no timesteps, no samples, or, on a CPU, NaN or infinite values.
    """
    if timesteps is not None and timesteps < 1:
        raise UserError(f"timesteps is {timesteps}, expected 1 or more")
    expected = "[B, ...] with timesteps=T" if timesteps is not None else "[T, B, ...] without timesteps"
    if x.ndim < (1 if timesteps is not None else 2) or 0 in x.shape:
        raise UserError(f"got an input {list(x.shape)}, expected {expected}, not empty")
    check_finite(x, axis=0 if timesteps is not None else 1)
    return list(x.unbind(0)) if timesteps is None else [x] * timesteps


def steps(model: Steps, frames: Iterable[Tensor]) -> Iterator[tuple[Tensor, Any]]:
    """Run a network step by step; yields the logits `[B, C]` and the state after each timestep.

    Args:
        model: see `Steps`.
        frames: the inputs `[B, ...]` of all timesteps, see `frames_of`.

    Raises:
        UserError: for logits or a state without a row for each sample.
    """
    state = None
    for frame in frames:
        logits, state = one_step(model.step, frame, state)
        yield logits, state


def one_step(step: Callable[..., Any], x: Tensor, state: Any, **options: Any) -> tuple[Tensor, Any]:
    """Call `step` and check what it returns.

    Raises:
        UserError: for anything other than logits `[B, C]` and a state with a row for each sample.
    """
    returned = step(x, state, **options)
    if not isinstance(returned, tuple) or len(returned) != 2:
        got = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else f"a {type(returned).__name__}"
        raise UserError(f"step returned {got}, expected two values: logits [B, C] and the state to pass on")
    check_rows(*returned, samples=len(x))
    return returned


def logits_over_time(model: Steps, x: Tensor, timesteps: int | None = None) -> Tensor:
    """Logits `[T, B, C]` of any network with `step`, on its device.

    Args:
        model: a network from `load`, `create_model` or `temporal`, or any other that `Steps` describes.
        x: a static input `[B, ...]`, shown at every timestep, or a sequence `[T, B, ...]`.
        timesteps: T, for a static input only.

    Raises:
        UserError: for an object without `step`, or inputs, logits or a state that do not fit.
    """
    check_steps(model)
    x = sent_to(model, x)
    if isinstance(model, Temporal):
        return model(x, timesteps)
    return torch.stack([logits for logits, _ in steps(model, frames_of(x, timesteps))])


def check_rows(logits: Any, state: Any, samples: int) -> None:
    """Refuse a network whose samples cannot leave the batch.

    Raises:
        UserError: for logits or state without a row for each sample.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != samples:
        got = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UserError(
            f"the network returned {got} for a timestep of {samples} samples, expected logits [B, C] = [{samples}, C] of 2 classes "
            "or more"
        )
    for path, value in leaves(state):
        if not isinstance(value, Tensor) or value.ndim == 0:
            got = "a number" if isinstance(value, Tensor) else repr(value)[:40]
            raise UserError(
                f"the state has {got} at {path or 'its top'!r}, expected tensors with a row for each sample, in any nesting of "
                "dicts, lists, tuples and dataclasses: repeat it for every sample, such as torch.full((len(x),), value)"
            )
        if len(value) != samples:
            raise UserError(
                f"layer {path!r} keeps {len(value)} rows of state for {samples} samples, so samples cannot leave the batch: "
                "expected a network that keeps one row for each"
            )


def check_nothing_kept(model: Steps, frames: Sequence[Tensor]) -> None:
    """Refuse a network that keeps state on itself: the same steps, begun again, must give the same logits.

    Args:
        model: see `Steps`.
        frames: inputs as for `steps`, of which the first few are taken.

    Raises:
        UserError: if a second pass gives other logits.
    """
    first_pass, second_pass = ([out.clone() for out, _ in steps(model, frames[:_CHECKED_STEPS])] for _ in range(2))
    for t, (first, again) in enumerate(zip(first_pass, second_pass, strict=True), 1):
        if not torch.allclose(first, again, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True):
            raise UserError(
                f"timestep {t} gave other logits when the same steps were run a second time from state None: the network keeps "
                "state on itself, or draws random numbers; return all state from step, and set it anew when state is None"
            )


def leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a state that is not a container, with its path; None is skipped."""
    if state is None:
        return
    for key, value in _parts(state):
        yield from leaves(value, f"{path}.{key}" if path else str(key))
    if _parts(state) is _LEAF:
        yield path, state


def map_state(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting with every tensor changed, such as `lambda rows: rows[keep]`."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, Mapping):
        changed = {key: map_state(value, change) for key, value in state.items()}
        if type(state) is dict or not isinstance(state, MutableMapping):
            return changed
        like = copy.copy(state)  # an OrderedDict or a defaultdict stays one
        like.update(changed)
        return like
    if isinstance(state, (tuple, list)):
        parts = [map_state(value, change) for value in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{f.name: map_state(getattr(state, f.name), change) for f in fields(state) if f.init})
    return state


def _roots(model: Any) -> list[tuple[str, nn.Module]]:
    """The network if it is a module, else the modules among its attributes."""
    if isinstance(model, nn.Module):
        return [("", model)]
    return [(name, value) for name, value in getattr(model, "__dict__", {}).items() if isinstance(value, nn.Module)]


def _declaring(model: Any) -> list[Any]:
    """The network, and the adapters in it: they may declare types of neurons and axes of time."""
    return [
        model,
        *(m for _, root in _roots(model) for m in root.modules() if isinstance(m, Stepwise) and m is not model),
    ]


_LEAF: list[tuple[Any, Any]] = []


def _parts(state: Any) -> list[tuple[Any, Any]]:
    """What a container holds, with its keys; `_LEAF` of anything else."""
    if isinstance(state, Mapping):
        return list(state.items())
    if isinstance(state, (tuple, list)):
        names = getattr(state, "_fields", range(len(state)))
        return list(zip(names, state, strict=True))
    if is_dataclass(state) and not isinstance(state, type):
        return [(f.name, getattr(state, f.name)) for f in fields(state)]
    return _LEAF
