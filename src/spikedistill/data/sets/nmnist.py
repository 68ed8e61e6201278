"""N-MNIST: digits seen by an event camera, from the official 40-bit event files (Orchard et al., 2015)."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ..class_folders import Files, labelled_files
from ..dataset import Dataset
from ..entries import Entry, register_dataset
from ..files import MOST_VALUES, data_error, read_bytes

PAGE = "https://www.garrickorchard.com/datasets/n-mnist"
SIDE = 34
OVERFLOW_ROW, OVERFLOW_MICROSECONDS = 240, 2**13  # an entry at this row is no event: it marks an overflow of the clock


class _Slicing(NamedTuple):
    since: int  # the version that first filled frames in this way
    identity: str  # in fingerprints, which must stay what they were


# Goes into a run's manifest, and into the fingerprint that its checkpoints carry. If you change the frames of a
# slicing, raise its version, so that earlier runs are read as they were made. Version 1 called "number" what is "even"
# now.
SLICINGS = {
    "number": _Slicing(2, "number, the remainder last"),
    "even": _Slicing(1, "number"),
    "time": _Slicing(1, "time"),
}
SLICING_VERSION = max(slicing.since for slicing in SLICINGS.values())
"""The version of how recordings are cut into frames."""
MOST_BYTES = 2**24  # bytes of a recording; the official ones have about 20,000
MOST_TIMESTEPS = MOST_VALUES // (2 * SIDE * SIDE)


class Events(NamedTuple):
    """Events in the order of a file, each field `[N]` int64."""

    x: np.ndarray  # column, 0 to 33 from the left
    y: np.ndarray  # row, 0 to 33 from the top
    polarity: np.ndarray  # 1 if the pixel became brighter, else 0
    time: np.ndarray  # microseconds


def load_nmnist(root: Path, timesteps: int = 10, slicing: str = "number") -> Dataset:
    """N-MNIST as frames `[T, 2, 34, 34]` of event counts, from `root/N-MNIST/{Train,Test}/<digit>/<id>.bin`, read when used.

    Any number of recordings is accepted: the whole set has 60,000 + 10,000.

    Args:
        root: the data root.
        timesteps: T, frames per recording.
        slicing: of N events "number" puts floor(N / T) into each frame and the remainder into the last one, as
            SpikingJelly does; "even" spreads the remainder, so that frames differ by one event at most; with "time" all
            frames last equally long.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: if `timesteps` or `slicing` has another value, or a folder is empty or no digit; when samples are
        read, if a file is damaged.
    """
    if not 1 <= timesteps <= MOST_TIMESTEPS:
        raise UserError(
            f"timesteps is the number of frames per recording, at most {MOST_TIMESTEPS} and at least 1; got {timesteps}"
        )
    if slicing not in SLICINGS:
        raise UserError(f"slicing is one of {', '.join(SLICINGS)}; got {slicing!r}")
    folder = root / "N-MNIST"
    read = partial(read_recording, timesteps=timesteps, slicing=slicing)
    train, test, classes, _ = labelled_files(Files("nmnist", (".bin",), read), folder / "Train", folder / "Test")
    if classes != tuple("0123456789"):
        raise data_error(
            folder / "Train", f"holds the folders {', '.join(classes[:12])}, expected 0 to 9", f"unpack {PAGE} there"
        )
    return Dataset(
        name="nmnist",
        train=train,
        test=test,
        classes=classes,
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        kind="events",
        channels=2,
        size=(SIDE, SIDE),
        options={"timesteps": timesteps, "slicing": SLICINGS[slicing].identity},
    )


def slicing_version(dataset: Dataset) -> int:
    """The version of event slicing that first gave the values of this data set."""
    return next((kind.since for kind in SLICINGS.values() if kind.identity == dataset.options.get("slicing")), 1)


def read_recording(path: Path, timesteps: int, slicing: str) -> Tensor:
    """The recording of a file as frames `[timesteps, 2, 34, 34]` float32: events counted per frame, polarity and pixel.

    Raises:
        FileNotFoundError: it is missing.
        UserError: it is damaged.
    """
    return frames_from_events(read_events(path), timesteps, slicing)


def read_events(path: Path) -> Events:
    """The events of a file of five bytes each: x, y, then one bit of polarity and 23 bits of microseconds, big-endian.

    Raises:
        FileNotFoundError: it is missing.
        UserError: if it is empty, is cut inside an event, or has an event outside 34x34 pixels.
    """
    content, again = read_bytes(path, PAGE, MOST_BYTES), f"unpack it again from {PAGE}"
    if not content or len(content) % 5:
        raise data_error(path, f"holds {len(content)} bytes, expected five for each event", again)
    x, y, high, middle, low = np.frombuffer(content, np.uint8).reshape(-1, 5).T.astype(np.int64)
    overflow = y == OVERFLOW_ROW
    time = ((high & 0x7F) << 16 | middle << 8 | low) + OVERFLOW_MICROSECONDS * np.cumsum(overflow)
    x, y, polarity, time = (field[~overflow] for field in (x, y, high >> 7, time))
    if not len(x):
        raise data_error(path, "holds no events, only marks of clock overflow", again)
    outside = np.flatnonzero((x >= SIDE) | (y >= SIDE))
    if len(outside):
        k = outside[0]
        raise data_error(
            path,
            f"{len(outside)} of {len(x)} events lie outside {SIDE}x{SIDE} pixels (one at x={x[k]}, y={y[k]})",
            again,
        )
    return Events(x, y, polarity, time)


def frames_from_events(events: Events, timesteps: int, slicing: str) -> Tensor:
    """Events counted into `[timesteps, 2, 34, 34]` float32; channel 1 holds the pixels that became brighter.

    Of N events number n falls into frame min(floor(n / floor(N / T)), T - 1) with slicing "number", and into the last
    one if there are fewer than T; with "even" into frame floor(n T / N); with "time" one at t falls into frame floor((t
    - t_first) T / (t_last - t_first + 1)).
    """
    number, N = np.arange(len(events.time)), len(events.time)
    match slicing:
        case "number":
            share = N // timesteps
            frame = np.minimum(number // share, timesteps - 1) if share else np.full(N, timesteps - 1)
        case "even":
            frame = number * timesteps // N
        case _:
            elapsed = events.time - events.time.min()
            frame = elapsed * timesteps // (int(elapsed.max()) + 1)
    cell = ((frame * 2 + events.polarity) * SIDE + events.y) * SIDE + events.x
    counts = np.bincount(cell, minlength=timesteps * 2 * SIDE * SIDE)
    return torch.from_numpy(counts.astype(np.float32)).view(timesteps, 2, SIDE, SIDE)


register_dataset(
    Entry(
        name="nmnist",
        about="70,000 digits as events of a camera, 34 x 34, in 10 classes.",
        load=load_nmnist,
        checked="file names and classes; events are not read: --verify reads them",
        files="N-MNIST/{Train,Test}/<digit>/<id>.bin",
        page=PAGE,
        options=("timesteps", "slicing"),
        usual={"epochs": 10, "timesteps": 10, "optimizer.lr": 0.05},
    )
)
