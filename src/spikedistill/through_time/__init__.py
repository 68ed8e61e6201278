"""How time flows through a network, and gradients back through time."""

from .captured import Captured
from .compiled_step import CompiledStep
from .finite import NotFiniteInput
from .model import Temporal, mean_rate, temporal
from .rules import OPTIONS, RULES, Bptt, Dsr, Gradient, Rate, Rule, Sltt, rule_of
from .signal import Signal, UnsupportedOperationError
from .sync_batch_norm import SyncBatchNorm, synchronise_batch_norm

__all__ = [
    "OPTIONS",
    "RULES",
    "Bptt",
    "Captured",
    "CompiledStep",
    "Dsr",
    "Gradient",
    "NotFiniteInput",
    "Rate",
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
