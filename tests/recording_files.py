"""Files of event cameras, written from the specification of each format."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Event = tuple[int, int, int, int]
"""x, y, polarity, microseconds."""


def atis(events: Sequence[Event]) -> bytes:
    return b"".join(((x << 32) | (y << 24) | (p << 23) | t).to_bytes(5, "big") for x, y, p, t in events)


def aedat2(events: Sequence[Event], chip: str = "ch.unizh.ini.jaer.chip.retina.DVS128", end: str = "") -> bytes:
    header = f"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# AEChip: {chip}\r\n{end}"
    if "DVS128" in chip:
        words = [(x << 1 | y << 8 | p, t) for x, y, p, t in events]
    else:
        words = [(x << 12 | y << 22 | p << 11, t) for x, y, p, t in events]
    return header.encode() + b"".join(struct.pack(">II", *word) for word in words)


def packet(events: Sequence[Event], overflows: int = 0, kind: int = 1, valid: int = 1) -> bytes:
    """A packet of AEDAT 3.1."""
    count = len(events)
    header = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflows, count, count, count)
    body = (struct.pack("<II", x << 17 | y << 2 | p << 1 | valid, t) for x, y, p, t in events)
    return header + b"".join(body)


AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def dat(events: Sequence[Event], header: str = "% Version 2\n% Height 240\n% Width 304\n", kind: int = 0x0C) -> bytes:
    body = b"".join(struct.pack("<II", t, p << 28 | y << 14 | x) for x, y, p, t in events)
    return header.encode() + bytes([kind, 8]) + body


EVT2_HEADER, EVT3_HEADER = b"% evt 2.0\n% geometry 640x480\n", b"% evt 3.0\n% format EVT3;height=720;width=1280\n"


def evt2(events: Sequence[Event]) -> bytes:
    words, high = [], None
    for x, y, p, t in events:
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 0x3F) << 22 | x << 11 | y)
    return EVT2_HEADER + struct.pack(f"<{len(words)}I", *words)


def evt3(events: Sequence[Event], header: bytes = EVT3_HEADER) -> bytes:
    """One word for each event, and others where time or row changes."""
    words: list[int] = []
    high = low = row = None
    for x, y, p, t in events:
        if t >> 12 != high:
            high = t >> 12
            words.append(0x8 << 12 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(0x6 << 12 | low)
        if y != row:
            row = y
            words.append(y)
        words.append(0x2 << 12 | p << 11 | x)
    return header + struct.pack(f"<{len(words)}H", *words)


def event_stream(events: Sequence[Event], size: tuple[int, int] = (240, 304), kind: int = 1) -> bytes:
    content, before = bytearray(b"Event Stream" + bytes([2, 0, 0, kind]) + struct.pack("<HH", size[1], size[0])), 0
    for x, y, p, t in events:
        passed, before = t - before, t
        content += b"\xff" * (passed // 127) + struct.pack("<BHH", passed % 127 << 1 | p, x, size[0] - 1 - y)
    return bytes(content)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def arrays(path: Path, events: Sequence[Event], **others: np.ndarray) -> Path:
    x, y, p, t = np.array(events).reshape(-1, 4).T
    np.savez(path, **({"t": t, "x": x, "y": y, "p": p} | others))
    return path


WRITERS = {
    "a.bin": atis,
    "dvs.aedat": aedat2,
    "davis.aedat": lambda events: aedat2(events, "eu.seebetter.ini.chips.davis.DAVIS240C"),
    "3.aedat": lambda events: AEDAT3_HEADER + b"".join(packet(events[k : k + 4]) for k in range(0, len(events), 4)),
    "a.dat": dat,
    "2.raw": evt2,
    "3.raw": evt3,
    "a.es": event_stream,
}
