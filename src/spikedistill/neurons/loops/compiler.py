"""Loops in PyTorch, compiled by `torch.compile`, for the cases that the loops in C++ and Triton do not cover."""

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

from ...native import private_folder

# A loop over timesteps uses each membrane several times. Inlined at every use, the code would grow by a factor with every timestep.
# A variable costs nothing, because values between operations of one loop stay in registers. The second option switches off a search
# for other ways to tile a loop, which finds none here.
_ON_CPU: dict[str, Any] = {"realize_reads_threshold": 2, "cpp.enable_tiling_heuristics": False}

logger = logging.getLogger("spikedistill")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence warnings from inside the compiler: they would stop users who turn warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def compiler_works() -> bool:
    """Whether `torch.compile` works on this machine, with a cache that is private to this user; if not, one log line says why."""
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
    """Whether no other user can write in the folder of PyTorch's compiled code; if not, one log line says why."""
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError:  # moved in another version of PyTorch
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
    """A function as a key of a dictionary. A user's callable may have no hash, or compare equal to another."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.function is other.function

    def __hash__(self) -> int:
        return id(self.function)


@functools.lru_cache(256)
def can_take(surrogate: Same, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `torch.compile` can compile a user's surrogate; if not, one log line says why."""

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
    """The function, compiled at its first call and run without a graph. Call this only if `compiler_works`."""
    return CompiledLoop(function)


class CompiledLoop:
    """A function of tensors, compiled once for each T and set of options, with all other sizes dynamic."""

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
    """The same memory without graph and storage offset, because PyTorch would compile again for each of them."""
    value = value.detach()
    return torch.from_dlpack(value) if value.storage_offset() else value


def kind_of(value: Any) -> Any:
    """The part of an argument for which code is compiled: everything except values of tensors and sizes other than T, 0 and 1."""
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
    """PyTorch's settings during a call that may compile."""
    from torch.fx.experimental import _config as shapes

    # every T needs its own loop, and PyTorch's default limit is too low for that; options are constants, because PyTorch would
    # trace
    # variable numbers twice
    settings = ExitStack()
    settings.enter_context(_without_warnings())
    settings.enter_context(torch._dynamo.config.patch(recompile_limit=256, specialize_float=True))
    # without this, PyTorch would assume that sizes are always equal if they are equal in the first call
    settings.enter_context(shapes.patch(use_duck_shape=False))  # type: ignore[attr-defined]
    return settings
