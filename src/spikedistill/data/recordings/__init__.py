"""Recordings of event cameras: readers of their files, and frames of their events.

- `recording.py`: `Recording`, and what all readers share.
- `atis.py`, `aedat2.py`, `aedat31.py`, `prophesee.py`, `event_stream.py`, `arrays.py`: a reader for each format.
- `reading.py`: `read_recording`, which detects the format by the content.
- `frames.py`: frames of events.
"""

from .frames import SLICING_VERSION, SLICINGS, frames_of, slicing_version
from .reading import FORMATS, SUFFIXES, read_recording
from .recording import Recording

__all__ = [
    "FORMATS",
    "SLICINGS",
    "SLICING_VERSION",
    "SUFFIXES",
    "Recording",
    "frames_of",
    "read_recording",
    "slicing_version",
]
