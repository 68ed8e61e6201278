"""Prepared samples, read from files that are mapped into memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..dataset import BrokenSample
from .manifest import Part, PreparedManifest, Split


@dataclass(frozen=True, eq=False)
class PreparedSamples:
    """Samples of a prepared folder.

    Attributes:
        folder: the folder.
        parts: its files of these samples.
        places: of each sample among all rows of the parts, `[N]`.
        targets: class of each sample, `[N]`.
        dataset: the name of the data set.
        change: of frames, after they are read.
        lengths: the frames of each sample, `[N]`, if they differ.
    """

    folder: Path
    parts: Sequence[Part]
    places: Tensor
    targets: Tensor
    dataset: str = ""
    change: Callable[[Tensor], Tensor] | None = None
    lengths: Tensor | None = None

    @classmethod
    def of(cls, folder: Path, manifest: PreparedManifest, split: Split) -> "PreparedSamples":
        parts = manifest.parts[split]
        targets = torch.tensor([target for part in parts for target in part.targets], dtype=torch.int64)
        T = manifest.shape[0]
        lengths = torch.tensor([L for part in parts for L in part.lengths or [T] * part.rows], dtype=torch.int64)
        own = None if bool((lengths == T).all()) else lengths
        return cls(folder, parts, torch.arange(len(targets)), targets, manifest.dataset, lengths=own)

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(part.rows for part in self.parts)])

    @cached_property
    def _open(self) -> dict[int, np.ndarray]:
        return {}

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_starts")}

    def inputs(self, indices: Tensor) -> Tensor:
        return torch.stack([self._sample(place) for place in self.places[indices].tolist()])

    def subset(self, indices: Tensor) -> "PreparedSamples":
        lengths = None if self.lengths is None else self.lengths[indices]
        return replace(self, places=self.places[indices], targets=self.targets[indices], lengths=lengths)

    def identity(self) -> Iterator[bytes | memoryview]:
        for part in self.parts:
            yield part.sha256.encode()
        yield self.places.contiguous().numpy().data

    def _sample(self, place: int) -> Tensor:
        k = int(np.searchsorted(self._starts, place, "right")) - 1
        part = self.parts[k]
        try:
            if k not in self._open:
                if (self.folder / part.name).stat().st_size != part.bytes:
                    raise ValueError(f"has other than {part.bytes} bytes")
                self._open[k] = np.load(self.folder / part.name, mmap_mode="r")
            frames = torch.from_numpy(self._open[k][place - int(self._starts[k])].astype(np.float32))
        except (OSError, ValueError) as error:
            raise BrokenSample(
                f"{self.folder / part.name}: {error}; remove {self.folder} and prepare {self.dataset} again",
                self.dataset,
            ) from error
        return frames if self.change is None else self.change(frames)
