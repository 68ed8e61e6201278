"""Objectives by name: what the catalogue offers, with which options, and how to get one."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..errors import UserError
from .composition import Objective
from .inputs import INPUTS

Factory = Callable[..., Objective]

_FACTORIES: dict[str, Factory] = {}


def register_objective(factory: Factory) -> Factory:
    """Enter a function that returns an Objective into the catalogue, under its name with hyphens for underscores.

    Its parameters, each with a default that is a float, int, str or bool, are the objective's options. Raises UserError for
    a name that is taken.
    """
    name = factory.__name__.replace("_", "-")
    if name in _FACTORIES:
        raise UserError(f"objective {name!r} is registered already: choose another name")
    _FACTORIES[name] = factory
    return factory


def list_objectives() -> list[str]:
    """The names of all objectives, sorted."""
    return sorted(_FACTORIES)


def objective_options(name: str) -> dict[str, float | int | str | bool]:
    """The options of an objective and their defaults; UserError for an unknown name."""
    return {option: parameter.default for option, parameter in inspect.signature(_factory(name)).parameters.items()}


def describe_objective(name: str) -> str:
    """What an objective does, its equation and its paper; UserError for an unknown name."""
    return inspect.getdoc(_factory(name)) or ""


def create_objective(name: str, **options: Any) -> Objective:
    """The objective of that name with these options, the others at their defaults.

    Raises UserError for an unknown name (with those nearest to it), an unknown option (with those there are), and a
    value that the objective cannot work with: it is found here, not at the first batch.
    """
    defaults = objective_options(name)
    for option, value in options.items():
        if option not in defaults:
            known = ", ".join(f"{key}={default!r}" for key, default in defaults.items())
            raise UserError(f"objective {name!r} has no option {option!r}: its options are {known or 'none'}")
        kind = type(defaults[option])
        fits = isinstance(value, kind) or (kind is float and type(value) is int)
        if not fits or (isinstance(value, bool) and kind is not bool):
            expected = "an int" if kind is int else f"a {kind.__name__}"
            raise UserError(f"option {option!r} of objective {name!r} must be {expected}; got {value!r}")
    objective = _factory(name)(**options)
    _try(objective)
    return objective


def _factory(name: str) -> Factory:
    if name not in _FACTORIES:
        near = difflib.get_close_matches(name, _FACTORIES) or list_objectives()
        raise UserError(f"unknown objective {name!r}: did you mean {', '.join(near)}?")
    return _FACTORIES[name]


def _try(objective: Objective) -> None:
    """Call the objective once on a batch of one, so that the losses' own checks see their options."""
    logits, target = torch.zeros(2, 1, 2, device="cpu"), torch.zeros(1, dtype=torch.int64, device="cpu")
    with torch.random.fork_rng(devices=[]):  # what is drawn at random must not move the caller's generator
        objective(logits, target, **{name: declared.example() for name, declared in INPUTS.items()})
