"""Frames `[T, 2, H, W]` of a recording: its events counted by frame, polarity and pixel."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .recording import Recording

ByShare = Literal["number", "even", "time", "even-time"]
"""How a whole recording becomes T frames."""
Slicing = ByShare | Literal["duration"]
"""Also frames of a fixed duration, which need not have seen the whole recording."""


class _Kind(NamedTuple):
    since: int  # the version that first filled frames in this way
    identity: str  # in fingerprints, which must stay what they were


# Goes into a run's manifest, and into the fingerprint that its checkpoints carry. If you change the frames of a slicing,
# raise its version, so that earlier runs are read as they were made. Version 1 called "number" what is "even" now, and
# versions before 3 called "time" what is "even-time" now.
SLICINGS = {
    "number": _Kind(2, "number, the remainder last"),
    "even": _Kind(1, "number"),
    "time": _Kind(3, "time, the remainder last"),
    "even-time": _Kind(1, "time"),
    "duration": _Kind(3, "duration"),
}
SLICING_VERSION = max(kind.since for kind in SLICINGS.values())
"""The version of how recordings are cut into frames."""


def slicing_version(slicing: str | None) -> int:
    """The version that first gave the frames of a slicing, by its identity in a data set's options."""
    return next((kind.since for kind in SLICINGS.values() if kind.identity == slicing), 1)


def frames_of(
    recording: Recording,
    timesteps: int,
    slicing: Slicing,
    size: tuple[int, int],
    milliseconds: float | None = None,
) -> Tensor:
    """Events counted into `[timesteps, 2, H, W]` float32; channel 1 holds the pixels that became brighter.

    Of N events, number n at the time t falls into the frame

    - "number": min(floor(n / floor(N / T)), T - 1), and into the last one if there are fewer than T
    - "even": floor(n T / N)
    - "time": min(floor((t - t_first) / d), T - 1) with d = floor((t_last - t_first) / T), and into the last one if d is 0
    - "even-time": floor((t - t_first) T / (t_last - t_first + 1))
    - "duration": floor((t - t_first) / d) with d milliseconds, and into none from T d on; see `frames_filled`

    "number" and "time" are those of SpikingJelly.

    Args:
        recording: with events inside `size`.
        timesteps: T.
        slicing: which of these.
        size: H and W.
        milliseconds: how long a frame lasts, for "duration".
    """
    N, T = len(recording), timesteps
    cell = (
        recording.y.astype(np.int64) * size[1] + recording.x + recording.polarity.astype(np.int64) * (size[0] * size[1])
    )
    frame = _frame_of_each(recording, T, slicing, milliseconds) if N else np.zeros(0, np.int64)
    cell += frame * (2 * size[0] * size[1])
    if slicing == "duration":
        cell = cell[frame < T]
    counts = np.bincount(cell, minlength=T * 2 * size[0] * size[1])
    return torch.from_numpy(counts.astype(np.float32)).view(T, 2, *size)


def frames_filled(recording: Recording, timesteps: int, milliseconds: float) -> int:
    """How many frames of a fixed duration a recording has, at most `timesteps`: up to that of its last event."""
    last = int(_frame_of_each(recording, timesteps, "duration", milliseconds).max()) if len(recording) else 0
    return min(last + 1, timesteps)


def _frame_of_each(recording: Recording, T: int, slicing: Slicing, milliseconds: float | None) -> np.ndarray:
    N = len(recording)
    number = np.arange(N)
    if slicing == "number":
        share = N // T
        return np.minimum(number // share, T - 1) if share else np.full(N, T - 1)
    if slicing == "even":
        return number * T // N
    elapsed = recording.time - recording.time.min()
    if slicing == "duration":
        assert milliseconds is not None
        return np.floor_divide(elapsed, round(1000 * milliseconds))
    if slicing == "time":
        share = int(elapsed.max()) // T
        return np.minimum(elapsed // share, T - 1) if share else np.full(N, T - 1)
    return elapsed * T // (int(elapsed.max()) + 1)
