"""Reading users' files: errors name what is missing, damaged or in the wrong place, and what to do about it."""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import UserError

MOST_VALUES = 2**28  # values of one sample, 1 GiB in float32: no file and no option can fill the memory
LONGEST_FAULT = 400  # characters, because a damaged file can hold a text of any length


class DataError(UserError):
    """A file exists but its content is wrong."""


def data_error(path: Path, found: str, remedy: str) -> DataError:
    """The one-line error for a file that exists but is wrong: `path`, what was found (and expected), what to do."""
    found = " ".join(found.split())
    if len(found) > LONGEST_FAULT:
        found = found[:LONGEST_FAULT] + " ..."
    return DataError(f"{path}: {found}; {remedy}")


def check_is_no_pipe(path: Path) -> None:
    """Refuse what is neither a file nor a folder: reading a pipe or a device may never end.

    Raises:
        UserError: if it is a pipe, a device or a socket.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise data_error(path, "is no file but a pipe, a device or a socket", "replace or remove it")


def read_bytes(path: Path, page: str, most: int) -> bytes:
    """The bytes of `path`, decompressed if its name ends in .gz.

    Args:
        path: the file.
        page: the official page that offers it, for the error.
        most: the most bytes to read, so that a small file that unpacks to gigabytes cannot fill the memory.

    Raises:
        FileNotFoundError: it does not exist.
        UserError: if it cannot be read or decompressed, or has more than `most` bytes.
    """
    again = f"download it again from {page}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: download it from {page}, or point --data.root or $SPIKEDISTILL_DATA at the folder "
            f"that holds {path.parent.name}/"
        )
    too_long = data_error(path, f"holds more than {most} bytes, which no official file does", again)
    try:
        if path.stat().st_size > most:
            raise too_long
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise data_error(path, f"cannot be read ({error})", again) from error
    if len(content) > most:
        raise too_long
    return content


def read_all(readers: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each reader returns. One error names every file that is wrong, up to the first that is missing.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: files are wrong.
    """
    contents = []
    faults: list[UserError] = []
    for reader in readers:
        try:
            contents.append(reader())
        except FileNotFoundError as error:
            raise FileNotFoundError("; also ".join(map(str, (error, *faults)))) from error
        except UserError as error:
            faults.append(error)
    if faults:
        raise DataError("; also ".join(map(str, faults))) from faults[0]
    return contents


def verify_md5(path: Path, content: bytes, expected: str, page: str) -> None:
    """Check that `content`, read from `path`, is the official one.

    Raises:
        UserError: if its md5 is not `expected`.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise data_error(path, f"has md5 {found}, the official file has {expected}", f"download it again from {page}")
