"""Random numbers in a network over time: one draw serves all timesteps, so no layer may draw at each of them.

Only the `step` of a layer of neurons may, because it defines one timestep.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .call import UnsupportedOperationError

_DRAWS = frozenset(
    {
        "bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "normal", "poisson", "rand", "rand_like",
        "randint", "randint_like", "randn", "randn_like", "random", "randperm", "uniform",
    }
)  # fmt: skip


def without_draws(run: Callable[[], Any], modules: Iterable[nn.Module], where: str) -> Any:
    """Call a function, and refuse random numbers that it draws from PyTorch outside of `excused` blocks.

    PyTorch's own generators are checked, and generators that are an attribute of a module. There is no check while PyTorch
    compiles or records a CUDA graph.

    Args:
        run: runs layers. If a generator has advanced, the function is called again, because another thread may have advanced the
            generator.
        modules: all modules that it runs.
        where: in words.

    Returns:
        What the function returns.

    Raises:
        UnsupportedOperationError: naming the function that draws.
    """
    if torch.compiler.is_compiling() or (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):
        return run()
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
    generators += [part for module in modules for part in vars(module).values() if isinstance(part, torch.Generator)]
    watch = _Watch(generators)
    with _watching(watch):
        out = run()
    if not watch.has_moved():
        return out
    refused = _Refused(where)
    with torch.compiler.set_stance("force_eager"), refused, _watching(refused):
        return run()


@contextmanager
def excused() -> Iterator[None]:
    """Let the block draw random numbers within `without_draws`."""
    watch = _WATCH.get()
    if watch is None:
        yield
        return
    watch.pause()
    try:
        yield
    finally:
        watch.resume()


class _Watch:
    """Whether generators have advanced outside of `excused` blocks.

    Args:
        generators: those that are watched.
    """

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.generators = generators
        self.moved = False
        self.resume()

    def has_moved(self) -> bool:
        now = self._states()
        self.moved |= not all(torch.equal(state, then) for state, then in zip(now, self.before, strict=True))
        return self.moved

    def pause(self) -> None:
        self.has_moved()

    def resume(self) -> None:
        self.before = self._states()

    def _states(self) -> list[Tensor]:
        return [generator.get_state() for generator in self.generators]


class _Refused(TorchFunctionMode):
    """Refuse every random draw in the block, except in `excused` blocks inside it.

    Args:
        where: in words.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        out = func(*args, **(kwargs or {}))
        # a dropout that drops nothing returns its input itself
        dropped = "dropout" in name and isinstance(out, torch.Tensor) and not any(out is arg for arg in args)
        if not self.paused and (dropped or name.removesuffix("_") in _DRAWS):
            raise UnsupportedOperationError(
                f"{name!r} draws random numbers {self.where}, anew at every timestep, but one draw must serve all: give them to "
                "the network with its input, or call it on the whole sequence"
            )
        return out


_WATCH: ContextVar[_Watch | _Refused | None] = ContextVar("watch", default=None)


@contextmanager
def _watching(watch: _Watch | _Refused) -> Iterator[None]:
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)
