"""Counts the products of two signals and the sums over axes in a pass, of which the attention of spiking transformers is made."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..through_time import Signal
from ..through_time.mapping import map_over_time
from ..through_time.signal import signals_in
from .operations import ProductOperations
from .synapses import Levels


class _Function(NamedTuple):
    symbol: str
    is_matrix: bool = False
    is_sum: bool = False


_MATRIX, _EINSUM, _MASK = _Function("@", is_matrix=True), _Function("einsum", is_matrix=True), _Function("*")
_FUNCTIONS = {
    "__matmul__": _MATRIX,
    "matmul": _MATRIX,
    "bmm": _MATRIX,
    "einsum": _EINSUM,
    "__mul__": _MASK,
    "__rmul__": _MASK,
    "mul": _MASK,
    "sum": _Function("sum", is_sum=True),
}


class Products:
    """The sums over batches, by the module that computes them."""

    def __init__(self) -> None:
        self._found: dict[str, _Product] = {}

    @contextmanager
    def watching(self, network: nn.Module, samples: int) -> Iterator[None]:
        """Count the pass of so many samples that runs in the block, but for what is inside a `Recurrent`."""
        inside: list[str] = []
        calls: Counter[str] = Counter()

        def take(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            function = _FUNCTIONS.get(name)
            signals = signals_in(*args, *kwargs.values())
            if function is None or len(signals) != (1 if function.is_sum else 2):
                return
            path = f"{inside[-1]} {function.symbol}".strip()
            row = path if calls[path] == 0 else f"{path}#{calls[path]}"
            calls[path] += 1
            self._found.setdefault(row, _Product(function, len(signals))).add(
                lambda values: map_over_time(func, args, kwargs, values), signals, samples
            )

        def enter(path: str) -> Any:
            def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
                for signal in signals_in(*inputs):
                    if signal.call.timestep is None:
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

    def rows(self, samples: int) -> list[ProductOperations]:
        """The counts per sample, of those that take arithmetic."""
        rows = [product.row(path, samples) for path, product in self._found.items()]
        return [row for row in rows if any(row.dense_macs) or any(row.effective_acs)]


class _Product:
    """One product of signals, or one sum, over all samples."""

    def __init__(self, function: _Function, signals: int) -> None:
        self.function = function
        self.levels = [Levels() for _ in range(signals)]
        self.effective = torch.zeros((), dtype=torch.float64)
        self.dense: list[int] = []
        self.inputs: list[int] = []
        self.contracts = False

    def add(self, compute: Callable[[Callable[[Signal], Tensor]], Tensor], signals: list[Signal], samples: int) -> None:
        """Add a further batch: as many terms are not zero as the same function has of zeros and ones.

        Args:
            compute: the function over time, of what it is given for each signal.
            signals: those that it takes.
            samples: of the batch, which may share an axis with heads.
        """
        for levels, signal in zip(self.levels, signals, strict=True):
            levels.add(_values(signal))
        terms = compute(lambda signal: (_values(signal) != 0).double())
        every = compute(lambda signal: torch.ones_like(_values(signal), dtype=torch.float64))
        self.contracts = bool((every > 1).any())  # an einsum may be a mask
        effective, dense = (_over_time(part, signals[0].timesteps) for part in (terms, every))
        self.effective = self.effective + effective
        self.dense = (dense / samples).round().long().tolist()
        self.inputs = [signal.sample.numel() // samples for signal in signals]

    def row(self, path: str, samples: int) -> ProductOperations:
        """The counts per sample."""
        is_matrix, is_sum = self.function.is_matrix and self.contracts, self.function.is_sum
        selects = is_sum or any(levels.two_valued for levels in self.levels)
        accumulates, multiplies = selects and (is_matrix or is_sum), not selects
        effective, none = (self.effective / samples).tolist(), [0.0] * len(self.effective)
        return ProductOperations(
            path,
            is_matrix,
            [levels.two_valued for levels in self.levels],
            effective if accumulates else none,
            effective if multiplies else none,
            self.dense if is_matrix or multiplies else [0] * len(self.dense),
            self.inputs,
        )


def _values(signal: Signal) -> Tensor:
    """All timesteps `[T, B, ...]`, or `[1, B, ...]` of a signal that is constant in time."""
    values = signal.over_time()
    return values[:1] if values.stride(0) == 0 else values


def _over_time(terms: Tensor, timesteps: int) -> Tensor:
    """How many there are at each timestep. What is constant in time is computed at the first."""
    counts = terms.reshape(len(terms), -1).sum(1).cpu()
    return torch.cat([counts, counts.new_zeros(timesteps - len(counts))])
