"""Options of registered functions: their defaults, and whether given values fit."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .errors import UserError

OptionValue = bool | int | float | str


def defaults_of(factory: Callable[..., Any], what: str, *, without: tuple[str, ...] = ()) -> dict[str, OptionValue]:
    """The options of a function or class, with their defaults.

    Args:
        factory: each of its parameters is an option, except those in `without`.
        what: the name of the object in messages, such as "neuron 'izhi'".
        without: parameters that are no options.

    Raises:
        UserError: for a parameter whose default is no number, text or switch.
    """
    found: dict[str, OptionValue] = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if name in without:
            continue
        if not isinstance(parameter.default, OptionValue) or parameter.kind is parameter.POSITIONAL_ONLY:
            raise UserError(
                f"{what} has a parameter {str(parameter)!r} without a default that is a number, a text or a switch: give it one, "
                "such as threshold: float = 1.0, so that it can be set on the command line"
            )
        found[name] = parameter.default
    return found


def check_options(what: str, defaults: Mapping[str, OptionValue], given: Mapping[str, Any]) -> None:
    """Refuse options of another name or type than the defaults have.

    Raises:
        UserError: if one does not fit; the message names the option and what is expected.
    """
    for option, value in given.items():
        if option not in defaults:
            known = ", ".join(f"{key}={default!r}" for key, default in defaults.items())
            raise UserError(f"{what} has no option {option!r}: its options are {known or 'none'}")
        kind = type(defaults[option])
        fits = isinstance(value, kind) or (kind is float and type(value) is int)
        if not fits or (isinstance(value, bool) and kind is not bool):
            expected = "an int" if kind is int else f"a {kind.__name__}"
            raise UserError(f"option {option!r} of {what} must be {expected}; got {value!r}")
