"""The form of every data set: labelled inputs, read by index, and the properties that a network needs."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from .preprocess import Preprocess, Resize


class BrokenSample(UserError):
    """A sample cannot be read.

    Args:
        fault: the file, what is wrong with it and what to do.
        dataset: the name of its data set, for the command that names every broken file.
    """

    def __init__(self, fault: str, dataset: str = "") -> None:
        super().__init__(fault, dataset)  # all arguments, so that it can be pickled between processes
        self.fault = fault
        self.dataset = dataset

    def __str__(self) -> str:
        all_of_them = f"; `spikedistill data {self.dataset} --verify` names every broken file"
        return self.fault + (all_of_them if self.dataset else "")


class Samples(Protocol):
    """Labelled inputs, read by index, in memory or from files.

    Recordings of different length are padded at their end to one T; `lengths` then holds the frames of each, `[N]` int64. Where
    it is missing or None, all have T; see `lengths_of`.
    """

    @property
    def targets(self) -> Tensor:
        """Class of every sample, `[N]` int64."""

    def __len__(self) -> int: ...

    def inputs(self, indices: Tensor) -> Tensor:
        """The samples at `indices` `[B]`: images `[B, C, H, W]` uint8, event frames `[B, T, C, H, W]` float32.

        Raises:
            BrokenSample: if one of them cannot be read.
        """

    def subset(self, indices: Tensor) -> "Samples":
        """A subset: the samples at `indices`, in that order."""

    def identity(self) -> Iterator[bytes | memoryview]:
        """The bytes of these inputs that a fingerprint covers, in pieces: their values, or the names and sizes of their files."""


def lengths_of(samples: Samples) -> Tensor | None:
    """The frames of each sample, `[N]`, after which it is padded; None if all have the same."""
    return getattr(samples, "lengths", None)


def _chosen(lengths: Tensor | None, indices: Tensor) -> Tensor | None:
    return None if lengths is None else lengths[indices]


@dataclass(frozen=True, eq=False)
class TensorSamples:
    """Samples in memory: `data` `[N, ...]`, `targets` `[N]`, and the `lengths` `[N]` of recordings if they differ."""

    data: Tensor
    targets: Tensor
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def inputs(self, indices: Tensor) -> Tensor:
        return self.data[indices]

    def subset(self, indices: Tensor) -> "TensorSamples":
        return TensorSamples(self.data[indices], self.targets[indices], _chosen(self.lengths, indices))

    def identity(self) -> Iterator[bytes | memoryview]:
        yield f"{self.data.dtype} {list(self.data.shape)}".encode()
        yield self.data.contiguous().flatten().view(torch.uint8).numpy().data
        if self.lengths is not None:
            yield self.lengths.contiguous().numpy().data


@dataclass(frozen=True, eq=False)
class FileSamples:
    """Samples in one file each, read when they are used.

    Attributes:
        paths: the files, N of them.
        targets: class of every sample, `[N]`.
        read: returns the sample of a file; raises a ValueError or an OSError if it cannot be read.
        folder: the folder that holds them all; fingerprints use paths relative to it.
        dataset: the name of the data set.
        draw: returns the sample of a file with random draws from a seed; None if there are none to make while it is read.
        lengths: the frames of each recording, if they differ, `[N]`.
    """

    paths: Sequence[Path]
    targets: Tensor
    read: Callable[[Path], Tensor]
    folder: Path = Path()
    dataset: str = ""
    draw: Callable[[Path, int], Tensor] | None = None
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def inputs(self, indices: Tensor) -> Tensor:
        return torch.stack([self.sample(index) for index in indices.tolist()])

    def sample(self, place: int, seed: int | None = None) -> Tensor:
        """The sample at a place, with random draws from a seed if there is one.

        Raises:
            BrokenSample: if it cannot be read.
        """
        draw, path = self.draw, self.paths[place]
        try:
            return self.read(path) if seed is None or draw is None else draw(path, seed)
        except (ValueError, OSError) as error:
            raise self._broken(path, error) from error

    def subset(self, indices: Tensor) -> "FileSamples":
        return replace(
            self,
            paths=[self.paths[index] for index in indices.tolist()],
            targets=self.targets[indices],
            lengths=_chosen(self.lengths, indices),
        )

    def identity(self) -> Iterator[bytes | memoryview]:
        folder = os.path.join(self.folder, "")
        for path in self.paths:
            name = os.fspath(path).removeprefix(folder).replace(os.sep, "/")
            try:
                size = path.stat().st_size
            except OSError as error:
                raise self._broken(path, error) from error
            yield os.fsencode(f"{size} {name}")

    def _broken(self, path: Path, error: Exception) -> BrokenSample:
        fault = str(error)
        return BrokenSample(fault if str(path) in fault else f"{path}: {fault}", self.dataset)


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
        options: the options of `load_dataset` that shape the samples, with the values that a fingerprint covers.
        resize: how images of another size become those of `size`; see `Preprocess`.
        describe: returns sentences for the user on how the files are read, such as "images of 240x320 (height x width) are scaled
            and cropped at the centre to 32x32".
        source: the import path of the class of its training samples, if they came from PyTorch.
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
    options: Mapping[str, Any] = field(default_factory=dict)
    resize: Resize = "crop"
    describe: Callable[[], Sequence[str]] = list
    source: str | None = None

    @property
    def preprocess(self) -> Preprocess:
        """The input of a network trained on this data set, and how other images are converted to it."""
        fill = self.mean if self.resize == "pad" else ()
        return Preprocess(self.kind, self.channels, self.size, self.resize, fill)
