"""One trained network seen from every number of timesteps."""

from .calibration import fit_temperature
from .evaluate import collect_logits, evaluate
from .recorder import Recording, record
from .timesteps import calibrated_metrics, timestep_metrics, timestep_reliability

__all__ = [
    "Recording",
    "calibrated_metrics",
    "collect_logits",
    "evaluate",
    "fit_temperature",
    "record",
    "timestep_metrics",
    "timestep_reliability",
]
