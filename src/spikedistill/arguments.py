"""Arguments of a command line as typed values: tyro reads them by a signature, and an error becomes one line."""

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from .errors import UserError


def parse(kind: Callable[..., Any], arguments: Sequence[str], *, prog: str, **options: Any) -> Any:
    """Call `kind` with the arguments of a command line. --help prints the help and exits.

    Args:
        kind: a class or a typed function; its docstring is the help.
        arguments: the arguments, as texts.
        prog: the command, for the help.
        options: options of `tyro.cli`.

    Returns:
        The value of `kind`.

    Raises:
        UserError: for an argument that is refused. Errors of the configuration are passed on.
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


# Tyro's message if a value fits none of several kinds; its reasons for each kind follow.
_NO_MATCH = re.compile(r"no type matching (.+?) could be instantiated from (\[.*?\])\. Got errors:.*")


def _in_one_line(box: str) -> str:
    """Tyro's message in one line: the first paragraph below the title, and the flags that tyro suggests.

    Tyro prints a box, or rules if the terminal cannot show one.
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
    if title[0].strip() == "Required options":  # their names; the help is indented further
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
