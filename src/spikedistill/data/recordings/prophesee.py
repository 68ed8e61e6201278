"""Prophesee's formats: DAT, EVT 2.0 and EVT 3.0.

All begin with lines of text that begin with %. DAT then has two bytes, type and size of an event, and eight bytes an
event: 32 bits of microseconds, and x, y and polarity in 14, 14 and 1 bits (9, 8 and 1 in version 1). EVT 2.0 has
words of 32 bits and EVT 3.0 words of 16, of which the four highest are its type:

    EVT 2.0  0, 1  an event: six low bits of its time, x and y of 11 bits; the type is the polarity
             8     the 28 high bits of the time of the events after it
    EVT 3.0  0     y of the events after it
             2     an event: polarity and x
             3     polarity and x of the vectors after it
             4, 5  a vector of 12 or 8 bits: an event for each that is set, x rising; the next vector is 12 or 8 to the right
             6, 8  the 12 low, and the 12 high bits of the time of the events after it

Events before the first words that set their time, row and place are left out. The clocks
go on where they wrap. The first row is at the top.
"""

import re
from pathlib import Path

import numpy as np

from ..files import data_error
from .recording import Pieces, Recording, check_whole, contents, fault, header_lines, pieces_of, unwrapped

DAT, EVT2, EVT3 = "DAT", "EVT 2.0", "EVT 3.0"
_LITTLE = "give a file with the lowest byte first"


def read_prophesee(path: Path) -> Recording:
    """The events of a file of any of these formats.

    Raises:
        DataError: if its header names none of these formats, its last record is cut, or a word has no meaning.
    """
    content = contents(path)
    lines, start = header_lines(path, content, b"%")
    form = format_of(lines)
    if form is None:
        raise data_error(path, f"names none of the formats {DAT}, {EVT2} and {EVT3}", "convert it to one of them")
    size = _size(lines)
    if form == DAT:
        return _read_dat(path, content, lines, start, size)
    if any("endianness=big" in line.replace(" ", "").lower() for line in lines):
        raise data_error(path, "has the highest byte first", _LITTLE)
    return (_read_evt2 if form == EVT2 else _read_evt3)(path, content, start, size)


def format_of(lines: list[str]) -> str | None:
    """The format that the header of a file names; None for another."""
    for line in lines:
        if found := re.match(r"%\s*(?:evt|format)\s*:?\s*(?:EVT)?\s*(\d)(?:\.(\d))?", line, re.IGNORECASE):
            return {("2", "0"): EVT2, ("3", "0"): EVT3}.get((found[1], found[2] or "0"))
    return DAT if any(line.startswith(("% Data file", "% Version")) for line in lines) else None


def _size(lines: list[str]) -> tuple[int, int] | None:
    text = "\n".join(lines)
    if found := re.search(r"% *geometry:? *(\d+)x(\d+)", text, re.IGNORECASE):
        return int(found[2]), int(found[1])
    sides = [
        re.search(rf"% *{side}:? *(\d+)|% *format .*{side}=(\d+)", text, re.IGNORECASE) for side in ("height", "width")
    ]
    if all(sides):
        height, width = (int(next(filter(None, side.groups()))) for side in sides if side)
        return height, width
    return None


