"""Event Stream (.es), version 2, polarity events.

`Event Stream`, three bytes of a version, one of a type, and width and height of 16 bits; then five bytes an event,
little-endian: seven bits of the microseconds since the event before it and one of polarity, x and y. A byte of ones
stands alone and adds 127 microseconds; one of ones but for the lowest is ignored. The file counts rows from the
bottom; they are returned from the top.
"""

from pathlib import Path

import numpy as np

from ..files import data_error
from .recording import Pieces, Recording, contents, fault

MAGIC = b"Event Stream"
_POLARITY, _START, _RECORD = 1, 20, 5
_RESET, _OVERFLOW, _OVERFLOW_MICROSECONDS = 0xFE, 0xFF, 127
_LOOK = 4096  # events


def read_event_stream(path: Path) -> Recording:
    """The events of a file.

    Raises:
        DataError: if it has another magic, version or type of events, or its last event is cut.
    """
    content = contents(path)
    if content[: len(MAGIC)].tobytes() != MAGIC:
        raise data_error(path, f"does not begin with {MAGIC.decode()!r}", "give a file of this format")
    if len(content) < _START:
        raise fault(path, len(content), "ends inside the header: the file is cut")
    version, kind = int(content[12]), int(content[15])
    if version != 2 or kind != _POLARITY:
        raise data_error(
            path, f"has version {version} and type {kind} of events, expected 2 and 1 (polarity events)", "convert it"
        )
    width, height = (int(side) for side in np.frombuffer(content, "<u2", 2, 16))
    found, place, time = Pieces((len(content) - _START) // _RECORD), _START, 0
    while place < len(content):
        first = content[place : place + _RECORD * _LOOK : _RECORD]
        marks = np.flatnonzero(first >= _RESET)
        count = int(marks[0]) if len(marks) else len(first)
        end = place + count * _RECORD
        if end > len(content):
            raise fault(path, end - _RECORD, f"ends inside an event of {_RECORD} bytes: the file is cut")
        if count:
            records = content[place:end].reshape(-1, _RECORD)
            to_x, to_y, to_polarity, to_time = found.room(count)
            to_x[:] = records[:, 1] | records[:, 2].astype(np.uint16) << 8
            to_y[:] = records[:, 3] | records[:, 4].astype(np.uint16) << 8
            np.subtract(height - 1, to_y, out=to_y, dtype=np.int64, casting="unsafe")  # a row below 0 becomes too high
            to_polarity[:] = records[:, 0] & 1
            np.cumsum(records[:, 0] >> 1, dtype=np.int64, out=to_time)
            to_time += time
            time = int(to_time[-1])
        place = end
        while place < len(content) and content[place] >= _RESET:
            time += _OVERFLOW_MICROSECONDS if content[place] == _OVERFLOW else 0
            place += 1
    return found.recording((height, width))
