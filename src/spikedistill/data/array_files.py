"""Reads NumPy's files without executing anything; headers are checked before memory is allocated."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ..errors import UserError
from .files import DataError, check_is_no_pipe, data_error


class Announced(NamedTuple):
    """The header of an array, and the place where its values begin.

    Attributes:
        shape: the lengths of its axes.
        by_columns: whether the first axis is the fastest in the file.
        dtype: the type of its values.
        start: bytes before the first value.
        size: bytes of the whole array file.
    """

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype
    start: int
    size: int

    @property
    def length(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self) -> None:
        """Refuse objects, which would have to be unpickled, and a file that is longer or shorter than announced.

        Raises:
            UserError: if it is one of these; the message continues the name of the file.
        """
        if self.dtype.hasobject:
            raise UserError(
                "Python objects, which are not read because reading them can run any program: save numbers, and class names as "
                "numpy.array(names, dtype=str)"
            )
        if min(self.shape, default=0) < 0 or self.size - self.start != self.length:
            raise UserError(f"{self.size} bytes, expected {self.start + self.length} of an array {list(self.shape)}")

    def read(self, file: IO[bytes]) -> np.ndarray:
        """The values, which follow in the file; call `check` first."""
        values = np.frombuffer(file.read(self.length), self.dtype)
        return values.reshape(self.shape, order="F" if self.by_columns else "C")


def read_header(file: IO[bytes], size: int) -> Announced:
    """The header of an array file of `size` bytes.

    Raises:
        UserError: if it has another version of the format than numpy writes for numbers and texts.
        Exception: of any kind, if it is damaged.
    """
    if np.lib.format.read_magic(file) != (1, 0):
        raise UserError("an array in another version than 1.0 of numpy's format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    return Announced(shape, by_columns, dtype, file.tell(), size)


@contextmanager
def open_member(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], Announced]]:
    """An array of an .npz file, opened behind its header; its checksum is verified as it is read.

    Raises:
        UserError: if it is compressed by another method than numpy's.
        Exception: of any kind, if it is damaged.
    """
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError("compressed by another method than numpy's")
    with archive.open(entry) as member:
        yield member, read_header(member, entry.file_size)


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in an .npz file."""
    return [name.removesuffix(".npy") for name in archive.namelist()]


def read_npz(path: Path, names: tuple[str, ...], most: int) -> dict[str, np.ndarray]:
    """The arrays of an .npz file with these names, as far as there are some.

    Args:
        path: the file.
        names: names of arrays; other arrays are not read.
        most: largest number of bytes of an array, so that a small compressed file cannot fill the memory.

    Raises:
        UserError: if the file is damaged, or one of the arrays holds objects or is too large.
    """
    check_is_no_pipe(path)
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in array_names(archive):
                if name not in names:
                    continue
                with open_member(archive, name) as (member, announced):
                    announced.check()
                    if announced.length > most:
                        raise data_error(
                            path,
                            f"{name!r} {list(announced.shape)} has {announced.length / 2**30:.1f} GiB, at most {most / 2**30:.0f}",
                            "save .npy files instead, which are read a batch at a time",
                        )
                    found[name] = announced.read(member)
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise exceptions of every kind
        raise data_error(path, f"is no readable .npz file ({error})", "write it with numpy.savez") from error
    return found


def announced_by(path: Path) -> Announced:
    """The header of an .npy file, checked against the size of the file.

    Raises:
        UserError: if it is damaged or holds objects.
    """
    check_is_no_pipe(path)
    try:
        with path.open("rb") as file:
            announced = read_header(file, path.stat().st_size)
        announced.check()
    except Exception as error:  # numpy raises exceptions of every kind
        raise data_error(path, f"is no readable .npy file ({error})", "write it with numpy.save") from error
    return announced


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file.

    Raises:
        UserError: if it is damaged or holds objects.
    """
    announced = announced_by(path)
    with path.open("rb") as file:
        file.seek(announced.start)
        return announced.read(file)
