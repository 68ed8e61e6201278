"""Reads a recording of any format."""

from pathlib import Path

from ..files import check_is_no_pipe, data_error
from . import aedat2, aedat31, arrays, event_stream
from .atis import read_atis
from .prophesee import read_prophesee
from .recording import Recording, fault

FORMATS = {
    "atis": "40-bit events of N-MNIST and N-Caltech101, *.bin",
    "aedat2": "AEDAT 2.0, *.aedat",
    "aedat3": "AEDAT 3.1, *.aedat",
    "aedat4": "AEDAT 4, *.aedat4, with the package aedat",
    "prophesee": "Prophesee DAT, EVT 2.0 and EVT 3.0, *.dat and *.raw",
    "es": "Event Stream 2, *.es",
    "npz": "arrays t, x, y, p, *.npz",
}
"""The formats by name, and in words."""

SUFFIXES = (".bin", ".aedat", ".aedat4", ".dat", ".raw", ".es", ".npz")


def read_recording(path: str | Path, *, camera: str | None = None, size: tuple[int, int] | None = None) -> Recording:
    """The events of a file. Its format is detected by its first bytes; .bin files have no mark and are known by the suffix.

    Args:
        path: the file.
        camera: for AEDAT 2.0 whose header names no camera: "DVS128", "DAVIS240" and others.
        size: height and width of the sensor, if they are known better than by the file.

    Returns:
        Its events in the order of the file; none if there are none.

    Raises:
        FileNotFoundError: it is missing.
        ModuleNotFoundError: for AEDAT 4 without the package `aedat`.
        DataError: if it has no known format, is cut or damaged, or has an event off the sensor.
    """
    path = Path(path)
    check_is_no_pipe(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    found = _read(path, camera)
    if size is not None:
        found = Recording(found.x, found.y, found.polarity, found.time, size)
    _check_sensor(path, found)
    return found


def _read(path: Path, camera: str | None) -> Recording:
    with path.open("rb") as file:
        begin = file.read(16)
    if begin.startswith(aedat2.MAGIC):
        return aedat2.read_aedat2(path, camera)
    if begin.startswith(aedat31.MAGIC):
        return aedat31.read_aedat31(path)
    if begin.startswith(arrays.AEDAT4_MAGIC):
        return arrays.read_aedat4(path)
    if begin.startswith(event_stream.MAGIC):
        return event_stream.read_event_stream(path)
    if path.suffix.lower() == ".bin":  # without a header: its first event may begin like the shorter marks below
        return read_atis(path)
    if begin.startswith(b"%"):
        return read_prophesee(path)
    if begin.startswith(b"PK"):
        return arrays.read_arrays(path)
    if not begin:
        raise fault(path, 0, "is empty, expected the events of a camera")
    shown = begin.split(b"\n")[0][:16]
    raise data_error(
        path, f"begins with {shown!r}, which no known format does", f"known are: {'; '.join(FORMATS.values())}"
    )


def _check_sensor(path: Path, recording: Recording) -> None:
    if recording.size is None or not len(recording):
        return
    height, width = recording.size
    if int(recording.x.max()) < width and int(recording.y.max()) < height:
        return
    outside = (recording.x >= width) | (recording.y >= height)
    k = int(outside.argmax())
    raise data_error(
        path,
        f"{int(outside.sum())} of {len(recording)} events lie outside the sensor of {height}x{width} (height x width) "
        f"pixels, the first is number {k} at x={recording.x[k]}, y={recording.y[k]}",
        "copy or download it again",
    )
