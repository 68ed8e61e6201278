"""What a data set of recordings is made of, before it is prepared."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ...files import sha256
from ...options import OptionValue
from ..recordings import Recording, frames_of, read_recording
from ..recordings.frames import Slicing, frames_filled

Turn = Literal["as stored", "spikingjelly"]
"""How pixels are turned before they are counted: not at all, or as SpikingJelly turns those of CIFAR10-DVS."""


class Clip(NamedTuple):
    """A recording, or a part of one, that becomes a sample.

    Attributes:
        file: its path below the folder of recordings.
        target: its class.
        start, stop: the first microsecond of the part, and the first after it; None for the whole recording.
    """

    file: str
    target: int
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True)
class Cut:
    """How a clip becomes frames.

    Attributes:
        timesteps: T.
        slicing: see `frames_of`.
        milliseconds: how long a frame lasts, if that is fixed.
        size: height and width of frames.
        sensor: height and width of the sensor.
        camera: of AEDAT 2.0 files whose header names none.
        turn: how pixels are turned.
    """

    timesteps: int
    slicing: Slicing
    size: tuple[int, int]
    sensor: tuple[int, int]
    milliseconds: float | None = None
    camera: str | None = None
    turn: Turn = "as stored"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`[T, 2, H, W]`."""
        return (self.timesteps, 2, *self.size)

    @property
    def is_counts(self) -> bool:
        """Whether frames hold whole numbers."""
        return self.size == self.sensor

    def read(self, path: Path) -> Recording:
        """The recording of a file.

        Raises:
            FileNotFoundError: it is missing.
            DataError: it is damaged.
        """
        found = read_recording(path, camera=self.camera, size=self.sensor)
        if self.turn == "spikingjelly":
            return Recording(
                np.subtract(self.sensor[1] - 1, found.y, dtype=np.uint16, casting="unsafe"),
                np.subtract(self.sensor[0] - 1, found.x, dtype=np.uint16, casting="unsafe"),
                1 - found.polarity,
                found.time,
                found.size,
            )
        return found

    def frames(self, recording: Recording, clip: Clip) -> Tensor:
        """Frames `[T, 2, H, W]` float32 of a clip of its recording."""
        frames = frames_of(_part(recording, clip), self.timesteps, self.slicing, self.sensor, self.milliseconds)
        if self.is_counts:
            return frames
        return F.interpolate(frames, self.size, mode="bilinear", antialias=True)

    def length(self, recording: Recording, clip: Clip) -> int:
        """How many of a clip's frames lie before its end; the others are padding."""
        if self.milliseconds is None:
            return self.timesteps
        return frames_filled(_part(recording, clip), self.timesteps, self.milliseconds)


def _part(recording: Recording, clip: Clip) -> Recording:
    if clip.start is None or clip.stop is None:
        return recording
    inside = (recording.time >= clip.start) & (recording.time < clip.stop)
    fields = (recording.x, recording.y, recording.polarity, recording.time)
    x, y, polarity, time = (values[inside] for values in fields)
    return Recording(x, y, polarity, time, recording.size)


@dataclass(frozen=True)
class Clips:
    """The clips of a data set.

    Attributes:
        folder: of its recordings.
        train, test: the clips.
        classes: names of the classes.
        cut: how clips become frames.
    """

    folder: Path
    train: tuple[Clip, ...]
    test: tuple[Clip, ...]
    classes: tuple[str, ...]
    cut: Cut


@dataclass(frozen=True)
class Asked:
    """What a user wants of a data set, known before its recordings are.

    Attributes:
        dataset: its name.
        timesteps: T.
        slicing: how recordings become frames.
        milliseconds: how long a frame lasts, for "duration".
        size: height and width of frames; None for those of the sensor.
        own: options of this data set, such as which split.
    """

    dataset: str
    timesteps: int
    slicing: Slicing
    milliseconds: float | None
    size: tuple[int, int] | None
    own: Mapping[str, OptionValue] = field(default_factory=dict)

    def options(self) -> dict[str, str | int | float | list[int] | None]:
        """All but the name, as the manifest has them."""
        return {
            "timesteps": self.timesteps,
            "slicing": self.slicing,
            "milliseconds": self.milliseconds,
            "size": None if self.size is None else list(self.size),
            **self.own,
        }

    def folder(self, root: Path) -> Path:
        """The folder of the prepared samples: one for each choice of options, below `root/.prepared`, which is no class."""
        digest = sha256(json.dumps(self.options(), sort_keys=True).encode())[:8]
        return root / ".prepared" / f"{self.dataset}-T{self.timesteps}-{self.slicing}-{digest}"
