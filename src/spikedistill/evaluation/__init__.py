"""Scores of a trained network at every number of timesteps: accuracy, calibration, energy and early exit."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .anytime import AnytimeClassifier, AnytimeOutput
from .calibration import fit_temperature
from .collecting import collect_logits
from .comparison.comparison import Comparison
from .comparison.published import published_numbers
from .conformal import Conformal, calibrate_conformal
from .costs import ENERGY_COSTS, EnergyCosts, EnergyEstimate, LayerEnergy, energy
from .counting import count_operations
from .evaluate import evaluate
from .exits import (
    POLICIES,
    ExitCurve,
    ExitPoint,
    TimestepThresholds,
    calibrate_each_timestep,
    calibrate_threshold,
    exit_curve,
    exit_times,
)
from .gradients import GradientRule, compare_gradients, gradient_microscope, gradient_rules
from .initial_membranes import start_membranes
from .operations import LayerOperations, NeuronOperations, OperationCounts, ProductOperations
from .recalibration import recalibrate, recalibrated
from .recorder import Recording, record
from .timesteps import calibrated_metrics, timestep_metrics, timestep_reliability

if TYPE_CHECKING:
    from .metric import AccuracyAtEveryK

__all__ = [
    "ENERGY_COSTS",
    "POLICIES",
    "AccuracyAtEveryK",
    "AnytimeClassifier",
    "AnytimeOutput",
    "Comparison",
    "Conformal",
    "EnergyCosts",
    "EnergyEstimate",
    "ExitCurve",
    "ExitPoint",
    "GradientRule",
    "LayerEnergy",
    "LayerOperations",
    "NeuronOperations",
    "OperationCounts",
    "ProductOperations",
    "Recording",
    "TimestepThresholds",
    "calibrate_conformal",
    "calibrate_each_timestep",
    "calibrate_threshold",
    "calibrated_metrics",
    "collect_logits",
    "compare_gradients",
    "count_operations",
    "energy",
    "evaluate",
    "exit_curve",
    "exit_times",
    "fit_temperature",
    "gradient_microscope",
    "gradient_rules",
    "published_numbers",
    "recalibrate",
    "recalibrated",
    "record",
    "start_membranes",
    "timestep_metrics",
    "timestep_reliability",
]


def __getattr__(name: str) -> Any:
    if name == "AccuracyAtEveryK":  # torchmetrics takes seconds to import
        return import_module(".metric", __name__).AccuracyAtEveryK
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
