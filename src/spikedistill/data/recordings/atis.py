"""40-bit events of the ATIS: N-MNIST and N-Caltech101 (Orchard et al., 2015).

Five bytes an event, big-endian: x, y, a bit of polarity and 23 bits of microseconds. An entry in row 240 is no event
but marks an overflow: 2^13 microseconds are added to the times of all after it. There is no header, and nothing tells
such a file from another.
"""

from pathlib import Path

import numpy as np

from .recording import Pieces, Recording, check_whole, contents, pieces_of

OVERFLOW_ROW, OVERFLOW_MICROSECONDS = 240, 2**13


def read_atis(path: Path) -> Recording:
    """The events of a file.

    Raises:
        DataError: if it is empty or its last event is cut.
    """
    content = contents(path)
    count = check_whole(path, content, 0, 5)
    found, passed = Pieces(count), 0
    for piece in pieces_of(count):
        x, y, high, middle, low = content[5 * piece.start : 5 * piece.stop].reshape(-1, 5).T
        time = (high & 0x7F).astype(np.int32) << 16
        time |= middle.astype(np.int32) << 8
        time |= low
        polarity = high >> 7
        overflow = y == OVERFLOW_ROW
        marks = int(np.count_nonzero(overflow))
        late: np.ndarray | int = passed
        if marks:
            kept = ~overflow
            late = (passed + np.cumsum(overflow))[kept]
            x, y, polarity, time = x[kept], y[kept], polarity[kept], time[kept]
            passed += marks
        to_x, to_y, to_polarity, to_time = found.room(len(time))
        to_x[:], to_y[:], to_polarity[:] = x, y, polarity
        np.add(time, np.multiply(late, OVERFLOW_MICROSECONDS, dtype=np.int64), out=to_time)
    return found.recording(None)
