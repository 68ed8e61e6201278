"""The description of a data set, known before it is read."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload

from ..options import OptionValue, defaults_of
from ..registry import Registry
from .archives import Track
from .dataset import Dataset
from .prepared import Kind

_Load = TypeVar("_Load", bound=Callable[..., Dataset])

OFFICIAL = "every file has its published checksum, or holds exactly what the official one does"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set by name.

    Attributes:
        name: the name.
        about: what it holds, in a sentence, for lists; default the first one of `load`.
        load: reads it, from the data root if it has files.
        checked: what loading has verified, in words.
        files: where its files are, below the data root; None if they come with a library.
        page: where they come from.
        options: which options of `load_dataset` it takes.
        own_options: further options of `load` and their defaults; on the command line `--data.options.NAME`.
        tree: an example of the files below ROOT, for data of the user's own; it may be indented.
        usual: settings of its recipes, by their full names; None if it has no recipes.
        recordings: what is prepared, for a data set of recordings.
        unpack: unpacks its archives, of a folder, to the data root.
    """

    name: str
    about: str = ""
    load: Callable[..., Dataset]
    checked: str = OFFICIAL
    files: str | None = None
    page: str = "your own files"
    options: tuple[str, ...] = ()
    own_options: Mapping[str, OptionValue] = field(default_factory=dict)
    tree: str = ""
    usual: Mapping[str, Any] | None = None
    recordings: Kind | None = None
    unpack: Callable[[Path, Path, Track], None] | None = None


DATASETS: Registry[Entry] = Registry("data set", "spikedistill.datasets")
"""Data sets by name."""
# Options of `load_dataset` that have separate settings.
SHARED_OPTIONS = ("timesteps", "size", "slicing", "resize", "channels", "test_share")


@overload
def register_dataset(load: _Load) -> _Load: ...


@overload
def register_dataset(load: Entry) -> Entry: ...


@overload
def register_dataset(
    load: str | None = None, *, usual: Mapping[str, Any] | None = None
) -> Callable[[_Load], _Load]: ...


def register_dataset(
    load: Callable[..., Dataset] | Entry | str | None = None, *, usual: Mapping[str, Any] | None = None
) -> Any:
    """Register a function that returns a `Dataset`, and with it its recipes, such as `garden-twsd`.

    Use it as a decorator, `@register_dataset("garden")`, or `@register_dataset` for the name of the function. A
    parameter `root` is set to the folder of `--data.root`. Parameters named like options of `load_dataset`, such as
    `size`, are set to those. Each other parameter has a default and is an option, `--data.options.NAME`.

    Args:
        load: the function, or the name, or a complete `Entry`.
        usual: settings of its recipes by their full names, such as `{"epochs": 20, "model.name": "vgg9"}`.

    Raises:
        UserError: if the name is taken, or a parameter has no default that is a number, a text or a switch.
    """

    def enter(function: _Load) -> _Load:
        entry = _entry_of(load if isinstance(load, str) else function.__name__, function, usual or {})
        DATASETS.register(entry.name, entry)
        return function

    if load is None or isinstance(load, str):
        return enter
    if isinstance(load, Entry):
        DATASETS.register(load.name, load)
        return load
    return enter(load)


def _entry_of(name: str, load: Callable[..., Dataset], usual: Mapping[str, Any]) -> Entry:
    """The entry of a user's function."""
    parameters = inspect.signature(load).parameters
    own = defaults_of(load, f"data set {name!r}", without=("root", *SHARED_OPTIONS))
    return Entry(
        name=name,
        load=load,
        usual=dict(usual),
        checked="what its function checks",
        files="" if "root" in parameters else None,
        page=f"the function {load.__name__} of {load.__module__}",
        options=tuple(name for name in SHARED_OPTIONS if name in parameters),
        own_options=own,
    )
