"""Parses the words of a command line and calls the command."""

import functools
import inspect
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..arguments import parse
from ..errors import UserError
from ..imports import import_all
from . import commands

if TYPE_CHECKING:
    from ..config import Config

_TRAIN_HELP = """usage: spikedistill train RECIPE [--key value ...]

Trains one run, scores it at every number of timesteps and writes a report.

  spikedistill train digits-twsd                        seconds, no download
  spikedistill train fashion_mnist-s2w --epochs 3       needs --data.root or SPIKEDISTILL_DATA
  spikedistill train fashion_mnist-s2w --resume auto    goes on where it was stopped
  spikedistill train digits-twsd --help                 every setting of that recipe, with its default
  spikedistill train runs/demo/config.yaml --out again  repeats an earlier run

A recipe is <dataset>-<method>.
  datasets: {datasets}
  methods:  {methods}
--protocol NAME replaces the settings of the data set by a paper's: {protocols}.
--import FILE_OR_MODULE, also several times, imports your own networks, data sets, objectives and so on first.
"""
_IMPORT_HELP = "--import FILE_OR_MODULE, also several times, imports names of your own first: --import my_nets.py"


def run(command: str, arguments: Sequence[str]) -> None:
    """Run a command with the words that follow its name; --help prints its help and exits.

    Raises:
        UserError: for a word that is refused, or anything that the command refuses.
    """
    known = commands.COMMANDS | commands.DATA_COMMANDS
    if f"{command} {''.join(arguments[:1])}" in commands.DATA_COMMANDS:
        command, arguments = f"{command} {arguments[0]}", arguments[1:]
    function, prog = known[command], f"spikedistill {command}"
    words, arguments = split_imports(arguments)
    import_all(words)
    if function is commands.train:
        if (config := _config(arguments)) is not None:
            commands.train(config)
    elif function is commands.compare:
        given, settings = parse(_given(commands.compare), arguments, prog=prog, return_unknown_args=True)
        named = [word for each in words for word in ("--import", each)]
        kept = (word for word in arguments if word != "--retry-diverged")
        again = shlex.join(["spikedistill", command, *kept, *named])
        commands.compare(**given | {"settings": tuple(settings), "command": again})
    else:
        function(**parse(_given(function), _with_own_options(arguments), prog=prog))


def summary(function: Callable[..., None]) -> str:
    """The first sentence of a command's help."""
    return (function.__doc__ or "").partition("\n")[0]


def _given(function: Callable[..., None]) -> Callable[..., dict[str, Any]]:
    """A function of the same signature that returns its arguments by name, so that parsing ends before the work begins."""

    @functools.wraps(function)
    def given(*positional: Any, **named: Any) -> dict[str, Any]:
        return inspect.signature(function).bind(*positional, **named).arguments

    text, args, rest = inspect.cleandoc(function.__doc__ or "").partition("Args:")
    given.__doc__ = f"{text.rstrip()}\n\n{_IMPORT_HELP}\n\n{args}{rest}"
    return given


def _with_own_options(arguments: Sequence[str]) -> list[str]:
    """`--data.options.NAME VALUE`, as `train` takes it, as `--data.options NAME VALUE`; without a value it is "true"."""
    words: list[str] = []
    for k, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if not name.startswith(_OWN):
            words.append(word)
            continue
        words += [_OWN.removesuffix("."), name.removeprefix(_OWN)]
        if equals:
            words.append(value)
        elif k + 1 == len(arguments) or arguments[k + 1].startswith("--"):
            words.append("true")
    return words


_OWN = "--data.options."


def split_imports(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files and modules of `--import FILE_OR_MODULE`, in their order, and the other words.

    Raises:
        UserError: if nothing follows an `--import`.
    """
    words: list[str] = []
    others: list[str] = []
    left = iter(arguments)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag != "--import":
            others.append(word)
            continue
        found = value if equals else next(left, "")
        if not found or found.startswith("--"):
            raise UserError(
                "--import names no file or module: expected --import my_nets.py, or --import my_package.nets"
            )
        words.append(found)
    return words, others


def _config(arguments: Sequence[str]) -> "Config | None":
    """The configuration that `train` trains; None if only its help was requested."""
    from ..data import list_datasets
    from ..recipes import PROTOCOLS, list_methods
    from ..recipes.settings import from_words, names_file
    from ..recipes.small_data import sized_line
    from ..training import is_main_process

    if not arguments or arguments[0] in ("-h", "--help"):
        names = {"datasets": list_datasets(), "methods": list_methods(), "protocols": [*PROTOCOLS]}
        print(_TRAIN_HELP.format(**{what: ", ".join(of_kind) for what, of_kind in names.items()}))
        if not arguments:
            raise UserError("no recipe was named: say which, such as spikedistill train digits-twsd")
        return None
    if arguments[0].startswith("-"):
        raise UserError(
            f"expected a recipe before {arguments[0]}, such as spikedistill train digits-twsd {arguments[0]}"
        )
    config = from_words(arguments[0], arguments[1:])
    if not names_file(arguments[0]) and is_main_process(config.trainer) and (line := sized_line(config)):
        print(line, flush=True)
    return config
