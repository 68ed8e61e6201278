"""How time flows through a network, and gradients back through time."""

from . import rules
from .call import UnsupportedOperationError
from .captured import Captured
from .compiled_step import CompiledStep
from .finite import NotFiniteInput
from .model import Temporal, mean_rate, temporal
from .recurrence import Delay, Recurrent
from .rules import *  # noqa: F403 whoever adds a rule names it there only
from .signal import Signal
from .sync_batch_norm import SyncBatchNorm, synchronise_batch_norm

__all__ = [
    "Captured",
    "CompiledStep",
    "Delay",
    "NotFiniteInput",
    "Recurrent",
    "Signal",
    "SyncBatchNorm",
    "Temporal",
    "UnsupportedOperationError",
    "mean_rate",
    "synchronise_batch_norm",
    "temporal",
]
__all__ += rules.__all__
