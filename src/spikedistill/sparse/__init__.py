"""Layers on spikes: convolutions and linear layers that add a row of weights for each spike instead of multiplying zeros.

On a CPU, in C++. `choice.py` decides which layers run so, and `crossovers.py` knows up to which density it is faster.
"""

from .choice import Choices, SparseMode, current_choices, is_large, may_run_sparse, runs_sparse, sparse_layers
from .kernels import Geometry, Norm, to_blocks
from .layer import KeptBlocks, SparseLayer
from .rows import SpikeRows, rows_of
from .waiting import LayerOnSpikes, NormalisedLayer, fire_in_rows, may_fire_in_rows

__all__ = [
    "Choices",
    "Geometry",
    "KeptBlocks",
    "LayerOnSpikes",
    "Norm",
    "NormalisedLayer",
    "SparseLayer",
    "SparseMode",
    "SpikeRows",
    "current_choices",
    "fire_in_rows",
    "is_large",
    "may_fire_in_rows",
    "may_run_sparse",
    "rows_of",
    "runs_sparse",
    "sparse_layers",
    "to_blocks",
]
