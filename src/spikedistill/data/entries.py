"""What is known of a data set before it is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .dataset import Dataset

OFFICIAL = "every file has its published checksum, or holds exactly what the official one does"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set by name.

    Attributes:
        name: the name.
        load: reads it, from the data root where it has files.
        checked: what is known to be right once it is loaded, in words.
        files: where its files are, below the data root; None where they come with a library.
        page: where they come from.
        options: which options `load` takes.
        tree: an example of the files below ROOT, for data of the user's own; it may be indented.
        usual: settings of its recipes, by their full names; None where it has no recipes.
    """

    name: str
    load: Callable[..., Dataset]
    checked: str = OFFICIAL
    files: str | None = None
    page: str = "your own files"
    options: tuple[str, ...] = ()
    tree: str = ""
    usual: Mapping[str, Any] | None = None


ENTRIES: dict[str, Entry] = {}


def register_dataset(entry: Entry) -> None:
    """Enter a data set, under a name that is free.

    Raises:
        UserError: where it is taken.
    """
    if entry.name in ENTRIES:
        raise UserError(f"data set {entry.name!r} is registered already: choose another name")
    ENTRIES[entry.name] = entry
