"""Events in arrays of a .npz file, and those of AEDAT 4, which the package `aedat` reads."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ..array_files import array_names, open_member
from ..files import DataError, data_error
from .recording import Recording

AEDAT4_MAGIC = b"#!AER-DAT4"
_WRITE = "write it with numpy.savez(path, t=..., x=..., y=..., p=...), one value an event in each"


def read_arrays(path: Path) -> Recording:
    """The events of a .npz file with the arrays t (microseconds), x, y and p (1 or true for brighter), `[N]` each.

    Raises:
        DataError: if an array is missing, has another shape than the others, or holds values that are no events.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = array_names(archive)
            absent = [name for name in "txyp" if name not in names]
            if absent:
                raise data_error(path, f"holds {', '.join(names) or 'nothing'}, not {', '.join(absent)}", _WRITE)
            fields = {name: _read(path, archive, name) for name in "txyp"}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise exceptions of every kind
        raise data_error(path, f"is no readable .npz file ({error})", _WRITE) from error
    counts = {name: len(field) for name, field in fields.items()}
    if len(set(counts.values())) > 1:
        raise data_error(path, f"has {counts} values, expected as many of each", _WRITE)
    t, x, y, p = (_whole(path, name, fields[name]) for name in "txyp")
    polarity = np.where(p < 0, 0, p)  # of -1 and 1
    for name, field, most in (("x", x, 2**16), ("y", y, 2**16), ("p", polarity, 2)):
        wrong = np.flatnonzero((field < 0) | (field >= most))
        if len(wrong):
            found = f"{name!r} holds {fields[name][wrong[0]]} at event {wrong[0]}, expected 0 to {most - 1}"
            raise data_error(path, found, _WRITE)
    return Recording(x.astype(np.uint16), y.astype(np.uint16), polarity.astype(np.uint8), t)


def _read(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with open_member(archive, name) as (member, announced):
        if len(announced.shape) != 1:
            raise data_error(path, f"{name!r} has shape {list(announced.shape)}, expected [N]", _WRITE)
        announced.check()
        found: np.ndarray = announced.read(member)
        return found


def _whole(path: Path, name: str, field: np.ndarray) -> np.ndarray:
    if field.dtype.kind not in "biuf" or (field.dtype.kind == "f" and not (field == np.floor(field)).all()):
        raise data_error(path, f"{name!r} ({field.dtype}) holds values that are no whole numbers", _WRITE)
    return field.astype(np.int64)


def read_aedat4(path: Path) -> Recording:
    """The polarity events of a file of AEDAT 4, by the package `aedat`.

    Raises:
        ModuleNotFoundError: if `aedat` is not installed.
        DataError: if it cannot be read, or holds several streams of events.
    """
    try:
        import aedat
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path} is AEDAT 4: pip install 'spikedistill[aedat4]'", name="aedat") from None
    try:
        decoder: Any = aedat.Decoder(path)
        streams = {key: stream for key, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
        if len(streams) != 1:
            raise data_error(path, f"holds {len(streams)} streams of events, expected 1", "split it")
        ((key, stream),) = streams.items()
        packets = [packet["events"] for packet in decoder if packet["stream_id"] == key and "events" in packet]
    except UserError:
        raise
    except Exception as error:  # of a library in another language
        raise data_error(path, f"cannot be read ({error})", "copy or download it again") from error
    size = int(stream["height"]), int(stream["width"])
    if not packets:
        return Recording(
            np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.uint8), np.empty(0, np.int64), size
        )
    events = np.concatenate(packets)
    return Recording(events["x"], events["y"], events["on"].astype(np.uint8), events["t"].astype(np.int64), size)
