"""How time flows through a network, and gradients back through time."""

from . import rules
from .call import UnsupportedOperationError
from .captured import Captured
from .compiled_step import CompiledStep
from .finite import NotFiniteInput
from .model import Temporal, firing_rate, mean_rate, temporal
from .recurrence import Delay, Recurrent
from .rules import *  # noqa: F403 whoever adds a rule names it there only
from .rules import OPTIONS, RULES, Gradient, Rule, rule_of
from .signal import Signal
from .steps import Steps, logits_over_time
from .sync_batch_norm import SyncBatchNorm, synchronise_batch_norm

__all__ = [
    "OPTIONS",
    "RULES",
    "Captured",
    "CompiledStep",
    "Delay",
    "Gradient",
    "NotFiniteInput",
    "Recurrent",
    "Rule",
    "Signal",
    "Steps",
    "SyncBatchNorm",
    "Temporal",
    "UnsupportedOperationError",
    "firing_rate",
    "logits_over_time",
    "mean_rate",
    "rule_of",
    "synchronise_batch_norm",
    "temporal",
]
__all__ += rules.__all__
