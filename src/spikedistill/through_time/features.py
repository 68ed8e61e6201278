"""Intermediate features: the outputs of named layers."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .call import Call
from .signal import Signal, signals_in


@contextmanager
def outputs_of(module: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Keep the outputs of the named layers within the block: `with outputs_of(model, ["stages.0"]) as outputs: model(x)`.

    Auxiliary heads, feature distillation and inspection all use it. The outputs are signals; `mean_rate` turns them into tensors
    `[B, ...]` with their graph. The outputs of an ANN are tensors already. Modules can be called with the signals until the block
    ends.

    Args:
        module: the network.
        layers: names as `named_modules` gives them.

    Raises:
        UserError: for an unknown layer, or one inside a `Recurrent`.
    """
    known = dict(module.named_modules())
    outputs: dict[str, Any] = {}
    calls: list[Call] = []
    for name in layers:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or list(known)[1:4]
            raise UserError(f"the network has no layer {name!r}: did you mean {' or '.join(map(repr, close))}?")

    def keep(name: str) -> Any:
        def after(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            for signal in signals_in(output):
                if signal.call.timestep is not None:
                    raise UserError(
                        f"layer {name!r} is inside a Recurrent, which runs it timestep by timestep: name the Recurrent"
                    )
                signal.kept = signal.call.held = True
                calls.append(signal.call)
            outputs[name] = output

        return after

    handles = [known[name].register_forward_hook(keep(name)) for name in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
        for call in calls:
            call.ended = True


class OverTime:
    """Collects what hooks receive into values over time: a layer inside a `Recurrent` is called once for each timestep."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], list[tuple[Tensor, ...]]] = {}
        self._calls: Counter[tuple[str, int]] = Counter()

    def clear(self) -> None:
        """Begin a pass."""
        self._parts.clear()
        self._calls.clear()

    def of(self, path: str, *values: Any) -> tuple[Tensor, ...] | None:
        """The values `[T, B, ...]` of all timesteps; None before the last timestep.

        Args:
            path: the path of the layer.
            values: such as its input and output in one call; an ordinary tensor counts as one timestep.
        """
        found = tuple(value.over_time() if isinstance(value, Signal) else value.unsqueeze(0) for value in values)
        call = next((value.call for value in values if isinstance(value, Signal)), None)
        if call is None or call.timestep is None:
            return found
        place = path, call.timestep
        parts = self._parts.setdefault((path, self._calls[place]), [])
        self._calls[place] += 1
        parts.append(found)
        if not call.is_last:
            return None
        return tuple(torch.cat(part) for part in zip(*self._parts.pop((path, self._calls[place] - 1)), strict=True))
