"""The plots of pages, functions that return plotly figures as plain data, and the figures for print."""

from .comparison import METHODS, differences, methods, methods_over_epochs, regrets, shares
from .drawing import Figure
from .printed import FORMATS, print_figure, short_name, short_names
from .recording import membranes, raster
from .run import (
    UNKNOWN_NOISE,
    accuracy,
    accuracy_over_epochs,
    confusion,
    cosines,
    firing_rates,
    is_logarithmic,
    noise,
    over_epochs,
    reliability,
    tradeoff,
    under_attack,
)

__all__ = [
    "FORMATS",
    "METHODS",
    "UNKNOWN_NOISE",
    "Figure",
    "accuracy",
    "accuracy_over_epochs",
    "confusion",
    "cosines",
    "differences",
    "firing_rates",
    "is_logarithmic",
    "membranes",
    "methods",
    "methods_over_epochs",
    "noise",
    "over_epochs",
    "print_figure",
    "raster",
    "regrets",
    "reliability",
    "shares",
    "short_name",
    "short_names",
    "tradeoff",
    "under_attack",
]
