"""Files that are either the old one or the new one, never half of it, and folders for one process at a time."""

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = ".lock"


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file beside its place, flush it to the disk, and move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically, with a column for every key that occurs, in the order of their first occurrence."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder, which is made where it is missing; it is free again however this ends.

    Raises:
        BlockingIOError: where another process is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(
            f"another process is at work in {folder}: wait until it has ended, stop it, or choose another --out"
        ) from None
    except (OSError, NotImplementedError):
        pass  # a file system without locks, on which two at once are the user's to avoid
    try:
        yield
    finally:
        lock.release()
