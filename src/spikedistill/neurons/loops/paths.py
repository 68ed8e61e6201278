"""Which loop computes which currents: one decision, used by the dispatch and returned by `path_of`.

Eager PyTorch writes every intermediate of every timestep to memory, which takes several times as long as the arithmetic. A loop of
the same equations reads the currents once and writes the spikes once. The eager path is the reference, and computes the cases that
no loop covers.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ...errors import UserError
from ..neuron import Neuron
from ..surrogate import Surrogate, form_of
from .compiler import Same, can_take, compiled, compiler_works

# With fewer currents the eager path on a CPU is as fast as the loops in C++, and with 16 times as many as code of torch.compile.
MIN_ELEMENTS = 2**15
_FOR_TORCH_COMPILE = 16

_compiling_pays_off = ContextVar("_compiling_pays_off", default=True)

logger = logging.getLogger("spikedistill")


@dataclass(frozen=True)
class Path:
    """The code that computes the spikes of some currents, and the reason.

    Attributes:
        name: "C++" on a CPU, "Triton" on a GPU, "torch.compile" for cases that those do not cover, or "eager".
        reason: in words.
        kernels: the module with the loops in C++ or Triton; None for the others.
    """

    name: Literal["C++", "Triton", "torch.compile", "eager"]
    reason: str
    kernels: ModuleType | None = field(default=None, repr=False, compare=False)

    @property
    def is_eager(self) -> bool:
        return self.name == "eager"

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


# a constant, because torch.compile traces its use
_PART_OF_A_WHOLE = Path("eager", "part of a network that is compiled as a whole")


def path_of(
    current: Tensor,
    neuron: Neuron | None = None,
    timesteps: int | None = None,
    *,
    lengths: Sequence[int] | None = None,
    learned: Sequence[str] = (),
    in_chunks: bool = False,
) -> Path:
    """Return which code computes the spikes of these currents, and why. `lif` and the gradient rules use this function.

    On a CPU spikes of finite currents are the same on every path, bit for bit. The first call for a kind of loop may take some
    seconds, because it compiles one to see whether that works.

    Args:
        current: currents `[T, B, ...]`, or `[1, B, ...]` if they are the same at all timesteps.
        neuron: the options of the neurons; default `Neuron()`.
        timesteps: T, if the currents are `[1, B, ...]`.
        lengths: under rate-based gradients, the timesteps of each segment.
        learned: under rate-based gradients, learned options of the neuron, which need derivatives too.
        in_chunks: whether the currents are one chunk of a sequence that is computed in chunks.

    Raises:
        UserError: for a current without a time axis, of integers, or of other timesteps than T.
    """
    if current.ndim == 0 or current.shape[0] == 0 or not current.is_floating_point():
        raise UserError(
            f"lif takes floating-point currents [T, B, ...] with T >= 1; got {current.dtype} {list(current.shape)}"
        )
    T = len(current) if timesteps is None else timesteps
    if T < 1 or len(current) not in (1, T):
        raise UserError(f"currents of {len(current)} timesteps, expected {T}, or one that is the same at all")
    beyond = "sequences in chunks" if in_chunks else None
    if learned:
        beyond = f"responses to {' and '.join(learned)}"
    return path_for(current, neuron or _DEFAULT, T // len(current), lengths, beyond)


_DEFAULT = Neuron()


def path_for(
    x: Tensor,
    neuron: Neuron | None = None,
    times: int = 1,
    lengths: Sequence[int] | None = None,
    beyond: str | None = None,
) -> Path:
    """`path_of` without its checks, for `times` as many values as in x.

    Args:
        neuron: None if no derivative is needed, and options are numbers.
        beyond: a need that no kernel covers, in words.
    """
    if torch.compiler.is_compiling():  # first, because sizes are symbols while tracing
        return _PART_OF_A_WHOLE
    if hindrance := _hindrance(neuron):
        return Path("eager", hindrance)
    path = _kernels(x, neuron, times)
    if path.kernels is not None:
        beyond = beyond or _beyond(path.kernels, lengths)
        if not beyond:
            return path
        path = Path("torch.compile", f"{path.name} does not know {beyond}")
    if path.is_eager:
        return path
    if x.numel() * times < _FOR_TORCH_COMPILE * MIN_ELEMENTS:
        return _small(_FOR_TORCH_COMPILE * MIN_ELEMENTS)
    if not compiler_works():
        return Path("eager", f"{path.reason}, and torch.compile does not work here")
    if neuron is not None and not _can_take(neuron.derivative, x):
        return Path("eager", "a surrogate that torch.compile cannot take")
    return path


def _can_take(surrogate: Surrogate, x: Tensor) -> bool:
    if form_of(surrogate) is not None:
        return True
    return can_take(Same(surrogate), torch.promote_types(x.dtype, torch.float32), x.device)


def on_path(path: Path, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors without graph, compiled by PyTorch if that is the path."""
    return compiled(function) if path.name == "torch.compile" else function


