"""Files that are replaced as a whole, and folders that one process uses at a time."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import UserError

LOCK = ".lock"
PARTIAL = ".partial"
# A configuration has about 3 kB and three levels.
LARGEST_YAML = 64 * 1024
DEEPEST_YAML = 16


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a temporary file in the same folder, flush it to the disk, read it back, and rename it.

    A reader sees the old file or the new one, never a part. Each temporary file has its own name, so several processes may write
    the same file. It is removed if writing fails; `clear_partial` removes one that a killed process left.

    Raises:
        OSError: if it cannot be written, for instance on a full disk, or reads back differently. The old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")
    try:
        with open(temporary, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != raw:
            raise OSError(
                errno.EIO, "it reads back differently than it was written: the disk is damaged; the old file stays"
            )
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # with the name that the user knows
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def clear_partial(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary files that killed processes left of these files. Call it only inside `alone_in`."""
    for name in names:
        for file in (*folder.glob(f".{name}.*{PARTIAL}"), folder / f"{name}{PARTIAL}"):  # the latter of version 0.1.0
            file.unlink(missing_ok=True)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a CSV file, atomically. Every key becomes a column, in the order of first occurrence."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def parse_json(content: bytes | str, origin: object) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: naming `origin`, if it is anything else.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin} is damaged: it is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{origin} is damaged: it holds a {type(value).__name__}, expected named values")
    return value


def parse_yaml(content: bytes, origin: object) -> dict[str, Any]:
    """The settings in a YAML file: names and values, a few levels deep, without aliases.

    A text that is larger or deeper than any configuration, or has aliases, is refused before any value is built.

    Raises:
        UserError: naming `origin`, if it is anything else.
    """
    import yaml

    try:
        text = content.decode()
        wrong = _too_much(text)
        value = None if wrong else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UserError(f"{origin} is not valid YAML ({' '.join(str(error).split())})") from None
    if wrong or not isinstance(value, dict):
        raise UserError(f"{origin} {wrong or 'holds no settings, expected `name: value` lines'}")
    return value


def _too_much(text: str) -> str | None:
    """Why a text cannot be a settings file, or None. It builds none of its values."""
    import yaml

    if len(text) > LARGEST_YAML:
        return f"holds {len(text)} characters, expected at most {LARGEST_YAML} of settings"
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            return f"has an alias, *{event.anchor}: write the value in its place"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_YAML:
            return f"nests values deeper than {DEEPEST_YAML} levels, and settings never do"
    return None


def sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def alone_in(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder against other processes that use this function. A missing folder is created. It is always unlocked at the end.

    A thread that holds the lock may take it again.

    Args:
        folder: the folder.
        wait: wait until another process unlocks it, with one message, instead of raising.

    Raises:
        BlockingIOError: if another process holds the lock and `wait` is not given.
        OSError: if the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"{folder} is no folder: choose another --out") from None
    except OSError as error:
        raise OSError(error.errno, f"{folder} cannot be made ({error.strerror}): choose another --out") from None
    lock = FileLock(folder.resolve() / LOCK, is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise BlockingIOError(
                f"another process is at work in {folder}: wait until it has ended, stop it, or choose another --out"
            ) from None
        print(f"waiting for another process at work in {folder}", flush=True)
        lock.acquire()
    except (OSError, NotImplementedError):
        pass  # a file system without locks, where users must not run two processes at once
    try:
        yield
    finally:
        lock.release()
