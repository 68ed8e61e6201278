"""Import paths of classes and functions that came from Python: runs record and compare them, and never import them."""

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError

_WORDS = {"model": "network", "data": "data set"}
_MAIN = ("__main__.", "__mp_main__.")


def import_path(value: Any) -> str:
    """The import path of a class or function, or of an object's class, such as "my_nets.Net".

    A class of the main script is followed by the name of its file: "__main__.Net (train.py)". A notebook has no file.
    """
    while isinstance(value, functools.partial):
        value = value.func
    named = value if isinstance(getattr(value, "__qualname__", None), str) else type(value)
    module, name = str(named.__module__), str(named.__qualname__)
    if module.startswith("torch.") and getattr(sys.modules.get("torch.nn"), name, None) is named:
        module = "torch.nn"
    file = getattr(sys.modules.get(module), "__file__", None) if f"{module}." in _MAIN else None
    return f"{module}.{name}" + (f" ({Path(file).name})" if file else "")


def same_path(recorded: str, given: str) -> bool:
    """Whether two paths may be of one class: inside a script its module is `__main__`, elsewhere the name of its file."""
    paths = [path.partition(" (")[0] for path in (recorded, given)]
    of_a_script = any(path.startswith(_MAIN) for path in paths)
    return paths[0] == paths[1] or (of_a_script and short_name(recorded) == short_name(given))


def short_name(path: str) -> str:
    """The name of a class without its module."""
    return path.partition(" (")[0].rpartition(".")[2]


def check_given(recorded: Mapping[str, str], given: Mapping[str, str | None], call: str) -> None:
    """Refuse a run without the objects that it got from Python, or with objects of other classes.

    Args:
        recorded: import paths of the network, data set and teacher that came from Python, by the arguments of `train`.
        given: the import paths of the objects given now, by the arguments that the call takes.
        call: the call that takes them, such as "evaluate(run".

    Raises:
        UserError: saying what to pass.
    """
    missing = [role for role in recorded if role in given and given[role] is None]
    if missing:
        names = " and ".join(f"its {_WORDS.get(role, role)} {recorded[role]}" for role in missing)
        arguments = ", ".join(f"{role}=..." for role in missing)
        them = "them" if len(missing) > 1 else "it"
        raise UserError(f"this run got {names} from Python: pass {them} again there, {call}, {arguments})")
    for role, path in given.items():
        if path is not None and role in recorded and not same_path(recorded[role], path):
            raise UserError(f"{role} is {path}, expected {recorded[role]}, which this run was made with")
