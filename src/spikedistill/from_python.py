"""Names of classes and functions that came from Python, for records: they are written and compared, and never imported."""

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

    What a script or a notebook defines has the name of the script behind it, if there is one: "__main__.Net (train.py)".
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
    """Whether two paths may be of one class: a script calls its own classes `__main__`, where others use the name of its file."""
    paths = [path.partition(" (")[0] for path in (recorded, given)]
    of_a_script = any(path.startswith(_MAIN) for path in paths)
    return paths[0] == paths[1] or (of_a_script and short_name(recorded) == short_name(given))


def short_name(path: str) -> str:
    """The name of a class without its module."""
    return path.partition(" (")[0].rpartition(".")[2]


def check_given(recorded: Mapping[str, str], given: Mapping[str, str | None], call: str) -> None:
    """Refuse a run without what it got from Python, or with something of another class.

    Args:
        recorded: import paths of the network, data set and teacher that came from Python, by the arguments of `train`.
        given: the paths of what is given now, for the arguments that matter.
        call: what takes them, such as "evaluate(run".

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
