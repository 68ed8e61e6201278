"""Data sets that are converted once: recordings of events become frames in files that are mapped into memory.

- `clips.py`: the recordings of a data set, and how they become frames.
- `preparing.py`: makes the files; a killed process is continued by the next.
- `manifest.py`: what such a folder holds.
- `samples.py`: reads them in training.
- `loading.py`: the data set of prepared samples.
"""

from .clips import Asked, Clip, Clips, Cut, Turn
from .loading import OWN, Kind
from .manifest import PreparedManifest
from .preparing import prepare
from .samples import PreparedSamples

__all__ = ["OWN", "Asked", "Clip", "Clips", "Cut", "Kind", "PreparedManifest", "PreparedSamples", "Turn", "prepare"]
