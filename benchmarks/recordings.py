"""Events per second that the readers of recordings decode, on one core."""

import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

from spikedistill.data import Recording, read_recording
from spikedistill.data.recordings import frames_of

from .results import commit, machine, versions

_PACKET = 4096  # events of AEDAT 3.1


def measure_recordings(events: int, rounds: int, out: Path, command: str) -> list[dict[str, Any]]:
    """Write a file of so many events in each format, read it in turns, and write what it took as lines of JSON.

    Args:
        events: in each file.
        rounds: how often; a first one is not counted.
        out: the file of lines.
        command: what is run.

    Returns:
        A row for each format and for frames.
    """
    recording = _random(events)
    with tempfile.TemporaryDirectory() as folder:
        work: dict[str, Callable[[], Any]] = {}
        for name, written in _WRITERS.items():
            path = Path(folder) / name.split(":")[1]
            path.write_bytes(written(recording))
            work[name.split(":")[0]] = partial(read_recording, path)
        work["frames by number, T=10"] = partial(frames_of, recording, 10, "number", (128, 128))
        work["frames by time, T=10"] = partial(frames_of, recording, 10, "time", (128, 128))
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds + 1):
            for name, call in work.items():
                start = time.perf_counter()
                call()
                taken[name].append(time.perf_counter() - start)
    rows = []
    for name, seconds in taken.items():
        low, middle, high = (events / value / 1e6 for value in quantiles(seconds[1:], n=4, method="inclusive")[::-1])
        row = {"what": name, "events": events, "median": round(middle, 1), "low": round(low, 1), "high": round(high, 1)}
        rows.append(row)
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command, "rounds": rounds}
    about["started"] = datetime.now(UTC).isoformat(timespec="seconds")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(line) + "\n" for line in (about, *rows)))
    return rows


def _random(events: int) -> Recording:
    """A recording of 128 x 128 pixels with a million events a second."""
    dice = np.random.default_rng(0)
    x, y = dice.integers(0, 128, (2, events)).astype(np.uint16)
    time = np.sort(dice.integers(0, events, events))
    return Recording(x, y, dice.integers(0, 2, events).astype(np.uint8), time, (128, 128))


def _atis(r: Recording) -> bytes:
    late = r.time & 0x1FFF  # as a clock of 13 bits; the marks of its overflows are left out
    fields = (r.x, r.y, r.polarity << 7 | late >> 16, late >> 8 & 0xFF, late & 0xFF)
    return np.stack(fields, 1).astype(np.uint8).tobytes()


def _aedat2(r: Recording) -> bytes:
    words = np.stack([r.x.astype(np.uint32) << 1 | r.y.astype(np.uint32) << 8 | r.polarity, r.time], 1)
    return b"#!AER-DAT2.0\r\n# AEChip: DVS128\r\n" + words.astype(">u4").tobytes()


def _aedat31(r: Recording) -> bytes:
    data = r.x.astype(np.uint32) << 17 | r.y.astype(np.uint32) << 2 | r.polarity << 1 | 1
    words = np.stack([data, r.time], 1).astype("<u4")
    content = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"]
    for start in range(0, len(words), _PACKET):
        part = words[start : start + _PACKET]
        header = np.array([1, 8, 4, 0, len(part), len(part), len(part)], "<i4")
        header[0] = 1 | 1 << 16  # type and source in 16 bits each
        content += [header.tobytes(), part.tobytes()]
    return b"".join(content)


def _dat(r: Recording) -> bytes:
    data = r.polarity.astype(np.uint32) << 28 | r.y.astype(np.uint32) << 14 | r.x
    return b"% Version 2\n% Height 128\n% Width 128\n\x0c\x08" + np.stack([r.time, data], 1).astype("<u4").tobytes()


def _evt2(r: Recording) -> bytes:
    high = (r.time >> 6).astype(np.uint32)
    light = (
        r.polarity.astype(np.uint32) << 28 | (r.time & 0x3F).astype(np.uint32) << 22 | r.x.astype(np.uint32) << 11 | r.y
    )
    turns = np.flatnonzero(np.diff(high, prepend=high[0] + 1))
    return b"% evt 2.0\n" + np.insert(light, turns, 0x80000000 | high[turns]).astype("<u4").tobytes()


def _evt3(r: Recording) -> bytes:
    """With the time and row of every event, and no vectors: the form that takes longest."""
    high, low = r.time >> 12 & 0xFFF, r.time & 0xFFF
    words = np.stack(
        [0x8000 | high, 0x6000 | low, r.y.astype(np.int64), 0x2000 | r.polarity.astype(np.int64) << 11 | r.x], 1
    )
    return b"% evt 3.0\n" + words.astype("<u2").tobytes()


_WRITERS: dict[str, Callable[[Recording], bytes]] = {
    "N-MNIST, 40 bits:a.bin": _atis,
    "AEDAT 2.0, DVS128:2.aedat": _aedat2,
    "AEDAT 3.1:3.aedat": _aedat31,
    "Prophesee DAT:a.dat": _dat,
    "EVT 2.0:2.raw": _evt2,
    "EVT 3.0:3.raw": _evt3,
}
