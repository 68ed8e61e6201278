"""Loops that take each neuron through all its timesteps: C++ on a CPU, Triton on a GPU, PyTorch elsewhere.

A private room: the other modules of `neurons` import from here. `path_of` says which loop computes which currents.
"""

from .compiler import compiled, compiler_works
from .fused import fused_lif
from .fused_norm import (
    NormaliseBatch,
    NormalisedCurrent,
    batch_moments,
    can_wait,
    fused_norm_lif,
    fused_norm_lif_step,
    may_wait,
    normalise,
)
from .memory_format import is_channels_last, is_dense, mean_in_time
from .packed import PackedSpikes, SpikesInBits
from .paths import Path, may_compile, on_path, path_of, uncompiled
from .rates import rates_by_kernel, rates_by_loop
from .read_later import ReadLater

__all__ = [
    "NormaliseBatch",
    "NormalisedCurrent",
    "PackedSpikes",
    "Path",
    "ReadLater",
    "SpikesInBits",
    "batch_moments",
    "can_wait",
    "compiled",
    "compiler_works",
    "fused_lif",
    "fused_norm_lif",
    "fused_norm_lif_step",
    "is_channels_last",
    "is_dense",
    "may_compile",
    "may_wait",
    "mean_in_time",
    "normalise",
    "on_path",
    "path_of",
    "rates_by_kernel",
    "rates_by_loop",
    "uncompiled",
]
