"""Random numbers in a network over time: one draw serves all timesteps, so none may be drawn at each of them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .call import UnsupportedOperationError

_DRAWS = frozenset(
    {
        "bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "normal", "poisson", "rand", "rand_like",
        "randint", "randint_like", "randn", "randn_like", "random", "randperm", "uniform",
    }
)  # fmt: skip


def without_draws(run: Callable[[], Any], modules: Iterable[nn.Module], where: str) -> Any:
    """What a function returns, if it draws no random numbers of PyTorch's.

    Looked at are PyTorch's own generators and those that are an attribute of a module. Not looked at where PyTorch only follows the
    operations: while it compiles, or records a CUDA graph.

    Args:
        run: runs layers; again where a generator has moved, because another thread may have moved it.
        modules: all that it runs.
        where: in words.

    Raises:
        UnsupportedOperationError: naming the function that draws.
    """
    if torch.compiler.is_compiling() or (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):
        return run()
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
    generators += [part for module in modules for part in vars(module).values() if isinstance(part, torch.Generator)]
    before = [generator.get_state() for generator in generators]
    out = run()
    if all(torch.equal(generator.get_state(), state) for generator, state in zip(generators, before, strict=True)):
        return out
    with torch.compiler.set_stance("force_eager"), _Refused(where):
        return run()


class _Refused(TorchFunctionMode):
    """Refuse every draw within the block.

    Args:
        where: in words.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        out = func(*args, **(kwargs or {}))
        # a dropout that drops nothing returns its input itself
        dropped = "dropout" in name and isinstance(out, torch.Tensor) and not any(out is arg for arg in args)
        if dropped or name.removesuffix("_") in _DRAWS:
            raise UnsupportedOperationError(
                f"{name!r} draws random numbers {self.where}, anew at every timestep, where one draw serves all: give them to the "
                "network with its input, or call it on the whole sequence"
            )
        return out
