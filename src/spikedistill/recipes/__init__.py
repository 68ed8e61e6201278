"""Named experiments: functions that return a configuration."""

from .catalogue import list_methods, list_recipes, recipe, with_objective

__all__ = ["list_methods", "list_recipes", "recipe", "with_objective"]
