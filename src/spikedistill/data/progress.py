"""Progress of long work on data, on a terminal."""

from collections.abc import Iterable
from typing import TypeVar

_Thing = TypeVar("_Thing")


def progress(things: Iterable[_Thing], total: float | None = None, *, description: str = "") -> Iterable[_Thing]:
    """The same things, with a progress bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(things, description, total, console=console, disable=not console.is_terminal)
