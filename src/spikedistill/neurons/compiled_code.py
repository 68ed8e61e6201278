"""Compiled code of a function, kept on disk beside PyTorch's own.

PyTorch keeps what its compiler wrote, but traces a function again in every process before it looks there, about a second for each
loop over neurons. What is kept here needs no tracing.
"""

import functools
import hashlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

logger = logging.getLogger("spikedistill")

# A loop over timesteps uses each membrane several times. Written out wherever it is used, the code grows with every timestep by a
# factor; a name of its own costs nothing, because values between operations of one loop stay in registers. The second option tries
# other ways to cut a loop up, and finds none.
_ON_CPU = {"realize_reads_threshold": 2, "cpp.enable_tiling_heuristics": False}


class Version(Protocol):
    """A function compiled for one kind of arguments."""

    def takes(self, arguments: tuple[Any, ...]) -> bool:
        """Whether it is for these."""

    def __call__(self, *arguments: Any) -> Any: ...


def kind_of(value: Any) -> Any:
    """What code is compiled for, of an argument: all of it but what is in tensors, and sizes other than T, 0 and 1."""
    if isinstance(value, Tensor):
        sizes = [n if n < 2 or (place == 0 and value.ndim > 2) else None for place, n in enumerate(value.shape)]
        return value.dtype, value.device, tuple(sizes), value.is_contiguous()
    if isinstance(value, tuple | list):
        return type(value), tuple(map(kind_of, value))
    if isinstance(value, dict):
        return dict, tuple((key, kind_of(inner)) for key, inner in value.items())
    return value


def load_or_compile(function: Callable[..., Any], arguments: tuple[Any, ...], kind: Any) -> Version:
    """The function compiled for these arguments and others of their kind, from the disk where it is there."""
    on_cpu = all(part.type == "cpu" for part in _leaves(kind) if isinstance(part, torch.device))
    file = _file_of(function, kind) if on_cpu else None
    if file is not None and (kept := _load(file, function)) is not None and kept.takes(arguments):
        return kept
    with _compiling():
        fused = torch.compile(function, dynamic=True, fullgraph=True, options=dict(_ON_CPU) if on_cpu else None)
        # ahead of time, nothing is noticed of globals that change: for functions of this package alone, which read none
        if file is None or not hasattr(fused, "aot_compile"):
            return _Traced(fused)
        try:
            code = fused.aot_compile((pytree.tree_map_only(Tensor, _stand_in, arguments), {}))
        # of a feature that PyTorch calls experimental; what is wrong with the function itself shows when it is traced
        except Exception as error:
            logger.debug("%s is not compiled ahead of time: %s", function.__name__, error)
            return _Traced(fused)
    _save(code, file)
    return _Loadable(code)


def _stand_in(value: Tensor) -> Tensor:
    """A tensor like this that is no part of another: code would be compiled for its place in there too."""
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)


class _Traced:
    """PyTorch's own compiled function, which sorts its arguments by itself."""

    def __init__(self, fused: Callable[..., Any]) -> None:
        self.fused = fused

    def takes(self, arguments: tuple[Any, ...]) -> bool:
        return True

    def __call__(self, *arguments: Any) -> Any:
        with _compiling():
            return self.fused(*arguments)


class _Loadable:
    """A function compiled ahead of its call."""

    def __init__(self, code: Any) -> None:
        code.disable_guard_check()  # `takes` has checked
        self.code = code

    def takes(self, arguments: tuple[Any, ...]) -> bool:
        return bool(self.code.guard_check(*arguments))

    def __call__(self, *arguments: Any) -> Any:
        return self.code(*arguments)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without those of the compiler's own parts, which some take for errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _compiling() -> ExitStack:
    """PyTorch's settings while something is compiled."""
    from torch.fx.experimental import _config as shapes

    # every T is a loop of its own: more of them than PyTorch expects of one function; and options are written into it, because
    # numbers that may change would be traced twice
    settings = ExitStack()
    settings.enter_context(without_warnings())
    settings.enter_context(torch._dynamo.config.patch(recompile_limit=256, specialize_float=True))
    # sizes that happen to be equal would be compiled for
    settings.enter_context(shapes.patch(use_duck_shape=False))  # type: ignore[attr-defined]
    return settings


def _load(file: Path, function: Callable[..., Any]) -> _Loadable | None:
    """What is kept in the file; None where there is none, or it is of no use any more."""
    try:
        with file.open("rb") as content:
            return _Loadable(torch.compiler.load_compiled_function(content, f_globals=function.__globals__))
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with it, it is compiled anew
        logger.debug("%s is of no use: %s", file, error)
        return None


def _save(code: Any, file: Path) -> None:
    """Keep it, where that is possible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        code.save_compiled_function(str(file))
    except Exception as error:  # the code at hand works all the same
        logger.debug("%s is not kept: %s", file, error)


def _file_of(function: Callable[..., Any], kind: Any) -> Path | None:
    """Where the code is kept; None for a function, or an option, that is not this package's, and may change unseen."""
    try:
        from torch._inductor.runtime.cache_dir_utils import cache_dir
    except ImportError:
        return None
    names = []
    for part in (function, *_leaves(kind)):
        if isinstance(part, FunctionType):
            if part.__module__.rpartition(".")[0] != __name__.rpartition(".")[0] or part.__closure__:
                return None
            names.append(f"{part.__module__}.{part.__qualname__}")
        elif part is None or isinstance(part, bool | int | float | str | torch.dtype | torch.device | type):
            names.append(repr(part))
        else:
            return None
    machine = (torch.__version__, sys.version, torch.backends.cpu.get_cpu_capability())
    digest = hashlib.sha256(repr((names, machine, _source())).encode()).hexdigest()
    return Path(cache_dir()) / "spikedistill" / f"{function.__name__.strip('_')}-{digest[:32]}"


def _leaves(kind: Any) -> list[Any]:
    """The parts of a kind, in order."""
    return [leaf for part in kind for leaf in _leaves(part)] + [len(kind)] if isinstance(kind, tuple) else [kind]


@functools.cache
def _source() -> str:
    """What tells one state of this package's loops from another."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
