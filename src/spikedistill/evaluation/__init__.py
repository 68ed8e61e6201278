"""One trained network seen from every number of timesteps."""

from .evaluate import collect_logits, evaluate
from .timesteps import timestep_metrics

__all__ = ["collect_logits", "evaluate", "timestep_metrics"]
