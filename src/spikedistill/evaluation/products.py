"""Counts the products and sums of signals in a pass, of which the attention of spiking transformers is made."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..through_time import Signal
from ..through_time.mapping import map_over_time
from ..through_time.signal import signals_in
from .operations import ProductOperations
from .synapses import Levels

_FUNCTIONS = {
    "__matmul__": "@",
    "matmul": "@",
    "bmm": "@",
    "einsum": "einsum",
    "__mul__": "*",
    "__rmul__": "*",
    "mul": "*",
    "sum": "sum",
}


class Products:
    """The sums over batches, by the module that computes them."""

    def __init__(self) -> None:
        self._found: dict[str, _Product] = {}

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Count the pass that runs in the block."""
        inside: list[str] = []
        calls: Counter[str] = Counter()

        def take(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            function = _FUNCTIONS.get(name)
            signals = signals_in(*args, *kwargs.values())
            if function is None or (function != "sum" and len(signals) < 2):
                return
            path = f"{inside[-1]} {function}".strip()
            row = path if calls[path] == 0 else f"{path}#{calls[path]}"
            calls[path] += 1
            self._found.setdefault(row, _Product(function, len(signals))).add(func, args, kwargs, signals)

        def enter(path: str) -> Any:
            def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
                for signal in signals_in(*inputs):
                    signal.call.watch = take
                inside.append(path)

            return before

        def leave(*_: Any) -> None:
            inside.pop()

        modules = [*network.named_modules()]
        handles = [module.register_forward_pre_hook(enter(path)) for path, module in modules]
        handles += [module.register_forward_hook(leave) for _, module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def rows(self, samples: int, timesteps: int) -> list[ProductOperations]:
        """The counts per sample, of those that take arithmetic."""
        rows = [product.row(path, samples, timesteps) for path, product in self._found.items()]
        return [row for row in rows if any(row.dense_macs) or any(row.effective_acs)]


class _Product:
    """One product of signals, or one sum, over all samples."""

    def __init__(self, function: str, signals: int) -> None:
        self.function = function
        self.levels = [Levels() for _ in range(signals)]
        self.effective = torch.zeros(1, dtype=torch.float64)
        self.dense = torch.zeros(1, dtype=torch.float64)
        self.inputs: list[int] = []

    def add(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], signals: list[Signal]
    ) -> None:
        """Add a further batch: as many terms are not zero as the same function has of zeros and ones."""
        for levels, signal in zip(self.levels, signals, strict=True):
            levels.add(_values(signal))
        terms = map_over_time(func, args, kwargs, lambda signal: (_values(signal) != 0).double())
        every = map_over_time(func, args, kwargs, lambda signal: torch.ones_like(_values(signal), dtype=torch.float64))
        effective, dense = (part.flatten(1).sum(1).cpu() for part in (terms, every))
        self.effective, self.dense = self.effective + effective, dense / signals[0].shape[0]
        self.inputs = [signal.sample[0].numel() for signal in signals]

    def row(self, path: str, samples: int, timesteps: int) -> ProductOperations:
        """The counts per sample. What is constant in time is computed at the first timestep."""
        selects = self.function == "sum" or any(levels.two_valued for levels in self.levels)
        effective, none = _over_time(self.effective / samples, timesteps), [0.0] * timesteps
        masks, adds = self.function == "*" and selects, self.function == "sum"
        dense = none if masks or adds else _over_time(self.dense, timesteps)
        return ProductOperations(
            path,
            self.function,
            [levels.two_valued for levels in self.levels],
            effective if selects and not masks else none,
            none if selects else effective,
            [round(count) for count in dense],
            self.inputs,
        )


def _values(signal: Signal) -> Tensor:
    """All timesteps `[T, B, ...]`, or `[1, B, ...]` of a signal that is constant in time."""
    values = signal.over_time()
    return values[:1] if values.stride(0) == 0 else values


def _over_time(counts: Tensor, timesteps: int) -> list[float]:
    return [*counts.tolist(), *[0.0] * (timesteps - len(counts))]
