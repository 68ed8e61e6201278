"""The command line: it parses, calls the library and prints.

Exit codes: 0 done, 2 the user's mistake or a machine that has too little (one line), 1 anything else (a traceback, which is a bug).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from ..errors import said_of
from ..stopping import GRACE, stoppable
from .commands import COMMANDS
from .words import run, summary

# pydantic reads this when it is imported; otherwise its errors end in a link
os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="spikedistill",
        description="Train deep spiking neural networks by distillation across time, and deploy them at any number of timesteps.",
        epilog="spikedistill COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"spikedistill {version('spikedistill')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=summary(command), add_help=False)
    at = _place_of_command(arguments)
    known, rest = parser.parse_known_args(arguments[at : at + 1])
    return _run(known.command, [*arguments[:at], *rest, *arguments[at + 1 :]])


def _place_of_command(arguments: Sequence[str]) -> int:
    """The place of the first word that belongs to no `--import FILE_OR_MODULE`."""
    at = 0
    while at < len(arguments) and arguments[at].partition("=")[0] == "--import":
        at += 1 if "=" in arguments[at] else 2
    return at


def _run(command: str, arguments: list[str]) -> int:
    """Run a command, and print in one line what ended it."""
    again = {"compare": "; the same command goes on", "train": "; the same command with --resume auto goes on"}
    try:
        # a comparison waits until its runs have stopped, each of which has GRACE seconds
        with stoppable(grace=GRACE + 5 if command == "compare" else GRACE):
            run(command, arguments)
            sys.stdout.flush()  # raises BrokenPipeError here if the reader has closed the pipe
    except BrokenPipeError:
        # the reader has closed the pipe, so Python must not write to it when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("stopped" + again.get(command, ""), file=sys.stderr)
        return 1
    except Exception as error:
        from ..run_folder import RunDiverged, RunFailed, RunStopped

        said, code = said_of(error), 2
        if said is None and isinstance(error, RunDiverged | RunFailed | RunStopped):
            said, code = f"{error}{again['train'] if isinstance(error, RunStopped) else ''}", 1
        if said is None:
            raise
        print(f"spikedistill {command}: {said}", file=sys.stderr)
        return code
    return 0