def _read_dat(path: Path, content: np.ndarray, lines: list[str], start: int, size: tuple[int, int] | None) -> Recording:
    if len(content) < start + 2:
        raise fault(path, start, "ends before the type and size of events: the file is cut")
    kind, width = (int(byte) for byte in content[start : start + 2])
    if width != 8 or kind not in (0x00, 0x0C):
        raise fault(path, start, f"has events of type {kind:#04x} and {width} bytes, expected 0x00 or 0x0c and 8")
    count, found = check_whole(path, content, start + 2, 8), Pieces((len(content) - start) // 8)
    words = np.frombuffer(content, "<u4", 2 * count, start + 2).reshape(-1, 2)
    versions = [said[1] for line in lines if (said := re.match(r"% *Version *(\d+)", line))]
    bits = (14, 14) if versions and int(versions[0]) >= 2 else (9, 8)
    for piece in pieces_of(count):
        time, data = words[piece].T
        to_x, to_y, to_polarity, to_time = found.room(len(time))
        to_time[:] = time
        to_x[:] = data & np.uint32((1 << bits[0]) - 1)
        to_y[:] = data >> np.uint32(bits[0]) & np.uint32((1 << bits[1]) - 1)
        to_polarity[:] = data >> np.uint32(sum(bits)) & np.uint32(1)
    recording = found.recording(size)
    unwrapped(recording.time, 32)
    return recording


def _read_evt2(path: Path, content: np.ndarray, start: int, size: tuple[int, int] | None) -> Recording:
    count = check_whole(path, content, start, 4)
    words, found = np.frombuffer(content, "<u4", count, start), Pieces(count)
    base: int | None = None
    for piece in pieces_of(count):
        block = words[piece]
        kind = block >> np.uint32(28)
        _check_kinds(path, kind, (0x0, 0x1, 0x8, 0xA, 0xE, 0xF), start + 4 * piece.start, 4)
        bases = np.flatnonzero(kind == 0x8)
        high = (block[bases] & np.uint32(0x0FFFFFFF)).astype(np.int64)
        # the time set before the block holds until the next; without one, the first events have no time
        high = unwrapped(np.concatenate([[-1 if base is None else base], high]), 28)
        lengths = np.diff(np.concatenate([[0], bases, [len(block)]]))
        seen = kind < 2
        if base is None:
            seen[: lengths[0]] = False
        base = int(high[-1]) if len(bases) else base
        data = block[seen]
        to_x, to_y, to_polarity, to_time = found.room(len(data))
        to_x[:] = data >> np.uint32(11) & np.uint32(0x7FF)
        to_y[:] = data & np.uint32(0x7FF)
        to_polarity[:] = kind[seen]
        to_time[:] = np.repeat(high, lengths)[seen] << 6 | (data >> np.uint32(22) & np.uint32(0x3F))
    return found.recording(size)


def _read_evt3(path: Path, content: np.ndarray, start: int, size: tuple[int, int] | None) -> Recording:
    count = check_whole(path, content, start, 2)
    words, state = np.frombuffer(content, "<u2", count, start), _State()
    found = [state.decode(words[:0], words[:0])]
    for piece in pieces_of(count):
        kind = words[piece] >> np.uint16(12)
        _check_kinds(path, kind, (0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0xA, 0xE, 0xF), start + 2 * piece.start, 2)
        found.append(state.decode(kind, words[piece] & np.uint16(0xFFF)))
    x, y, polarity, time = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("x", "y", "polarity", "time")
    )
    return Recording(x, y, polarity, time, size)


_UNKNOWN = -(1 << 62)
_VECTOR = np.arange(12)


class _State:
    """Row, time and place that the words of EVT 3.0 so far have set for the events after them."""

    def __init__(self) -> None:
        self.y = self.low = self.high = self.place = self.polarity = _UNKNOWN

    def decode(self, kind: np.ndarray, value: np.ndarray) -> Recording:
        """The events of some words, of which `kind` holds the four high bits and `value` the others."""
        value = value.astype(np.int64)
        self.y, y = _filled(kind == 0x0, value & 0x7FF, self.y)
        self.low, low = _filled(kind == 0x6, value, self.low)
        turns = kind == 0x8
        if self.high == _UNKNOWN:
            value[turns] = unwrapped(value[turns], 12)
        else:
            value[turns] = unwrapped(np.append(self.high, value[turns] + (self.high >> 12 << 12)), 12)[1:]
        self.high, high = _filled(turns, value, self.high)
        # a vector moves the place of the next one
        steps = np.where(kind == 0x4, 12, np.where(kind == 0x5, 8, 0))
        passed = np.cumsum(steps) - steps
        place, places = _filled(kind == 0x3, (value & 0x7FF) - passed, self.place)
        self.place = place if place == _UNKNOWN else place + int(steps.sum())
        self.polarity, polarity = _filled(kind == 0x3, value >> 11, self.polarity)

        single = kind == 0x2
        known = (y != _UNKNOWN) & (low != _UNKNOWN) & (high != _UNKNOWN)
        seen = np.flatnonzero(known & (single | (steps > 0) & (places != _UNKNOWN)))
        single, value = single[seen], value[seen]
        bits = np.where(single, 1, np.where(kind[seen] == 0x4, value, value & 0xFF))
        first = np.where(single, value & 0x7FF, (places + passed)[seen])
        polarity = np.where(single, value >> 11, polarity[seen])
        word, place_in_word = np.nonzero(bits[:, None] >> _VECTOR & 1)
        at = seen[word]
        return Recording(
            (first[word] + place_in_word).astype(np.uint16),
            y[at].astype(np.uint16),
            polarity[word].astype(np.uint8),
            high[at] << 12 | low[at],
        )


def _filled(set_by: np.ndarray, value: np.ndarray, before: int) -> tuple[int, np.ndarray]:
    """The last value that was set up to each word, and that after all of them."""
    places = np.maximum.accumulate(np.where(set_by, np.arange(1, len(set_by) + 1), 0))
    found = np.append(before, value)[places]
    return int(found[-1]) if len(found) else before, found


def _check_kinds(path: Path, kind: np.ndarray, known: tuple[int, ...], start: int, width: int) -> None:
    meant = np.zeros(16, bool)
    meant[list(known)] = True
    wrong = np.flatnonzero(~meant[kind])
    if len(wrong):
        k = int(wrong[0])
        raise fault(
            path, start + width * k, f"a word of the type {int(kind[k]):#x} has no meaning: the file is damaged"
        )
