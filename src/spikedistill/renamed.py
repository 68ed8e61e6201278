"""Warnings about old names. The names of version 0.1.0 work in 0.2.0, and docs/changes.md lists them."""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from .learned import in_our_words

_Function = TypeVar("_Function", bound=Callable[..., Any])


def say_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that a name is an old one.

    Args:
        old: the name that was used.
        new: the name to use.
        stacklevel: of `warnings.warn`, counted from the caller: 2 names the line that called the caller.
    """
    warnings.warn(
        f"{old} is the name of version 0.1.0: use {new}; version 0.3.0 removes the old name",
        FutureWarning,
        stacklevel=stacklevel + 1,
    )


def with_learn_decay(function: _Function) -> _Function:
    """A function that also takes the old `learn_decay=True`, which `decay="learned"` replaces."""

    @functools.wraps(function)
    def with_old_option(*positional: Any, **named: Any) -> Any:
        if "learn_decay" in named:
            learns = named["learn_decay"]
            say_renamed(
                f"learn_decay={learns}", "decay='learned'" if learns else "decay with a number, such as the default 0.5"
            )
            named = in_our_words(named)
        return function(*positional, **named)

    return cast(_Function, with_old_option)


def in_new_words(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with old flags replaced."""
    found = []
    for word in arguments:
        if word == "--model.lif.learn-decay":
            say_renamed(word, "--model.lif.decay learned")
            found += ["--model.lif.decay", "learned"]
        elif word == "--model.lif.no-learn-decay":
            say_renamed(word, "--model.lif.decay with a number, such as the default 0.5")
        else:
            found.append(word)
    return found
