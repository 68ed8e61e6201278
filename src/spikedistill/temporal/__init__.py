"""How time flows through a network, and gradients back through time."""

from .model import GRADIENTS, Gradient, Temporal, mean_rate, temporal
from .signal import Signal, UnsupportedOperationError

__all__ = ["GRADIENTS", "Gradient", "Signal", "Temporal", "UnsupportedOperationError", "mean_rate", "temporal"]
