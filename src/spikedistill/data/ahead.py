"""Reads batches of samples ahead of their use, in worker processes. The number of workers changes nothing in them."""

import math
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from ..seeds import derive_seed
from .dataset import FileSamples, Samples

# Below so many files, reading them takes less time than starting processes.
_WORTH = 2000
_MOST = 8
# Batches that a worker reads before the first of them is taken, and places of shared memory for them: of those that it has
# handed over, the process that trains may not have copied the last one yet.
_AHEAD = 2
_PLACES = _AHEAD + 2


def workers_for(samples: Samples, asked: int | None = None) -> int:
    """How many processes read these samples: as many as asked for; by default one for each core if samples are many files."""
    if not isinstance(samples, FileSamples):
        return 0
    if asked is not None:
        return asked
    return min(os.cpu_count() or 1, _MOST) if len(samples) >= _WORTH else 0


class Ahead:
    """Reads batches, of which workers keep some ready.

    Args:
        samples: the samples.
        workers: processes; with 0 a batch is read when it is asked for.
        seed: of random draws while a sample is read; None for none. A draw depends on it, the epoch and the sample's place alone.
    """

    def __init__(self, samples: Samples, workers: int = 0, seed: int | None = None) -> None:
        self._reading = _Reading(samples, seed)
        self._coming = _Coming()
        self._loader: DataLoader[Any] | None = None
        self._shared: dict[int, Any] = {}  # kept, so that memory of workers is mapped once
        if workers:
            self._loader = DataLoader(
                self._reading,  # type: ignore[arg-type]
                batch_sampler=self._coming,
                num_workers=workers,
                prefetch_factor=_AHEAD,
                collate_fn=_as_read,
                persistent_workers=True,
                worker_init_fn=_ignore_interrupts,
                generator=torch.Generator(),  # not the global one, whose draws belong to training
            )

    def batches(self, chunks: Iterable[Tensor], epoch: int = 0) -> Iterator[Tensor]:
        """The samples at each chunk of places, in order.

        Raises:
            BrokenSample: if one cannot be read.
        """
        if self._loader is None:
            yield from (self._reading.read(indices, epoch) for indices in chunks)
            return
        self._coming.batches = [[(epoch, indices)] for indices in chunks]
        for found in self._loader:
            batch = _raised(found)
            storage = batch.untyped_storage()
            self._shared[storage.data_ptr()] = storage
            yield batch.clone()  # the worker will write the next batch but one there


class _Reading:
    """The samples of a batch, by epoch and places. For PyTorch's loader a whole batch is one item."""

    def __init__(self, samples: Samples, seed: int | None) -> None:
        self.samples = samples
        self.seed = seed
        self._places = _Places()

    def read(self, indices: Tensor, epoch: int) -> Tensor:
        if not isinstance(self.samples, FileSamples):
            return self.samples.inputs(indices)
        places = indices.tolist()
        seeds = [None if self.seed is None else derive_seed(self.seed, epoch, place) for place in places]
        read = [self.samples.sample(place, seed) for place, seed in zip(places, seeds, strict=True)]
        return torch.stack(read, out=None if get_worker_info() is None else self._places.next(read))

    def __getitems__(self, batch: Sequence[tuple[int, Tensor]]) -> Tensor | Exception:
        ((epoch, indices),) = batch
        try:
            return self.read(indices, epoch)
        except Exception as error:  # which would reach the other process with a traceback for a message
            return error


class _Places:
    """Memory of a worker that the processes share, used again and again: new memory takes longer than the copy into it."""

    def __init__(self) -> None:
        self._taken = 0
        self._places: dict[int, Tensor] = {}

    def next(self, samples: Sequence[Tensor]) -> Tensor:
        """Where a batch of these samples goes."""
        first, number = samples[0], self._taken % _PLACES
        self._taken += 1
        shape = len(samples), *first.shape
        place = self._places.get(number)
        if place is None or place.dtype != first.dtype or place.numel() < math.prod(shape):
            place = torch.empty(math.prod(shape), dtype=first.dtype).share_memory_()
            self._places[number] = place
        return place[: math.prod(shape)].view(shape)


class _Coming:
    """The batches of the next epoch."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, Tensor]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, Tensor]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _raised(found: Tensor | Exception) -> Tensor:
    if isinstance(found, Exception):
        raise found
    return found


def _as_read(found: Any) -> Any:
    return found


def _ignore_interrupts(worker: int) -> None:
    """The process that trains ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
