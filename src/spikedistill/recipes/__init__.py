"""Named experiments: functions that return a configuration."""

from .catalogue import list_methods, list_recipes, recipe, with_objective
from .protocols import PROTOCOLS, departures, protocol_line, with_protocol

__all__ = [
    "PROTOCOLS",
    "departures",
    "list_methods",
    "list_recipes",
    "protocol_line",
    "recipe",
    "with_objective",
    "with_protocol",
]
