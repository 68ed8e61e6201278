"""AEDAT 2.0, which jAER writes: DVS128, as in CIFAR10-DVS, and the DAVIS cameras.

A header of lines that begin with #, then eight bytes an event, big-endian: an address and microseconds. What the bits
of an address mean depends on the camera, which the header may name:

              x          y          polarity   other events
    DVS128    1 to 7     8 to 14    bit 0      bit 15 set
    DAVIS     12 to 21   22 to 30   bit 11     bit 31 (images and motion) or bit 10 (triggers) set

Pixels are returned as the file numbers them: the first row is at the bottom. The times of a clock that wraps at 2^32
go on.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import data_error
from .recording import Pieces, Recording, check_whole, contents, header_lines, pieces_of, unwrapped

MAGIC = b"#!AER-DAT2.0"
_END = b"#End Of ASCII Header"


class Camera(NamedTuple):
    """The bits of an address: (first, how many), and those that are set in other events."""

    x: tuple[int, int]
    y: tuple[int, int]
    polarity: int
    others: int
    size: tuple[int, int]


def _davis(height: int, width: int) -> Camera:
    return Camera((12, 10), (22, 9), 11, 1 << 31 | 1 << 10, (height, width))


CAMERAS = {
    "DVS128": Camera((1, 7), (8, 7), 0, 1 << 15, (128, 128)),
    "DAVIS128": _davis(128, 128),
    "DAVIS208": _davis(192, 208),
    "DAVIS240": _davis(180, 240),
    "DAVIS346": _davis(260, 346),
    "DAVIS640": _davis(480, 640),
}


def read_aedat2(path: Path, camera: str | None = None) -> Recording:
    """The events of a file.

    Args:
        path: the file.
        camera: a name of `CAMERAS`, for a file whose header names none.

    Raises:
        DataError: if it has another magic, its last event is cut, or it names no camera that is known.
    """
    content = contents(path)
    lines, start = header_lines(path, content, b"#", (_END,))
    if not lines or not lines[0].startswith(MAGIC.decode()):
        raise data_error(path, f"does not begin with {MAGIC.decode()}", "give a file of AEDAT 2.0")
    layout = _camera(path, lines, camera)
    count = check_whole(path, content, start, 8)
    words, found = np.frombuffer(content, ">u4", offset=start).reshape(-1, 2), Pieces(count)
    for piece in pieces_of(count):
        address, time = words[piece].astype(np.uint32).T
        seen = address & np.uint32(layout.others) == 0
        if not seen.all():
            address, time = address[seen], time[seen]
        to_x, to_y, to_polarity, to_time = found.room(len(time))
        for to, (first, bits) in ((to_x, layout.x), (to_y, layout.y), (to_polarity, (layout.polarity, 1))):
            to[:] = address >> np.uint32(first) & np.uint32((1 << bits) - 1)
        to_time[:] = time
    recording = found.recording(layout.size)
    unwrapped(recording.time, 32)
    return recording


def _camera(path: Path, lines: list[str], camera: str | None) -> Camera:
    named = next((line.split("AEChip:")[1].strip() for line in lines if "AEChip:" in line), None)
    if named is not None:
        known = [name for name in CAMERAS if name in named.rsplit(".", 1)[-1].upper()]
        if known:
            return CAMERAS[known[0]]
    if camera is not None:
        return CAMERAS[camera]
    said = f"names the camera {named!r}" if named else "names no camera"
    raise data_error(
        path, f"{said}, expected one of {', '.join(CAMERAS)}", "pass camera=, which decides what an address means"
    )
