"""Digests of data sets, so that a run is resumed only with the data that it began with."""

import hashlib
import json
from itertools import chain

import torch

from .dataset import Dataset, Samples


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """SHA-256 digests of a data set, of its "train" and its "test" samples.

    Each covers the classes' names, the kind, channels and size of the inputs, the options that shape them (size, timesteps,
    slicing), and of every sample its class and, in memory, its values, or else the name of its file below the data set's folder
    and the file's size. Files are not read, because there can be millions: one replaced by another of the same size goes
    unnoticed. The same data in another folder have the same fingerprint.

    Raises:
        BrokenSample: if a file has vanished since its folder was listed.
    """
    return {"train": _digest(dataset, dataset.train), "test": _digest(dataset, dataset.test)}


def _digest(dataset: Dataset, samples: Samples) -> str:
    digest = hashlib.sha256()
    described = [dataset.classes, dataset.kind, dataset.channels, dataset.size, sorted(dataset.options.items())]
    targets = samples.targets.to(torch.int64).contiguous().numpy().data
    for piece in chain((json.dumps(described).encode(), targets), samples.identity()):
        # its length keeps "ab", "c" and "a", "bc" apart
        digest.update(memoryview(piece).nbytes.to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()
