"""Files that are damaged at random places: what reads them has the same answer, or says which file it is."""

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .attempts import Kind, Verdict
from .processes import Ended, in_fork
from .workshop import Workshop, done, name_of, wrong_end

TRIES = 200


@dataclass(frozen=True)
class Sort:
    """A sort of file.

    Attributes:
        name: in the table.
        file: which file of the folder is damaged; with a star where it is one of several in turn.
        make: fills a folder with sound files.
        read: what a reader makes of the folder, with that folder as the working directory.
        sealed: whether damage can be told at all: by a checksum, or because any other content is nonsense.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    read: Callable[[], Any]
    sealed: bool = True


def damaged(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """The content with one thing wrong in it, and what that is; most often a bit."""
    while True:
        place = draw.randrange(len(content))
        match draw.choices(("bit", "cut", "zeros", "more"), (11, 4, 3, 2))[0]:
            case "bit":
                bit = draw.randrange(8)
                found = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
                what = f"bit {bit} of byte {place} flipped"
            case "cut":
                found, what = content[:place], f"cut after {place} bytes"
            case "zeros":
                length = min(draw.randint(1, 4096), len(content) - place)
                found = content[:place] + bytes(length) + content[place + length :]
                what = f"{length} bytes from {place} on are zero"
            case _:
                length = draw.randint(1, 64)
                found, what = content + draw.randbytes(length), f"{length} bytes appended"
        if found != content:
            return found, what


def attempt(sort: Sort, workshop: Workshop, number: int) -> Verdict:
    """Damage the file of a copy, and hold what a reader makes of it against what it makes of the sound one."""

    sound = workshop.sound(sort.make)

    def answer_of_sound(folder: Path) -> Any:
        ended, answer = reading(sort.read, copied(sound, folder / "place"), folder)
        done(ended)
        return answer

    expected = workshop.kept(f"{name_of(sort.read)} of {sound.name}", answer_of_sound)
    with workshop.scratch() as scratch:
        place = copied(sound, scratch / "place")
        files = sorted(place.glob(sort.file))
        file = files[number % len(files)]
        content, what = damaged(file.read_bytes(), random.Random(f"{sort.name} {number}"))
        file.unlink()  # the sound one is the same file
        file.write_bytes(content)
        ended, answer = reading(sort.read, place, scratch)
    if wrong := wrong_end(ended, 0, 2):
        return wrong._replace(detail=f"{what}: {wrong.detail}")
    if ended.code == 2:
        named = file.name in ended.errors + ended.output
        return Verdict("refused" if named else "traceback", f"{what}: {ended.errors.strip()[:300]}")
    if answer == expected:
        return Verdict("survived", what)
    return Verdict(
        "different" if sort.sealed else "undetectable", f"{what}: {str(answer)[:300]}, expected {str(expected)[:300]}"
    )


def copied(folder: Path, to: Path) -> Path:
    """A copy whose files are links, which costs nothing: readers replace a file and never write into it. Locks are not shared."""
    return Path(shutil.copytree(folder, to, copy_function=os.link, ignore=shutil.ignore_patterns(".lock")))


def reading(read: Callable[[], Any], place: Path, scratch: Path) -> tuple[Ended, Any]:
    """How a process ended that reads, and its answer; a refusal is told as the command line tells it."""

    def work() -> Any:
        os.chdir(place)
        try:
            return read()
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            sys.exit(2)

    return in_fork(work, scratch / "said")


def kinds() -> Iterator[Kind]:
    from . import files_of_data, files_of_runs

    for sorts, short in ((files_of_runs.SORTS, 1), (files_of_data.SORTS, 3)):  # the latter are read in no time
        for sort in sorts:
            yield Kind(f"damaged: {sort.name}", TRIES, short, partial(attempt, sort))
