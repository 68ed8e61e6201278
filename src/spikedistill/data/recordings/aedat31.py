"""AEDAT 3.1, which cAER writes: DVS128 Gesture.

A header of lines that begin with # and ends with #!END-HEADER, then packets of events of one type, little-endian. A
packet begins with 28 bytes: type and source of 16 bits; size of an event, place of its time, overflows of the clock,
capacity, number, and valid ones of 32 bits each. Polarity events have type 1 and eight bytes: bit 0 is set in valid
events, bit 1 is the polarity, 2 to 16 are y and 17 to 31 x; then 31 bits of microseconds. The first row is at
the top.
"""

from pathlib import Path

import numpy as np

from ..files import data_error
from .recording import Pieces, Recording, contents, fault, header_lines

MAGIC = b"#!AER-DAT3.1"
_END = b"#!END-HEADER"
_HEADER = np.dtype(
    [
        ("type", "<i2"),
        ("source", "<i2"),
        *((name, "<i4") for name in ("size", "time_at", "overflows", "capacity", "number", "valid")),
    ]
)
_POLARITY = 1


def read_aedat31(path: Path) -> Recording:
    """The polarity events of a file.

    Raises:
        DataError: if it has another magic, its header does not end, or a packet is cut or damaged.
    """
    content = contents(path)
    lines, place = header_lines(path, content, b"#", (_END,))
    if not lines or not lines[0].startswith(MAGIC.decode()):
        raise data_error(path, f"does not begin with {MAGIC.decode()}", "give a file of AEDAT 3.1")
    if lines[-1] != _END.decode():
        raise fault(path, place, f"the header does not end with {_END.decode()}")
    form = next((line for line in lines if line.startswith("#Format:")), "#Format: RAW")
    if form.split(":")[1].strip() != "RAW":
        raise data_error(path, f"has the format {form.split(':')[1].strip()!r}, expected RAW", "write it uncompressed")
    found = Pieces((len(content) - place) // 8)
    while place < len(content):
        header = _packet(path, content, place)
        start = place + _HEADER.itemsize
        place = start + int(header["size"]) * int(header["number"])
        if header["type"] != _POLARITY:
            continue
        words = np.frombuffer(content, "<u4", 2 * int(header["number"]), start).reshape(-1, 2)
        data, time = words.T
        valid = data & np.uint32(1) != 0
        if not valid.all():
            data, time = data[valid], time[valid]
        to_x, to_y, to_polarity, to_time = found.room(len(time))
        to_x[:] = data >> np.uint32(17)
        to_y[:] = data >> np.uint32(2) & np.uint32(0x7FFF)
        to_polarity[:] = data >> np.uint32(1) & np.uint32(1)
        np.add(time, int(header["overflows"]) << 31, out=to_time, dtype=np.int64)
    return found.recording((128, 128) if any("DVS128" in line for line in lines) else None)


def _packet(path: Path, content: np.ndarray, place: int) -> np.void:
    """The header of the packet at a byte."""
    if len(content) - place < _HEADER.itemsize:
        left = len(content) - place
        raise fault(
            path, place, f"ends after {left} of the {_HEADER.itemsize} bytes that a packet begins with: the file is cut"
        )
    header = np.frombuffer(content, _HEADER, 1, place)[0]
    sizes = {name: int(header[name]) for name in ("size", "number", "capacity", "overflows")}
    if sizes["size"] < 1 or min(sizes.values()) < 0 or sizes["number"] > sizes["capacity"]:
        raise fault(
            path,
            place,
            f"the header of a packet announces {sizes['number']} events of {sizes['size']} bytes: the file is damaged",
        )
    if header["type"] == _POLARITY and sizes["size"] != 8:
        raise fault(path, place, f"polarity events have {sizes['size']} bytes, expected 8: the file is damaged")
    end = place + _HEADER.itemsize + sizes["size"] * sizes["number"]
    if end > len(content):
        found = f"a packet of {sizes['number']} events ends {end - len(content)} bytes behind the file: the file is cut"
        raise fault(path, place, found)
    return header
