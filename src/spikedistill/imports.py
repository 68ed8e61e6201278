"""Files and modules of users that register names: `--import my_nets.py`.

Only what a user names is imported. A name in a run folder or another file is never imported automatically.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError
from .registry import USER_MODULES, UnknownName, registering_modules


def import_user(word: str, called: str | None = None) -> None:
    """Import a user's file or module, once; the folder of a file can then be imported from, as for a script.

    Args:
        word: a Python file, such as my_nets.py, or a module, such as my_package.nets.
        called: the text that runs record for it; default `word`.

    Raises:
        UserError: if there is no such file or module, or a module of the file's name is imported already.
    """
    path = Path(word)
    if path.suffix == ".py" or os.sep in word:
        _import_file(word, path, called or word)
    elif word not in USER_MODULES:
        if not all(part.isidentifier() for part in word.split(".")):
            raise UserError(
                f"--import {word}: expected a Python file, such as my_nets.py, or a module, such as my_package.nets"
            )
        _add_to_path(os.getcwd())
        try:
            importlib.import_module(word)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{word}.".startswith(f"{error.name}."):
                raise  # a module that the user's module imports
            raise UserError(
                f"--import {word}: there is no module {error.name!r}: expected a file, such as my_nets.py, or a module"
            ) from None
        USER_MODULES[word] = word


def _import_file(word: str, path: Path, called: str) -> None:
    if not path.is_file():
        raise UserError(
            f"--import {word}: there is no such file: expected a Python file, such as my_nets.py, or a module"
        )
    path = path.resolve()
    name = path.stem if path.stem.isidentifier() else "".join(c if c.isalnum() else "_" for c in f"_{path.stem}")
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) and Path(str(known.__file__)).resolve() == path:
            USER_MODULES.setdefault(name, called)
            return
        raise UserError(f"--import {word}: a module called {name!r} is imported already: give the file another name")
    _add_to_path(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--import {word}: expected a Python file, such as my_nets.py, or a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name], USER_MODULES[name] = module, called
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name], USER_MODULES[name]
        raise


def _add_to_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def import_all(words: Iterable[str]) -> None:
    """Import files and modules of a user, in this order.

    Args:
        words: as `import_user` takes them, or what `to_import` returned in another process.
    """
    called = words if isinstance(words, Mapping) else {}
    for word in words:
        import_user(word, called.get(word))


def to_import() -> dict[str, str]:
    """The files and modules that another process on this machine must import to have the same names, and what runs
    record for each.

    Files have absolute paths here. Names that the main script registers are not in it: a process that Python starts runs that
    script again.
    """
    words = {str(Path(word).resolve()) if Path(word).is_file() else word: word for word in USER_MODULES.values()}
    modules = sorted(module for module in registering_modules() if module not in USER_MODULES)
    return words | {module: module for module in modules}


@contextmanager
def needing(origins: Iterable[str], of: object) -> Iterator[None]:
    """Add to the error about an unregistered name, raised in this block, which file or module registered it for the
    run.

    Args:
        origins: files and modules that the run names.
        of: the run or file that is read, for the message.

    Raises:
        UserError: with that advice.
    """
    try:
        yield
    except UnknownName as error:
        missing = [
            origin for origin in origins if not any(origin in (name, word) for name, word in USER_MODULES.items())
        ]
        if not missing:
            raise
        given = " ".join(f"--import {origin}" for origin in missing)
        files = all(origin.endswith(".py") for origin in missing)
        wanted = str(error).partition(": did you mean")[0].partition(": choose one")[0]
        raise UserError(
            f"{wanted}: {of} needs names that {' and '.join(missing)} registers; {'' if files else 'install that, '}"
            f"add {given}, or import that in Python first"
        ) from None
