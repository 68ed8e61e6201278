"""Watches the inputs and outputs of layers while a network runs step by step."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from ..through_time import Signal, Steps
from ..through_time.steps import has_time_axis, layers_of

# Of each layer: its path, the layer, its input and output `[T, B, ...]`; T is 1 if the network runs step by step.
Take = Callable[[str, Any, Tensor, Tensor], None]


@contextmanager
def watching_steps(
    model: Steps,
    kinds: tuple[type[nn.Module], ...],
    take: Take,
    *,
    begin: Callable[[], None] = lambda: None,
    refuse: Callable[[str], None] = lambda path: None,
) -> Iterator[None]:
    """Watch the layers of some types in every `step` of a network while the block runs.

    A layer that is called again in the same timestep has a further path, `path#1`.

    Args:
        model: a network with `step`.
        kinds: types of layers.
        take: called for every layer and timestep.
        begin: called before the first timestep of a pass, whose state is None.
        refuse: called with the path of a layer that runs outside of `step`.

    Raises:
        UserError: from a step in which a layer's tensors do not have a row for each sample.
    """
    original, had_own = model.step, "step" in getattr(model, "__dict__", {})
    calls: Counter[str] = Counter()
    samples: int | None = None

    def step(x: Tensor, state: Any = None, **options: Any) -> Any:
        nonlocal samples
        if state is None:
            begin()
        calls.clear()
        samples = len(x)
        try:
            return original(x, state, **options)
        finally:
            samples = None

    def watch(path: str) -> Any:
        def after(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if samples is None:
                return refuse(path)
            key = path if calls[path] == 0 else f"{path}#{calls[path]}"
            calls[path] += 1
            of_time = has_time_axis(model, layer)
            take(key, layer, *(_one_timestep(value, samples, of_time, key) for value in (inputs[0], output)))
            return None

        return after

    handles = [
        layer.register_forward_hook(watch(path)) for path, layer in layers_of(model).items() if isinstance(layer, kinds)
    ]
    try:
        object.__setattr__(model, "step", step)  # also of a frozen dataclass
    except AttributeError:
        raise UserError(
            f"the steps of a {type(model).__name__} cannot be watched, because it has __slots__: expected an object without"
        ) from None
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if had_own:
            object.__setattr__(model, "step", original)
        else:
            object.__delattr__(model, "step")


def _one_timestep(value: Any, samples: int, of_time: bool, path: str) -> Tensor:
    """A layer's input or output as `[1, B, ...]`; of several outputs the first."""
    if isinstance(value, Signal):  # a part of the network is from this library
        return value.over_time()
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    if isinstance(value, Tensor) and value.ndim:
        of_time = of_time or (samples != 1 and value.shape[:2] == (1, samples))
        if of_time and value.shape[:2] == (1, samples):
            return value
        if not of_time and len(value) == samples:
            return value.unsqueeze(0)
    got = list(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise UserError(
        f"layer {path!r} took or returned {got} in a timestep of {samples} samples, expected a row for each sample"
    )
