"""Compiles C++ sources for the instructions that PyTorch uses here, and calls their functions with tensors."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .code_cache import load_or_build

# Headers that the sources include.
_HEADERS = Path(__file__).parent

# The compiler's names of the instructions that PyTorch uses here. Another machine with this cache may lack others.
_AVX2 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mpopcnt"]
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
_INSTRUCTIONS = {"AVX2": _AVX2, "AVX512": [*_AVX2, *_AVX512]}
# Products and sums are rounded one by one, as in PyTorch. The other flags change no result.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-Wno-psabi"]

# The dtypes of values, and their names in C++.
DTYPES = {torch.float32: "float", torch.bfloat16: "BFloat16"}


def library(source: Path, values: Mapping[str, Any]) -> ctypes.CDLL:
    """The compiled functions of a source, from the cache or compiled.

    Args:
        source: a C++ file.
        values: macros to define.

    Raises:
        OSError: if it cannot be compiled or loaded.
    """
    instructions = _INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), [])
    flags = [*FLAGS, f"-I{_HEADERS}", *instructions, *(f"-D{name}={value}" for name, value in values.items())]
    texts = source.read_text(), *(header.read_text() for header in sorted(_HEADERS.glob("*.hpp")))
    made_of = texts, _compiler(), flags, platform.machine(), torch.__version__
    name = f"{source.stem}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]}"
    return load_or_build(name, functools.partial(_compile, source, [*_compiler(), *flags]))


def call(function: Any, *arguments: Any) -> Any:
    """Call a C function with tensors, numbers, None for a null pointer, and values of `ctypes`."""
    return function(*map(_as_c, arguments))


def check_compiler() -> None:
    """Check that there is a compiler.

    Raises:
        OSError: if there is none, or C++ is not used on this system.
    """
    if os.name != "posix":
        raise OSError("the loops in C++ are for POSIX systems")
    if shutil.which(_compiler()[0]) is None:  # also if some loops are in the cache, because others will be needed
        raise FileNotFoundError(f"there is no compiler {_compiler()[0]!r}")


def _as_c(argument: Tensor | float | bool | None) -> Any:
    """An argument for C: a pointer, a double or a 64-bit integer."""
    if isinstance(argument, Tensor):
        assert argument.is_cpu
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    return ctypes.c_int64(argument) if isinstance(argument, int) else argument


def _compile(source: Path, command: list[str], file: Path) -> None:
    """Compile a source into a library.

    Raises:
        OSError: if the compiler fails.
    """
    parts = file.with_suffix(".o")
    _run([*command, "-fopenmp", "-c", str(source), "-o", str(parts)], source, file.parent)
    try:  # linked without OpenMP, so that PyTorch's OpenMP and its threads serve both
        _run([*command, "-shared", str(parts), "-o", str(file)], source, file.parent)
        ctypes.CDLL(str(file))
    except OSError:
        _run([*command, "-shared", str(parts), "-fopenmp", "-o", str(file)], source, file.parent)


def _run(command: list[str], source: Path, folder: Path) -> None:
    """Run the compiler, with its own temporary files in that folder."""
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, umask=0o077)
    if done.returncode:
        raise OSError(f"{command[0]} cannot compile {source.name}: {' '.join(done.stderr.split())[:300]}")


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "")) or ["c++"]
