"""Objectives by name: what the catalogue offers, with which options, and how to get one."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import torch

from ..errors import UserError
from ..registry import Registry
from .composition import Objective
from .inputs import INPUTS

Factory = Callable[..., Objective]


class _Named(NamedTuple):
    """A function that makes an objective, and which of its options are weights; None finds them by trying."""

    factory: Factory
    weights: tuple[str, ...] | None


OBJECTIVES: Registry[_Named] = Registry("objective", "spikedistill.objectives")


@overload
def register_objective(factory: Factory) -> Factory: ...


@overload
def register_objective(*, weights: Sequence[str] | None = None) -> Callable[[Factory], Factory]: ...


def register_objective(
    factory: Factory | None = None, *, weights: Sequence[str] | None = None
) -> Factory | Callable[[Factory], Factory]:
    """Enter a function that returns an Objective into the catalogue, under its name with hyphens for underscores.

    Use it as a decorator. The objective is at once a method for every data set, such as `digits-my-loss`. The function's parameters
    are the objective's options, on the command line too.

    Args:
        factory: the function. Each parameter has a default that is a float, int, str or bool. The first sentence of its docstring
            describes the objective in lists.
        weights: the options that `compare --tune` multiplies; default those that change weights of terms, but not all of them alike.

    Raises:
        UserError: if the name is taken, a parameter has no such default, or a weight is no parameter.
    """

    def enter(function: Factory) -> Factory:
        parameters = inspect.signature(function).parameters
        for name, parameter in parameters.items():
            if not isinstance(parameter.default, bool | int | float | str):
                raise UserError(
                    f"the parameter {name!r} of the objective {function.__name__!r} has no default that is a number, a text or a "
                    "switch: give it one, such as weight: float = 0.1"
                )
        if unknown := [name for name in weights or () if name not in parameters]:
            raise UserError(f"the objective {function.__name__!r} has no parameter {', '.join(unknown)}")
        named = _Named(function, None if weights is None else tuple(weights))
        OBJECTIVES.register(function.__name__.replace("_", "-"), named)
        return function

    return enter if factory is None else enter(factory)


def list_objectives() -> list[str]:
    """The names of all objectives, sorted."""
    return list(OBJECTIVES)


def objective_options(name: str) -> dict[str, float | int | str | bool]:
    """The options of an objective and their defaults; UserError for an unknown name."""
    return {option: parameter.default for option, parameter in inspect.signature(_factory(name)).parameters.items()}


def objective_weights(name: str, **options: Any) -> dict[str, float]:
    """The weights of an objective that are not 0, by option: those that `compare --tune` multiplies.

    Args:
        name: of the objective.
        options: of the objective; the others have their defaults.

    Raises:
        UserError: as `create_objective`.
    """
    values = objective_options(name) | options
    declared = OBJECTIVES[name].weights
    numbers = {option: value for option, value in values.items() if isinstance(value, float) and value}
    if declared is not None:
        return {option: value for option, value in numbers.items() if option in declared}
    whole = create_objective(name, **values)
    return {option: value for option, value in numbers.items() if _is_weight(name, values, option, whole)}


def _is_weight(name: str, values: dict[str, Any], option: str, whole: Objective) -> bool:
    """Whether half of an option changes weights of terms, not all of them alike, and nothing else."""
    try:
        half = _factory(name)(**values | {option: values[option] / 2})
    except UserError:
        return False
    if [(term.name, term.options) for term in half.terms] != [(term.name, term.options) for term in whole.terms]:
        return False
    pairs = [(mine, theirs) for mine, theirs in zip(_weights(whole), _weights(half), strict=True) if mine or theirs]
    return len({theirs / mine if mine else None for mine, theirs in pairs}) > 1


def _weights(objective: Objective) -> list[float]:
    """The weights of the terms at the beginning and at the end of training."""
    return [weight or 0.0 for term in objective.terms for weight in (term.weight, term.end_weight)]


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
    return OBJECTIVES[name].factory


def _try(objective: Objective) -> None:
    """Call the objective once on a batch of one, so that the losses' own checks see their options."""
    logits, target = torch.zeros(2, 1, 2, device="cpu"), torch.zeros(1, dtype=torch.int64, device="cpu")
    with torch.random.fork_rng(devices=[]):  # what is drawn at random must not move the caller's generator
        objective(logits, target, **{name: declared.example() for name, declared in INPUTS.items()})
