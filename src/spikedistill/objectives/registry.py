"""Objectives by name: the catalogue, the options of each, and how to create one."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import torch

from ..errors import UserError
from ..options import OptionValue, check_options, defaults_of
from ..registry import Registry
from .composition import Objective
from .inputs import INPUTS

Factory = Callable[..., Objective]


class _Named(NamedTuple):
    """A function that makes an objective, its options, and which of them are weights; None finds these by trying."""

    factory: Factory
    options: dict[str, OptionValue]
    weights: tuple[str, ...] | None


OBJECTIVES: Registry[_Named] = Registry("objective", "spikedistill.objectives")
"""Objectives by name."""


@overload
def register_objective(factory: Factory) -> Factory: ...


@overload
def register_objective(
    factory: str | None = None, *, weights: Sequence[str] | None = None
) -> Callable[[Factory], Factory]: ...


def register_objective(
    factory: Factory | str | None = None, *, weights: Sequence[str] | None = None
) -> Factory | Callable[[Factory], Factory]:
    """Register a function that returns an Objective, for the catalogue.

    Use it as a decorator, `@register_objective("my-loss")`, or `@register_objective` for the name of the function with hyphens
    in place of underscores. The objective is then also a method for every data set, such as `digits-my-loss`. The function's
    parameters are
    the objective's options, on the command line too.

    Args:
        factory: the function, or the name. Each parameter of the function has a default that is a float, int, str or bool. The
            first sentence of its docstring describes the objective in lists.
        weights: the options that `compare --tune` multiplies; default: the options that change only weights of terms, and not all
            by the same factor.

    Raises:
        UserError: if the name is taken, a parameter has no such default, or a weight is no parameter.
    """

    def enter(function: Factory) -> Factory:
        name = factory if isinstance(factory, str) else function.__name__.replace("_", "-")
        options = defaults_of(function, f"objective {name!r}")
        if unknown := [weight for weight in weights or () if weight not in options]:
            raise UserError(
                f"objective {name!r} has no option {', '.join(unknown)}: expected weights among its parameters"
            )
        OBJECTIVES.register(name, _Named(function, options, None if weights is None else tuple(weights)))
        return function

    return enter if factory is None or isinstance(factory, str) else enter(factory)


def list_objectives() -> list[str]:
    """The names of all objectives, sorted."""
    return list(OBJECTIVES)


def objective_options(name: str) -> dict[str, OptionValue]:
    """The options of an objective and their defaults; UserError for an unknown name."""
    return dict(OBJECTIVES[name].options)


def objective_weights(name: str, **options: Any) -> dict[str, float]:
    """The weights of an objective that are not 0, by option: those that `compare --tune` multiplies.

    Args:
        name: the name of the objective.
        options: the options of the objective; the others have their defaults.

    Raises:
        UserError: as `create_objective`.
    """
    named = OBJECTIVES[name]
    values = named.options | options
    numbers = {option: value for option, value in values.items() if isinstance(value, float) and value}
    if named.weights is not None:
        return {option: value for option, value in numbers.items() if option in named.weights}
    whole = create_objective(name, **values)
    return {option: value for option, value in numbers.items() if _is_weight(named, values, option, whole)}


def _is_weight(named: _Named, values: dict[str, Any], option: str, whole: Objective) -> bool:
    """Whether halving an option changes only weights of terms, and not all by the same factor."""
    try:
        half = named.factory(**values | {option: values[option] / 2})
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
    return inspect.getdoc(OBJECTIVES[name].factory) or ""


def create_objective(name: str, **options: Any) -> Objective:
    """The objective of that name with these options, the others at their defaults.

    Raises UserError for an unknown name (with those nearest to it), an unknown option (with those there are), and a value that
    the objective does not accept, so that it is refused here, not at the first batch.
    """
    check_options(f"objective {name!r}", objective_options(name), options)
    objective = OBJECTIVES[name].factory(**options)
    _try(objective)
    return objective


def _try(objective: Objective) -> None:
    """Call the objective once on a batch of one, so that the losses check their options."""
    logits, target = torch.zeros(2, 1, 2, device="cpu"), torch.zeros(1, dtype=torch.int64, device="cpu")
    with torch.random.fork_rng(devices=[]):  # random numbers drawn here must not advance the caller's generator
        objective(logits, target, **{name: declared.example() for name, declared in INPUTS.items()})
