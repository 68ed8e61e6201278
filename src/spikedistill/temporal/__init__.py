"""How time flows through a network, and gradients back through time."""

from .captured import Captured
from .compiled_step import CompiledStep
from .finite import NotFiniteInput
from .model import GRADIENTS, Gradient, Temporal, mean_rate, temporal
from .signal import Signal, UnsupportedOperationError
from .sync_batch_norm import SyncBatchNorm, synchronise_batch_norm

__all__ = [
    "GRADIENTS",
    "Captured",
    "CompiledStep",
    "Gradient",
    "NotFiniteInput",
    "Signal",
    "SyncBatchNorm",
    "Temporal",
    "UnsupportedOperationError",
    "mean_rate",
    "synchronise_batch_norm",
    "temporal",
]
