"""The dynamics of a sequence on a CPU, by the loops of `cpu_kernels.cpp`; its functions are those of `on_gpu.py`.

The loops are compiled once on a machine, in some seconds, and kept. Sequences are given as they lie in memory, `[T, rows, values]`
(`memory_format.py`), in float32 or bfloat16.
"""

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .surrogate import Surrogate, form_of

_SOURCE = Path(__file__).with_name("cpu_kernels.cpp")
_NUMBERS = {"logistic": 0, "rectangle": 1, "triangle": 2, "arctan": 3}

# What PyTorch's own instructions are called, for the compiler. Others may be there, and not on the next machine with this cache.
_INSTRUCTIONS = {"AVX2": ["-mavx2", "-mfma"], "AVX512": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}
# Products and sums are rounded one by one; what else a compiler may assume changes no result.
_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]


def fire(
    into: Tensor | None,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    decay: float,
    threshold: float,
    v_reset: float | None,
    *,
    timesteps: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`on_gpu.fire`."""
    T = timesteps or len(x)
    spikes = x.new_empty(T, *x.shape[1:]) if into is None else into
    bits = torch.empty(1, *x.shape[1:], dtype=torch.uint8)
    after = torch.empty_like(membrane) if isinstance(membrane, Tensor) else None
    neuron = _neuron(decay, threshold, v_reset)
    _call("fire", *_sequence(T, x, scale, shift, residual), *neuron, *_start(membrane), spikes, bits, after)
    return spikes, bits, after


def gradient(
    into: Tensor | None,
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    membrane: float | Tensor,
    ahead: Tensor | None,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
    detach_membrane: bool,
) -> tuple[Tensor, Tensor | None]:
    """`on_gpu.gradient`."""
    to_current = torch.empty_like(x) if into is None else into
    behind = None if ahead is None else torch.empty_like(ahead)
    neuron = *_neuron(decay, threshold, v_reset), *_start(membrane), *_form(surrogate), detach_reset, detach_membrane
    _call(
        "gradient", *_sequence(len(grad), x, scale, shift, residual), *neuron, grad, ahead, to_current, behind,
        0, *[None] * 5,
    )  # fmt: skip
    return to_current, behind


def gradient_through_norm(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    inv_std: Tensor,
    v_init: float,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
    detach_membrane: bool,
    *,
    to_residual: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """`on_gpu.gradient_through_norm`; the gradient to the currents is written, and read again in the second pass."""
    to_x, to_current = torch.empty_like(x), torch.empty_like(x) if to_residual else None
    to_weight, to_bias = torch.empty_like(mean), torch.empty_like(mean)
    neuron = *_neuron(decay, threshold, v_reset), *_start(v_init), *_form(surrogate), detach_reset, detach_membrane
    _call(
        "gradient", *_sequence(len(x), x, scale, shift, residual), *neuron, grad, None, to_current, None,
        len(mean), mean, inv_std, to_x, to_weight, to_bias,
    )  # fmt: skip
    return to_x, to_current, to_weight, to_bias


def statistics(
    x: Tensor,
    channels: int,
    by_row: bool,
    eps: float,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """`on_gpu.statistics`."""
    mean, inv_std = torch.empty(2, channels).unbind()
    shape = *_kind(x), *x.shape, by_row
    _call("statistics", *shape, x, channels, float(eps), running_mean, running_var, float(momentum), mean, inv_std)
    return mean, inv_std


def respond(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    segments: int,
    v_init: float,
    decay: float,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
    *,
    timesteps: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`on_gpu.respond`."""
    T = timesteps or len(x)
    spikes, rates = (x.new_empty(count, *x.shape[1:]) for count in (T, segments))
    answer = torch.empty(segments, *x.shape[1:], dtype=scale.dtype)
    neuron = *_neuron(decay, threshold, v_reset), float(v_init), *_form(surrogate), detach_reset
    _call("respond", *_sequence(T, x, scale, shift, residual), *neuron, segments, spikes, rates, answer)
    return spikes, rates, answer


def unpack(bits: Tensor, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """`on_gpu.unpack`."""
    spikes = torch.empty(stop - start, *bits.shape[1:], dtype=dtype)
    _call("unpack", *_kind(spikes), start, stop, bits[0].numel(), bits, spikes)
    return spikes


def _sequence(T: int, x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None) -> tuple[Any, ...]:
    """The first arguments of a loop over timesteps."""
    in_bits = residual is not None and residual.dtype == torch.uint8
    return *_kind(x), T, len(x) < T, *x.shape[1:], scale.ndim == 2, x, scale, shift, residual, in_bits


def _kind(x: Tensor) -> tuple[bool, int]:
    return x.dtype == torch.bfloat16, torch.get_num_threads()


def _start(membrane: float | Tensor) -> tuple[Tensor | None, float]:
    return (membrane, 0.0) if isinstance(membrane, Tensor) else (None, float(membrane))


def _neuron(decay: float, threshold: float, v_reset: float | None) -> tuple[float, float, float, bool]:
    return float(decay), float(threshold), float(v_reset or 0), v_reset is not None


def _form(surrogate: Surrogate) -> tuple[int, float, float, float]:
    form = form_of(surrogate)
    assert form is not None
    return _NUMBERS[form.name], form.width, form.height, form.end


def _call(name: str, *arguments: Any) -> None:
    getattr(library(), f"spikedistill_{name}")(*map(_as_c, arguments))


def _as_c(argument: Tensor | float | bool | None) -> Any:
    """As the loops take it: a pointer, a double or a 64-bit integer."""
    if argument is None:
        return ctypes.c_void_p()
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int64(argument)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled loops, from the disk where they are there.

    Raises:
        OSError: where there is no compiler, or what it made cannot be loaded.
        subprocess.CalledProcessError: for what the compiler does not take.
    """
    compiler = os.environ.get("CXX", "c++")
    flags = [*_FLAGS, *_INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), [])]
    made_of = _SOURCE.read_text(), compiler, flags, platform.machine(), torch.__version__
    file = _folder() / f"loops-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]}.so"
    if not file.exists():
        _compile([compiler, *flags], file)
    return ctypes.CDLL(str(file))


def _compile(command: list[str], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        # OpenMP is that of PyTorch, whose threads then serve both: none of its own is linked
        parts = Path(folder) / "loops.o"
        subprocess.run(
            [*(flag for flag in command if flag != "-shared"), "-fopenmp", "-c", str(_SOURCE), "-o", str(parts)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        subprocess.run([*command, str(parts), "-o", str(made)], check=True, capture_output=True, text=True)
        made.replace(file)


def _folder() -> Path:
    """Where compiled loops are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikedistill"
