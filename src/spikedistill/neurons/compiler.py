"""When the dynamics are compiled, and how.

Eager PyTorch writes every intermediate of every timestep to memory, which costs several times what the arithmetic does. The same
equations, compiled, read the currents and write the spikes once. The eager path stays the reference: small tensors, machines
without a C++ compiler and networks that are compiled as a whole use it.
"""

import functools
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from .compiled_code import Version, kind_of, load_or_compile, without_warnings
from .surrogate import Surrogate, form_of

# Below so many elements the eager path is fast enough that compiling is not earned back.
MIN_ELEMENTS = 2**19
_pays_off = ContextVar("_pays_off", default=True)
_gave_up = False

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
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        logger.debug("the loops in C++ are not there: %s", getattr(error, "stderr", None) or error)
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


@functools.cache
def compiler_works() -> bool:
    """Whether `torch.compile` works on this machine; where it does not, one log line says so."""
    try:
        with without_warnings():
            torch.compile(_probe)(torch.zeros(2))
    except Exception as error:
        logger.warning("torch.compile does not work here, so LIF layers run without it: %s", str(error).splitlines()[0])
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

    Compiled code is kept on disk, and the next process loads it in place of tracing the function again. Where there turns out to be
    no compiler, the function runs as it is.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.versions: dict[Any, list[Version]] = {}

    def __call__(self, *arguments: Any) -> Any:
        # without a past and a base, which would be compiled for anew
        plain = tuple(argument.detach() if isinstance(argument, Tensor) else argument for argument in arguments)
        kind = kind_of((*plain, torch.get_num_threads()))  # which is written into the code
        known = self.versions.setdefault(kind, [])
        with torch.no_grad():
            for version in known:
                if version.takes(plain):
                    return version(*plain)
            try:
                with without_warnings():
                    version = load_or_compile(self.function, plain, kind)
                    result = version(*plain)
            except Exception:
                if compiler_works():
                    raise
                _give_up()
                return self.function(*plain)
        known.append(version)
        return result
