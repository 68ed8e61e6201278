"""Files that are either the old one or the new one, never half of it, and folders for one process at a time."""

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
    """Write a file beside its place, flush it to the disk, read it back, and move it there.

    The file beside has a name of its own, so that several processes may write the same file. It is gone where writing fails;
    `clear_partial` removes one that a killed process leaves.

    Raises:
        OSError: where it cannot be written, on a full disk for instance, or reads back as something else; the old file stays.
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
            raise OSError(errno.EIO, "it does not read back as it was written: the disk is damaged; the old file stays")
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # by the name that people know
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def clear_partial(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed processes had begun to write of these files; for a process that is alone in the folder."""
    for name in names:
        for file in (*folder.glob(f".{name}.*{PARTIAL}"), folder / f"{name}{PARTIAL}"):  # the latter of version 0.1.0
            file.unlink(missing_ok=True)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically, with a column for every key that occurs, in the order of their first occurrence."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def parse_json(content: bytes | str, origin: object) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        UserError: naming `origin`, where it is anything else.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin} is damaged: it is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{origin} is damaged: it holds a {type(value).__name__}, expected named values")
    return value


def parse_yaml(content: bytes, origin: object) -> dict[str, Any]:
    """The settings that a YAML file holds: names and values, a few levels deep, without aliases.

    What is larger or deeper than any configuration, or refers to other parts of itself, is refused before anything is built of it.

    Raises:
        UserError: naming `origin`, where it is anything else.
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
    """Why a text is no settings file, found before anything is built of it."""
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
    """Keep other processes that ask for it out of a folder, which is made where it is missing; it is free again however this ends.

    A thread that is alone in the folder already may ask again.

    Args:
        folder: the folder.
        wait: until another process leaves it, and say so once, rather than raise.

    Raises:
        BlockingIOError: where another process is in it, and `wait` is not given.
        OSError: where it cannot be made.
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
        pass  # a file system without locks, on which two at once are the user's to avoid
    try:
        yield
    finally:
        lock.release()