def kernels_for(x: Tensor, neuron: Neuron | None = None) -> ModuleType | None:
    """The kernels in C++ or Triton for x, a tensor of currents or packed spikes."""
    if torch.compiler.is_compiling() or _hindrance(neuron):
        return None
    return _kernels(x, neuron, 1).kernels


def may_compile() -> bool:
    """Whether compiled code may run: nothing watches PyTorch's operations, and there is more than a few passes of work."""
    return not torch.compiler.is_compiling() and _hindrance(None) is None


def _hindrance(neuron: Neuron | None) -> str | None:
    """Why only the eager path may run; None if others may."""
    # a mode such as a counter of operations would miss those in a loop, and torch.compile refuses modes
    if is_in_torch_dispatch_mode():
        return "something watches PyTorch's operations"
    if not _compiling_pays_off.get():
        return "work of a few passes, for which nothing is compiled"
    if neuron is not None and not neuron.has_numbers_only:
        tensors = [each.name for each in fields(neuron) if isinstance(getattr(neuron, each.name), Tensor)]
        return f"a tensor as {' and '.join(tensors)}, which may be learned"
    if neuron is not None and getattr(neuron.derivative, "by_timestep", False):
        return "a surrogate that follows the membranes from timestep to timestep"
    return None


def _kernels(x: Tensor, neuron: Neuron | None, times: int) -> Path:
    """The path of kernels; if there are none, that of torch.compile or eager, with the reason."""
    name: Literal["C++", "Triton"]
    if x.is_cuda or (x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        name, module = "Triton", _gpu_kernels()
        if module is None:
            return Path("eager", "Triton does not work here, which torch.compile needs too")
    elif x.is_meta:
        return Path("eager", "currents without values")
    elif x.device.type != "cpu":
        return Path("torch.compile", f"there are no kernels for {x.device.type}")
    elif x.numel() * times < MIN_ELEMENTS:
        return _small(MIN_ELEMENTS)
    else:
        name, module = "C++", None
    if neuron is not None and form_of(neuron.derivative) is None:
        return Path("torch.compile", "a surrogate that is none of the library's own")
    module = module or _cpu_kernels()  # which may have to be compiled first
    if module is None:
        return Path("torch.compile", "C++ does not work here")
    if x.dtype not in module.DTYPES and x.dtype != torch.uint8:
        return Path("torch.compile", f"{name} does not know {x.dtype}")
    return _by(name, module, MIN_ELEMENTS)


def _beyond(kernels: ModuleType, lengths: Sequence[int] | None) -> str | None:
    """What the kernel of rates does not cover in these segments; None if it covers them."""
    if lengths is None:
        return None
    if len(set(lengths)) > 1:
        return "segments of different lengths"
    if sum(lengths) > kernels.LONGEST:
        return f"rates over more than {kernels.LONGEST} timesteps"
    return None


@functools.cache
def _by(name: Literal["C++", "Triton"], kernels: ModuleType, smallest: int) -> Path:
    return Path(name, "currents on a GPU" if name == "Triton" else f"{smallest} currents or more on a CPU", kernels)


@functools.cache
def _small(smallest: int) -> Path:
    return Path("eager", f"fewer than {smallest} currents")


@functools.cache
def _gpu_kernels() -> ModuleType | None:
    """The kernels in Triton; if they do not work, None, and one log line says so."""
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
    """The loops in C++, compiled if they are not in the cache; None if that does not work."""
    from . import on_cpu

    try:
        on_cpu.check()
    except OSError as error:
        logger.debug("the loops in C++ are not there: %s", error)
        return None
    return on_cpu


@contextmanager
def uncompiled() -> Iterator[None]:
    """Use the eager path inside, for work of a few passes that takes less time than compiling."""
    token = _compiling_pays_off.set(False)
    try:
        yield
    finally:
        _compiling_pays_off.reset(token)
