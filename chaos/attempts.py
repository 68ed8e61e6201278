"""What is tried, what came of it, and the file that keeps it, with which a later call goes on."""

import fcntl
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .workshop import Workshop

ROOT = Path(__file__).parents[1]
# What may come of an attempt; docs/reliability.md says what each means.
RIGHT = ("survived", "refused", "undetectable")
WRONG = ("lost", "different", "executed", "traceback", "crash", "hang")


class Verdict(NamedTuple):
    """What came of one attempt: one of `RIGHT` or `WRONG`, and what happened in words."""

    outcome: str
    detail: str = ""


class Attempt(NamedTuple):
    """One line of the file."""

    kind: str
    number: int
    verdict: Verdict


@dataclass(frozen=True)
class Kind:
    """A row of the table: one kind of trouble.

    Attributes:
        name: of the kind, among all.
        tries: how many attempts, numbered from 0; each draws what it needs from its number.
        short: how many of them in the short form.
        attempt: makes one attempt.
        possible: whether this machine allows it.
    """

    name: str
    tries: int
    short: int
    attempt: Callable[["Workshop", int], Verdict]
    possible: Callable[[], bool] = lambda: True


class Tried:
    """The attempts in a file.

    Those made with another state of the library or of this package do not count.

    Args:
        path: the file, of JSON lines.
        version: of the code; `code_version()`.
    """

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self.version = version

    def add(self, attempt: Attempt, seconds: float) -> None:
        """Append one that took so long, from whichever process."""
        line = {"version": self.version, "kind": attempt.kind, "number": attempt.number, **attempt.verdict._asdict()}
        line["seconds"] = round(seconds, 2)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(line) + "\n")

    def read(self) -> dict[tuple[str, int], Attempt]:
        """The attempts so far, by kind and number; a line that a killed process left unfinished is none."""
        found = {}
        for line in self.path.read_text().splitlines() if self.path.is_file() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["version"] == self.version:
                verdict = Verdict(row["outcome"], row["detail"])
                found[row["kind"], row["number"]] = Attempt(row["kind"], row["number"], verdict)
        return found


def code_version() -> str:
    """What tells one state of the library, and of this package, from another."""
    digest = hashlib.sha256()
    for folder in ("src", "chaos"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix not in (".pyc", ".md"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
