"""What a data set is to the rest of the library: labelled inputs, read by index, and what a network must know about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor


class Samples(Protocol):
    """Labelled inputs, read by index: in memory or from files, the rest of the library need not know."""

    @property
    def targets(self) -> Tensor:
        """Class of every sample, `[N]` int64."""

    def __len__(self) -> int: ...

    def inputs(self, indices: Tensor) -> Tensor:
        """The samples at `indices` `[B]`: images `[B, C, H, W]` uint8, event frames `[B, T, C, H, W]` float32."""

    def subset(self, indices: Tensor) -> "Samples":
        """The samples at `indices` as samples of their own, in that order."""


@dataclass(frozen=True, eq=False)
class TensorSamples:
    """Samples in memory: `data` `[N, ...]` and `targets` `[N]`."""

    data: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def inputs(self, indices: Tensor) -> Tensor:
        return self.data[indices]

    def subset(self, indices: Tensor) -> "TensorSamples":
        return TensorSamples(self.data[indices], self.targets[indices])


@dataclass(frozen=True, eq=False)
class FileSamples:
    """Samples in one file each, read when asked for: `paths` (N of them), `targets` `[N]`, `read(path) -> tensor`."""

    paths: Sequence[Path]
    targets: Tensor
    read: Callable[[Path], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def inputs(self, indices: Tensor) -> Tensor:
        return torch.stack([self.read(self.paths[index]) for index in indices.tolist()])

    def subset(self, indices: Tensor) -> "FileSamples":
        return FileSamples([self.paths[index] for index in indices.tolist()], self.targets[indices], self.read)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its official split.

    Attributes:
        name: the name it was loaded by.
        train: training samples; hold-out sets are split from them, never from the test samples.
        test: test samples.
        classes: the classes' names; class k is `classes[k]`.
        mean: mean of each channel of the inputs scaled to [0, 1]; zeros for event frames, whose counts stay as they are.
        std: standard deviation of each channel of the inputs scaled to [0, 1]; ones for event frames.
        kind: "image" or "events".
        channels: channels of one image, or of one event frame (two polarities).
        size: height and width in pixels.
        augmentations: names for `augment` that suit the training samples, as published for this data set.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: Literal["image", "events"]
    channels: int
    size: tuple[int, int]
    augmentations: tuple[str, ...] = ()
