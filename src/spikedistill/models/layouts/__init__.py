"""Published layouts: each file defines one, or several similar ones, and registers them with `register_layout`."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
