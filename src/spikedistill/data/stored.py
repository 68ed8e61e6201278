"""Samples of one large array, which stays in its file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from .array_files import Announced
from .dataset import BrokenSample

AT_ONCE = 2**25  # bytes per read if all samples are read


@dataclass(frozen=True, eq=False)
class StoredSamples:
    """Samples in one large .npy file, read when they are used.

    Attributes:
        path: the file.
        array: what its header announced.
        convert: makes the inputs `[B, C, H, W]` or `[B, T, C, H, W]` of stored values `[B, ...]`.
        rows: the place of each sample in the file, `[N]`.
        targets: class of each sample, `[N]`.
    """

    path: Path
    array: Announced
    convert: Callable[[np.ndarray], Tensor]
    rows: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def inputs(self, indices: Tensor) -> Tensor:
        return self.convert(self._read(self.rows[indices]))

    def subset(self, indices: Tensor) -> "StoredSamples":
        return replace(self, rows=self.rows[indices], targets=self.targets[indices])

    def identity(self) -> Iterator[bytes | memoryview]:
        yield f"{self.array.dtype} {[len(self.rows), *self.array.shape[1:]]}".encode()
        for rows in self.rows.split(max(1, AT_ONCE // self._bytes)):
            yield self._read(rows).tobytes()

    @property
    def _bytes(self) -> int:
        """Of one sample."""
        return self.array.length // self.array.shape[0]

    def _read(self, rows: Tensor) -> np.ndarray:
        try:
            with self.path.open("rb") as file:
                parts = []
                for row in rows.tolist():
                    file.seek(self.array.start + row * self._bytes)
                    parts.append(file.read(self._bytes))
        except OSError as error:
            raise BrokenSample(f"{self.path}: {error}", "arrays") from error
        content = b"".join(parts)
        if len(content) != len(rows) * self._bytes:
            raise BrokenSample(f"{self.path}: is shorter than when it was opened; bring it back", "arrays")
        return np.frombuffer(content, self.array.dtype).reshape(len(rows), *self.array.shape[1:])
