"""Names that users can add to: one registry for each kind of thing.

A name comes from one of three places: this library, a user's file or module that registers it (`--import`), or an installed
package that declares it as an entry point. A package is imported only when one of its names is looked up.
"""

import difflib
import functools
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from .errors import UserError

T = TypeVar("T")
OURS = __package__
# The text with which the user named each imported module, by the name of the module. `imports.py` fills it.
USER_MODULES: dict[str, str] = {}
_MODULES: set[str] = set()  # that have registered names
_MAIN = {"__main__", "__mp_main__"}


class UnknownName(UserError):
    """A name that is not registered."""


class Registry(Mapping[str, T], Generic[T]):
    """Objects of one kind by name. Iteration is over all names, sorted, also over those that packages declare.

    Args:
        kind: what the objects are, such as "data set", for messages.
        group: the entry-point group of their packages, such as "spikedistill.datasets".
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._known: dict[str, T] = {}
        self._origins: dict[str, str] = {}

    def register(self, name: str, value: T) -> None:
        """Register an object under a name.

        Raises:
            UserError: if the name is taken, or is no text that a command line can hold.
        """
        if not isinstance(name, str) or not name or name.startswith("-") or any(map(str.isspace, name)):
            raise UserError(
                f"{name!r} cannot be the name of a {self.kind}: expected a text without spaces and without a hyphen in front"
            )
        module = _registering_module()
        if name in self._known:
            by = self._origins.get(name, "spikedistill")
            raise UserError(f"{self.kind} {name!r} is registered already, by {by}: choose another name")
        self._known[name] = value
        if module is not None:
            _MODULES.add(str(module.get("__name__", "__main__")))
            self._origins[name] = origin_of(module)

    def origin(self, name: str) -> str | None:
        """The file or module that registered a name; None for the library's own names and for unknown ones."""
        return self._origins.get(name)

    def package(self, name: str) -> str | None:
        """The installed package that declares a name and is not imported yet; None for all other names."""
        if name in self._known or name not in self._declared():
            return None
        return _package_of(self._declared()[name])

    def registered(self) -> dict[str, T]:
        """The objects that are registered now, without those that packages only declare."""
        return dict(sorted(self._known.items()))

    def __getitem__(self, name: str) -> T:
        """The thing of that name.

        Raises:
            UnknownName: if there is none, with the names nearest to it.
            UserError: if the package that declares it cannot be imported, or does not register it.
        """
        if name not in self._known and name in self._declared():
            self._import(self._declared()[name])
        if name not in self._known:
            close = difflib.get_close_matches(str(name), list(self), n=3)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"choose one of {', '.join(self)}"
            raise UnknownName(f"no {self.kind} is called {name!r}: {hint}")
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self._declared()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._known, *self._declared()}))

    def __len__(self) -> int:
        return len({*self._known, *self._declared()})

    def _declared(self) -> dict[str, EntryPoint]:
        """The names that installed packages declare."""
        return _declared(self.group)

    def _import(self, declared: EntryPoint) -> None:
        package = _package_of(declared)
        try:
            declared.load()
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"the {self.kind} {declared.name!r} is of the package {package}, which cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        if declared.name not in self._known:
            raise UserError(
                f"the package {package} declares the {self.kind} {declared.name!r}, but {declared.value} does not register it"
            )


def _package_of(declared: EntryPoint) -> str:
    return declared.dist.name if declared.dist else declared.value


@functools.cache
def _declared(group: str) -> dict[str, EntryPoint]:
    return {declared.name: declared for declared in entry_points(group=group)}


def registering_modules() -> frozenset[str]:
    """The modules of users and packages that have registered names, without the main script."""
    return frozenset(_MODULES - _MAIN)


def _registering_module() -> Mapping[str, Any] | None:
    """The globals of the module that registers a name now, if it is of a user or a package; None for this library."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back  # type: ignore[assignment]
    while frame is not None and _is_ours(frame.f_globals):
        if frame.f_code.co_name == "<module>":
            return None
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return None
    registering = frame.f_globals
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") in USER_MODULES:
            return frame.f_globals  # the file that the user named, which imports the one that registers
        frame = frame.f_back  # type: ignore[assignment]
    return registering


def _is_ours(module: Mapping[str, Any]) -> bool:
    return str(module.get("__name__", "")).partition(".")[0] == OURS


def origin_of(module: Mapping[str, Any]) -> str:
    """The user's name of a module, given its globals: its file if it is the script or was imported as a file, else its name."""
    name = str(module.get("__name__", "__main__"))
    if name in USER_MODULES:
        return USER_MODULES[name]
    file = module.get("__file__") if name in _MAIN else None
    return _from_here(Path(str(file))) if file else name


def _from_here(file: Path) -> str:
    """The path of a file from the working directory, if it is in there; records then hold no path of the machine."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
