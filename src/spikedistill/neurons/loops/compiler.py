"""When the dynamics are compiled, and how.

Eager PyTorch writes every intermediate of every timestep to memory, which costs several times what the arithmetic does. The same
equations, compiled, read the currents and write the spikes once. The eager path stays the reference: small tensors, machines
without a C++ compiler and networks that are compiled as a whole use it.
"""

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ..surrogate import Surrogate, form_of
from .code_cache import private_folder

# Below so many elements the eager path is fast enough that compiling is not earned back.
MIN_ELEMENTS = 2**19
_pays_off = ContextVar("_pays_off", default=True)
_gave_up = False

# A loop over timesteps uses each membrane several times. Written out wherever it is used, the code grows with every timestep by a
# factor; a name of its own costs nothing, because values between operations of one loop stay in registers. The second option tries
# other ways to cut a loop up, and finds none.
_ON_CPU: dict[str, Any] = {"realize_reads_threshold": 2, "cpp.enable_tiling_heuristics": False}

logger = logging.getLogger("spikedistill")


def applies(current: Tensor, times: int = 1) -> bool:
    """Whether `times` as much as the currents `[T, B, ...]` is worth the compiled path, and there is one."""
    if (
        torch.compiler.is_compiling() or current.numel() * times < MIN_ELEMENTS
    ):  # in this order: a traced size is no number
        return False
    if is_in_torch_dispatch_mode():  # a counter of operations, say, which would see one and which torch.compile refuses
        return False
    return _pays_off.get() and not _gave_up


def kernels_for(x: Tensor, surrogate: Surrogate | None = None, times: int = 1) -> ModuleType | None:
    """The kernels for `times` as much as x on its device, where they know its dtype and the surrogate.

    On a GPU those in Triton, which pay at any size; on a CPU the loops in C++, where there is enough to compute.
    """
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode() or not _pays_off.get():
        return None
    if surrogate is not None and form_of(surrogate) is None:
        return None
    if x.is_cuda or (x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        kernels = _gpu_kernels()
    elif x.device.type == "cpu" and x.numel() * times >= MIN_ELEMENTS:
        kernels = _cpu_kernels()
    else:
        return None
    return kernels if kernels and (x.dtype in kernels.DTYPES or x.dtype == torch.uint8) else None


@functools.cache
def _gpu_kernels() -> ModuleType | None:
    """The kernels in Triton; where that does not work, one log line says so."""
    try:
        from . import on_gpu

        device = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
        on_gpu.unpack(torch.ones(1, 1, dtype=torch.uint8, device=device), 0, 1, torch.float32)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        logger.warning("Triton does not work here, so LIF layers on the GPU run without its kernels: %s", reason)
        return None
    return on_gpu


@functools.cache
def _cpu_kernels() -> ModuleType | None:
    """The loops in C++, compiled where they are not there yet; None where that does not work."""
    from . import on_cpu

    try:
        on_cpu.check()
    except OSError as error:
        logger.debug("the loops in C++ are not there: %s", error)
        return None
    return on_cpu


@contextmanager
def uncompiled() -> Iterator[None]:
    """Keep to the eager path inside: for work of a few passes, where compiling would take longer than they do."""
    token = _pays_off.set(False)
    try:
        yield
    finally:
        _pays_off.reset(token)


def _give_up() -> None:
    """Take the eager path from now on."""
    global _gave_up
    _gave_up = True


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


@functools.cache
def compiled(function: Callable[..., Any]) -> "CompiledLoop":
    """The function, which takes no part in a graph, compiled where it is called."""
    return CompiledLoop(function)


class CompiledLoop:
    """A function of tensors, compiled once for each T and set of options and for every size of the rest.

    Where there turns out to be no compiler, the function runs as it is.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.versions: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        plain = pytree.tree_map_only(Tensor, _by_itself, arguments)
        kind = kind_of((*plain, torch.get_num_threads()))  # which is written into the code
        with torch.no_grad():
            if version := self.versions.get(kind):
                with _settings():
                    return version(*plain)
            if not _torch_cache_is_private():
                _give_up()
                return self.function(*plain)
            options = dict(_ON_CPU) if _all_on_cpu(plain) else None
            version = torch.compile(self.function, dynamic=True, fullgraph=True, options=options)
            try:
                with _settings():
                    result = version(*plain)
            except Exception:
                if compiler_works():
                    raise
                _give_up()
                return self.function(*plain)
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
