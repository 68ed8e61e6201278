"""Files made to do harm: nothing in them is executed, nothing of others is touched, and no memory is taken beyond measure."""

import contextlib
import os
import pickle
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .attempts import Kind, Verdict
from .damage import reading
from .workshop import Workshop, files_below, wrong_end

PRECIOUS = Path("../precious")  # of somebody else, beside the folder that a reader works in


@dataclass(frozen=True)
class Case:
    """A file that somebody planted.

    Attributes:
        name: in words.
        base: fills a folder with sound files.
        plant: puts the file into the working directory; it may make the trap, a folder that appears where code from the file runs.
        read: what reads it, in that directory.
    """

    name: str
    base: Callable[[Path], object]
    plant: Callable[[Path], object]
    read: Callable[[], object]


class Payload:
    """Makes a folder where it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trap),)


def payload(trap: Path) -> bytes:
    """A pickle that makes the trap, which is tried here."""
    content = pickle.dumps(Payload(trap))
    pickle.loads(content)
    trap.rmdir()
    return content


def bomb(mebibytes: int, form: int) -> bytes:
    """A compressed stream of so many MiB of zeros, without its checksum, which nobody should come to read.

    Args:
        mebibytes: its length.
        form: 15 for zlib, 31 for gzip, -15 for what a zip archive holds.
    """
    writer, zeros = zlib.compressobj(9, zlib.DEFLATED, form), bytes(1 << 20)
    first, next_ = (writer.compress(zeros) + writer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + next_ * (mebibytes - 1) + writer.flush()


def attempt(cases: Sequence[Case], workshop: Workshop, number: int) -> Verdict:
    """Plant a file, and see what becomes of whoever reads it."""
    case = cases[number]
    with workshop.scratch() as scratch:
        place, trap, precious = scratch / "place", scratch / "trap", scratch / "precious"
        shutil.copytree(workshop.sound(case.base), place)
        precious.mkdir()
        for name in ("last.ckpt", "notes.md"):
            (precious / name).write_text("of somebody else")
        before = files_below(precious)
        with contextlib.chdir(place):
            case.plant(trap)
        ended, _ = reading(case.read, place, scratch)
        if trap.exists():
            return Verdict("executed", case.name)
        if files_below(precious) != before:
            return Verdict("lost", f"{case.name}: a file of somebody else")
    if wrong := wrong_end(ended, 0, 2):
        return wrong._replace(detail=f"{case.name}: {wrong.detail}")
    message = (ended.errors + ended.output).strip()
    return Verdict("refused" if ended.code else "survived", f"{case.name}: {message[-300:]}")


def nothing(folder: Path) -> None:
    """An empty folder."""


def kinds() -> Iterator[Kind]:
    from . import planted_for_data, planted_in_cache, planted_in_results, planted_in_runs

    for module in (planted_in_runs, planted_in_results, planted_in_cache, planted_for_data):
        for name, cases in module.CASES.items():
            yield Kind(f"hostile: {name}", len(cases), len(cases), partial(attempt, cases))
