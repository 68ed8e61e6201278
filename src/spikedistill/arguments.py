"""Words of a command line into typed values: tyro reads them by a signature, and what is wrong is said in one line."""

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from .errors import UserError


def parse(kind: Callable[..., Any], arguments: Sequence[str], *, prog: str, **options: Any) -> Any:
    """What `tyro.cli` returns: `kind` called with its arguments. --help prints the help and exits.

    Args:
        kind: a class or a typed function; its docstring is the help.
        arguments: the words.
        prog: the command, for the help.
        options: of `tyro.cli`.

    Raises:
        UserError: for a word that is refused; an error of the configuration as it is.
    """
    import tyro

    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, args=arguments, prog=prog, **options)
    except SystemExit as stop:
        if stop.code != 2:
            raise
        error: BaseException | None = stop
        while error is not None and not isinstance(error, UserError):
            error = error.__context__
        raise error or UserError(_in_one_line(box.getvalue())) from None


# What tyro says of several kinds of value, none of which fits; behind it come its reasons for each.
_NO_MATCH = re.compile(r"no type matching (.+?) could be instantiated from (\[.*?\])\. Got errors:.*")


def _in_one_line(box: str) -> str:
    """What tyro says in a box, or between rules where a terminal has no signs for one, below its title.

    It is the first paragraph, and the flags that tyro takes to be meant.
    """
    parts = [list[str]()]
    for row in box.splitlines():
        text = row.strip("╭╮╰╯│").rstrip()
        if row.startswith("╭"):  # a title in the border
            parts = [[text.strip("─ ")], []]
        elif text.strip("─- "):
            parts[-1].append(text)
        elif text:  # a rule
            parts.append([])
    title, said, *others = parts
    if title[0].strip() == "Required options":  # each by its name, and further to the right its help
        indents = [len(row) - len(row.lstrip()) for row in said]
        names = [row.split()[0] for row, indent in zip(said, indents, strict=True) if indent == min(indents[1:])]
        return f"missing {', '.join(names)}; --help explains"
    meant = [
        row.split()[0]
        for rows in others
        if any("Perhaps you meant:" in row for row in rows)
        for row in rows
        if row.lstrip().startswith("--")
    ]
    text = _NO_MATCH.sub(r"got \2, expected \1", " ".join(" ".join(said).split()))
    return text + (f"; perhaps you meant {' or '.join(meant)}" if meant else "")
