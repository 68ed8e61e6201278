"""The package `spikedistill.through_time` under its old name. Importing this module keeps `spikedistill.temporal(...)` callable."""

import sys
from types import ModuleType
from typing import Any

from . import through_time
from .renamed import say_renamed


class _OldName(ModuleType):
    """A module that is called as the function of the same name, because the import puts it in the place of that function."""

    def __call__(self, *args: Any, **named: Any) -> through_time.Temporal:
        return through_time.temporal(*args, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(through_time, name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        say_renamed(f"spikedistill.temporal.{name}", f"spikedistill.through_time.{name}")
        return getattr(through_time, name)


sys.modules[__name__].__class__ = _OldName
