"""Named experiments: functions that return a configuration."""

from .catalogue import describe_method, list_methods, list_recipes, recipe, register_recipe, with_objective
from .protocols import PROTOCOLS, departures, protocol_line, with_protocol
from .small_data import sized_to_data

__all__ = [
    "PROTOCOLS",
    "departures",
    "describe_method",
    "list_methods",
    "list_recipes",
    "protocol_line",
    "recipe",
    "register_recipe",
    "sized_to_data",
    "with_objective",
    "with_protocol",
]
