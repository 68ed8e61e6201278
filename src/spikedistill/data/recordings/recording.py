"""Events of a camera, and how to name what is wrong with a file of them."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import DataError, data_error

# Events are decoded in pieces whose fields stay in the processor's cache.
PIECE = 2**15


@dataclass(frozen=True, eq=False)
class Recording:
    """The events of a recording, in the order of its file.

    Attributes:
        x: `[N]` uint16, the column, from 0.
        y: `[N]` uint16, the row, from 0; whether the first row is at the top depends on the format.
        polarity: `[N]` uint8, 1 if the pixel became brighter, else 0.
        time: `[N]` int64, microseconds.
        size: height and width of the sensor in pixels, or None if the file does not state it.
    """

    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray
    time: np.ndarray
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.time)


class Pieces:
    """Fields of a recording whose number of events is known once all of its file is read.

    Args:
        most: the most events that there can be; memory for more is not needed.
    """

    def __init__(self, most: int) -> None:
        self.x = np.empty(most, np.uint16)
        self.y = np.empty(most, np.uint16)
        self.polarity = np.empty(most, np.uint8)
        self.time = np.empty(most, np.int64)
        self.count = 0

    def room(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, y, polarity and time of the next `count` events, to be written."""
        part = slice(self.count, self.count + count)
        self.count = part.stop
        return self.x[part], self.y[part], self.polarity[part], self.time[part]

    def recording(self, size: tuple[int, int] | None) -> Recording:
        N = self.count
        return Recording(self.x[:N], self.y[:N], self.polarity[:N], self.time[:N], size)


def contents(path: Path) -> np.ndarray:
    """The bytes of a file, mapped into memory.

    Raises:
        DataError: if it is empty, or cannot be read.
    """
    try:
        if not path.stat().st_size:
            raise fault(path, 0, "is empty, expected the events of a camera")
        return np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise data_error(path, f"cannot be read ({error})", "check its rights and the disk") from error


def header_lines(path: Path, content: np.ndarray, mark: bytes, last: Sequence[bytes] = ()) -> tuple[list[str], int]:
    """The lines of text in front of binary events, and where the events begin.

    Args:
        path: the file.
        content: its bytes.
        mark: what each line begins with.
        last: lines that end the header.

    Raises:
        DataError: if the file ends inside a line.
    """
    text, lines = io.BytesIO(content[:_LONGEST_HEADER].tobytes()), []
    start = 0
    for line in text:
        # the first byte of an event may equal the mark
        if not line.startswith(mark) or _NO_TEXT.search(line.rstrip(b"\r\n")):
            break
        if not line.endswith(b"\n"):
            raise fault(path, start, "ends inside a line of the header: the file is cut")
        start += len(line)
        lines.append(line.rstrip(b"\r\n").decode("latin-1"))
        if line.rstrip(b"\r\n") in last:
            break
    return lines, start


# jAER writes all its settings into it.
_LONGEST_HEADER = 2**24
_NO_TEXT = re.compile(rb"[\x00-\x08\x0a-\x1f]")


def pieces_of(count: int) -> Iterator[slice]:
    """Slices of at most `PIECE` records that together are all."""
    for start in range(0, count, PIECE):
        yield slice(start, min(start + PIECE, count))


def check_whole(path: Path, content: np.ndarray, start: int, record: int) -> int:
    """How many records of so many bytes follow a header.

    Raises:
        DataError: if the last one is cut.
    """
    count, rest = divmod(len(content) - start, record)
    if rest:
        found = f"ends after {rest} bytes of a record of {record}: the file is cut"
        raise fault(path, start + count * record, found)
    return count


def fault(path: Path, offset: int, found: str, remedy: str = "copy or download it again") -> DataError:
    """The error for a file that is damaged at a byte."""
    return data_error(path, f"byte {offset}: {found}", remedy)


def unwrapped(time: np.ndarray, bits: int) -> np.ndarray:
    """Times of a clock of so many bits, `[N]` int64, that goes on where it wraps: a fall by more than half its range."""
    falls = np.diff(time) < -(1 << (bits - 1))
    if falls.any():
        time[1:] += np.cumsum(falls) << bits
    return time
