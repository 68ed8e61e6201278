"""How time flows through a network, and gradients back through time."""

from .call import UnsupportedOperationError
from .captured import Captured
from .compiled_step import CompiledStep
from .finite import NotFiniteInput
from .model import Temporal, mean_rate, temporal
from .recurrence import Delay, Recurrent
from .rules import OPTIONS, RULES, Bptt, Dsr, Gradient, Rate, Rule, Sltt, rule_of
from .signal import Signal
from .sync_batch_norm import SyncBatchNorm, synchronise_batch_norm

__all__ = [
    "OPTIONS",
    "RULES",
    "Bptt",
    "Captured",
    "CompiledStep",
    "Delay",
    "Dsr",
    "Gradient",
    "NotFiniteInput",
    "Rate",
    "Recurrent",
    "Rule",
    "Signal",
    "Sltt",
    "SyncBatchNorm",
    "Temporal",
    "UnsupportedOperationError",
    "mean_rate",
    "rule_of",
    "synchronise_batch_norm",
    "temporal",
]
