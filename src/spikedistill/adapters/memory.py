"""State that a library keeps on its modules, as a value that is passed from step to step."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, float64, full, nn

from ..errors import UserError
from ..through_time.steps import leaves

Place = tuple[str, nn.Module, str]  # path of a module, the module, the attribute


@dataclass(frozen=True)
class Shared:
    """A number that all samples share, such as a count of timesteps, repeated for each sample: `[B]`."""

    rows: Tensor


@contextmanager
def put_on(places: Iterable[Place], values: Mapping[str, Any]) -> Iterator[None]:
    """Set the memories of modules while the block runs; afterwards they hold what they held before.

    Args:
        places: the memories.
        values: the initial value of each memory, by `path.attribute`.
    """
    before = [(module, name, getattr(module, name)) for _, module, name in places]
    try:
        for path, module, name in places:
            setattr(module, name, _unpacked(values[f"{path}.{name}"]))
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def check_state(state: Any, names: Iterable[str], samples: int) -> None:
    """Refuse a state of another network or batch, which a library would broadcast or reset without an error.

    Args:
        state: the state that was passed to a step.
        names: the keys that it must have.
        samples: how many rows each of its tensors must have.

    Raises:
        UserError: naming the difference.
    """
    if not isinstance(state, Mapping) or state.keys() != set(names):
        got = ", ".join(map(str, state)) if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise UserError(
            f"the state is {got or 'empty'}, expected {', '.join(names)}: pass what the previous step of this network returned, or "
            "None"
        )
    for path, value in leaves(state):
        if isinstance(value, Tensor) and len(value) != samples:
            raise UserError(f"the state has {len(value)} rows at {path!r} for {samples} samples, expected one for each")


def taken_from(places: Iterable[Place], samples: int) -> dict[str, Any]:
    """The memories of modules by `path.attribute`, with a row for each sample.

    Raises:
        UserError: for a memory with another number of rows.
    """
    return {
        f"{path}.{name}": _packed(getattr(module, name), samples, f"{path}.{name}") for path, module, name in places
    }


def _packed(value: Any, samples: int, path: str) -> Any:
    if isinstance(value, Tensor) and value.ndim and len(value) == samples:
        return value
    if isinstance(value, (bool, int, float)):
        return Shared(full((samples,), value, dtype=float64 if isinstance(value, float) else None))
    if isinstance(value, (list, tuple)):
        return type(value)(_packed(part, samples, path) for part in value)
    if value is None:
        return None
    got = list(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise UserError(
        f"layer memory {path!r} is {got} for {samples} samples, so samples cannot leave the batch: expected one row for each"
    )


def _unpacked(value: Any) -> Any:
    if isinstance(value, Shared):
        return value.rows[0].item()
    if isinstance(value, (list, tuple)):
        return type(value)(_unpacked(part) for part in value)
    return value
