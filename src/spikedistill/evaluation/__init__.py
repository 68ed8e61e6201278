"""One trained network seen from every number of timesteps."""

from .calibration import fit_temperature
from .evaluate import collect_logits, evaluate
from .gradients import GradientRule, compare_gradients, gradient_microscope, gradient_rules
from .recorder import Recording, record
from .timesteps import calibrated_metrics, timestep_metrics, timestep_reliability

__all__ = [
    "GradientRule",
    "Recording",
    "calibrated_metrics",
    "collect_logits",
    "compare_gradients",
    "evaluate",
    "fit_temperature",
    "gradient_microscope",
    "gradient_rules",
    "record",
    "timestep_metrics",
    "timestep_reliability",
]
