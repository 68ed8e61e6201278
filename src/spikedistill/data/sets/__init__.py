"""Data sets: each file here defines one data set, or several similar ones, and registers it with `register_dataset`."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
