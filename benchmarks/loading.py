"""Images per second that training is given, from a folder of JPEGs of ImageNet's size that this benchmark writes."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spikedistill.data import Batches, load_dataset
from spikedistill.data.resized_crop import read_resized_crop
from spikedistill.seeds import derive_seed

from .results import commit, machine, versions

_CLASSES, _HEIGHT, _WIDTH, _SIZE, _BATCH = 100, 350, 400, 224, 64


def write_images(folder: Path, count: int) -> None:
    """Write so many JPEGs of 400 x 350 in 100 classes, unless they are there: soft colours with some grain, as photos have."""
    from PIL import Image

    dice = np.random.default_rng(0)
    for k in range(count):
        name = f"n{k % _CLASSES:08d}/{k}.JPEG"
        # each class also has an image to test on
        for split in ("train", "val") if k < _CLASSES else ("train",):
            place = folder / "imagenet" / split / name
            if place.is_file():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            soft = Image.fromarray(dice.integers(0, 256, (12, 14, 3), dtype=np.uint8)).resize(
                (_WIDTH, _HEIGHT), Image.Resampling.BICUBIC
            )
            grain = dice.integers(-12, 13, (_HEIGHT, _WIDTH, 1))
            levels = (np.asarray(soft).astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
            Image.fromarray(levels).save(place, "JPEG", quality=90)


class _Plain(Dataset[tuple[Tensor, int]]):
    """The same images for a plain loader of PyTorch."""

    def __init__(self, paths: Sequence[Path], targets: Sequence[int]) -> None:
        self.paths, self.targets = paths, targets

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return read_resized_crop(self.paths[k], int(torch.randint(2**62, ())), _SIZE), self.targets[k]


def measure_loading(
    folder: Path, count: int, rounds: int, workers: Sequence[int], out: Path, command: str
) -> list[dict[str, Any]]:
    """Read epochs of so many images in each way in turn, and write images per second and resident memory as lines of JSON.

    Args:
        folder: the data root, into which images are written if they are not there.
        count: images.
        rounds: epochs of each way.
        workers: numbers of processes.
        out: the file of lines.
        command: what is run.

    Returns:
        A row for each way. "bare" reads, crops and scales in one process without anything around it.
    """
    torch.set_num_threads(1)
    write_images(folder, count)
    samples = load_dataset("imagenet", folder, size=_SIZE).train
    epoch = [0]
    ways: dict[str, Callable[[], Iterator[Any]]] = {"bare": lambda: _bare(samples.paths, epoch[0])}  # type: ignore[attr-defined]
    for number in (0, *workers):
        ours = Batches(samples, _BATCH, 0, lambda: (epoch[0], 0), workers=number, draws=True)
        ways[f"ours, {number} workers"] = ours.__iter__
    plain = _Plain(samples.paths, samples.targets.tolist())  # type: ignore[attr-defined]
    for number in workers:
        loader = DataLoader(plain, _BATCH, shuffle=True, num_workers=number, persistent_workers=True)
        ways[f"torch DataLoader, {number} workers"] = loader.__iter__
    rates: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, list[float]] = {name: [] for name in ways}
    for epoch[0] in range(rounds):
        for name, way in ways.items():
            start, seen = time.perf_counter(), 0
            for batch in way():
                seen += len(batch[0])
            rates[name].append(seen / (time.perf_counter() - start))
            memory[name].append(_resident())
    rows = []
    for name, values in rates.items():
        low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        row = {"way": name, "images_per_second": round(middle, 1), "low": round(low, 1), "high": round(high, 1)}
        rows.append(row | {"resident_mib": [round(value) for value in memory[name]]})
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command, "images": len(samples)}
    about["started"] = datetime.now(UTC).isoformat(timespec="seconds")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(line) + "\n" for line in (about, *rows)))
    return rows


def _bare(paths: Sequence[Path], epoch: int) -> Iterator[tuple[Tensor]]:
    for k, path in enumerate(paths):
        yield (read_resized_crop(path, derive_seed(0, epoch, k), _SIZE).unsqueeze(0),)


def _resident() -> float:
    """Resident memory of this process in MiB; that of workers is not in it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
