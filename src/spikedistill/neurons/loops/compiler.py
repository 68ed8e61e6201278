"""Loops in PyTorch, compiled by `torch.compile`: for what the loops in C++ and Triton do not know."""

import dataclasses
import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .code_cache import private_folder

# A loop over timesteps uses each membrane several times. Written out wherever it is used, the code grows with every timestep by a
# factor; a name of its own costs nothing, because values between operations of one loop stay in registers. The second option tries
# other ways to cut a loop up, and finds none.
_ON_CPU: dict[str, Any] = {"realize_reads_threshold": 2, "cpp.enable_tiling_heuristics": False}

logger = logging.getLogger("spikedistill")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Without those of the compiler's own parts, which some take for errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def compiler_works() -> bool:
    """Whether `torch.compile` works on this machine, and its cache is this user's; else one log line says why not."""
    if not _torch_cache_is_private():
        return False
    try:
        with _without_warnings():
            torch.compile(_probe)(torch.zeros(2))
    except Exception as error:
        logger.warning("torch.compile does not work here, so LIF layers run without it: %s", str(error).splitlines()[0])
        return False
    return True


@functools.cache
def _torch_cache_is_private() -> bool:
    """Whether nobody else can write where PyTorch keeps compiled code, which it executes; else one log line says why not."""
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError:  # another version of PyTorch keeps it elsewhere
        return True
    try:
        private_folder(Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default_cache_dir()), own_group=True)
    except OSError as error:
        logger.warning(
            "torch.compile would execute what others put into its cache, so LIF layers run without it: %s; "
            "TORCHINDUCTOR_CACHE_DIR may name another folder",
            error,
        )
        return False
    return True


def _probe(x: Tensor) -> Tensor:
    return -x


class Same:
    """A function, equal to itself only: what a user wrote may have no hash, or be equal to another."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.function is other.function

    def __hash__(self) -> int:
        return id(self.function)


@functools.lru_cache(256)
def can_take(surrogate: Same, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `torch.compile` can take a surrogate that a user wrote; else one log line says why not."""

    def slope(distance: Tensor) -> Any:
        return surrogate.function(distance)

    try:
        with _settings():
            torch.compile(slope, backend="eager", dynamic=True, fullgraph=True)(
                torch.zeros(2, 3, dtype=dtype, device=device)
            )
    except Exception as error:
        logger.warning(
            "torch.compile cannot take the surrogate %r, so its LIF layers run without it: %s",
            surrogate.function,
            (str(error).splitlines() or [type(error).__name__])[0],
        )
        return False
    return True


@functools.cache
def compiled(function: Callable[..., Any]) -> "CompiledLoop":
    """The function, which takes no part in a graph, compiled where it is called; for where `compiler_works`."""
    return CompiledLoop(function)


class CompiledLoop:
    """A function of tensors, compiled once for each T and set of options and for every size of the rest."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.versions: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        plain = pytree.tree_map_only(Tensor, _by_itself, arguments)
        kind = kind_of((*plain, torch.get_num_threads()))  # which is written into the code
        with torch.no_grad(), _settings():
            version = self.versions.get(kind)
            if version is None:
                options = dict(_ON_CPU) if _all_on_cpu(plain) else None
                version = torch.compile(self.function, dynamic=True, fullgraph=True, options=options)
            result = version(*plain)
        self.versions[kind] = version
        return result


def _by_itself(value: Tensor) -> Tensor:
    """The same memory without a graph, and without a place in a larger tensor: for both, code would be compiled anew."""
    value = value.detach()
    return torch.from_dlpack(value) if value.storage_offset() else value


def kind_of(value: Any) -> Any:
    """What code is compiled for, of an argument: all of it but what is in tensors, and sizes other than T, 0 and 1."""
    if isinstance(value, Tensor):
        sizes = [n if n < 2 or (place == 0 and value.ndim > 2) else None for place, n in enumerate(value.shape)]
        return value.dtype, value.device, tuple(sizes), value.is_contiguous()
    if isinstance(value, tuple | list):
        return type(value), tuple(map(kind_of, value))
    if isinstance(value, dict):
        return dict, tuple((key, kind_of(inner)) for key, inner in value.items())
    if callable(value):
        return Same(value)
    if dataclasses.is_dataclass(value):
        return type(value), tuple(kind_of(getattr(value, each.name)) for each in dataclasses.fields(value))
    return value


def _all_on_cpu(arguments: tuple[Any, ...]) -> bool:
    return all(leaf.is_cpu for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor))


def _settings() -> ExitStack:
    """PyTorch's settings while something may be compiled."""
    from torch.fx.experimental import _config as shapes

    # every T is a loop of its own: more of them than PyTorch expects of one function; and options are written into it, because
    # numbers that may change would be traced twice
    settings = ExitStack()
    settings.enter_context(_without_warnings())
    settings.enter_context(torch._dynamo.config.patch(recompile_limit=256, specialize_float=True))
    # sizes that happen to be equal would be compiled for
    settings.enter_context(shapes.patch(use_duck_shape=False))  # type: ignore[attr-defined]
    return settings
