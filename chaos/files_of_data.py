"""Small data sets in the formats that the library reads, and what it reads from them."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from .damage import Sort
from .workshop import digest

IDX = "train-images-idx3-ubyte"


def make_images(root: Path, count: int, suffix: str = ".png") -> None:
    """Images of 16 x 16 in two classes, `count` of each for training and four for testing."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for split, number in (("train", count), ("test", 4)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(number):
                Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{k:03}{suffix}")


def make_frames(root: Path) -> None:
    draw = np.random.default_rng(0)
    for folder in (root / split / name for split in ("train", "test") for name in ("left", "right")):
        folder.mkdir(parents=True)
        for k in range(2):
            np.savez(folder / f"{k:03}.npz", frames=draw.poisson(0.5, (4, 2, 8, 8)).astype(np.uint8))


def make_recordings(root: Path) -> None:
    draw = np.random.default_rng(0)
    for folder in (root / "N-MNIST" / split / str(digit) for split in ("Train", "Test") for digit in range(10)):
        folder.mkdir(parents=True)
        times = np.sort(draw.integers(0, 300_000, 400))
        x, y, polarity = (draw.integers(0, most, 400) for most in (34, 34, 2))
        events = np.stack([x, y, polarity << 7 | times >> 16, times >> 8 & 255, times & 255], 1)
        (folder / "00000.bin").write_bytes(events.astype(np.uint8).tobytes())


def samples(name: str) -> str:
    """Digest of all samples of a data set."""
    import torch

    from spikedistill.data import load_dataset

    dataset, found = load_dataset(name, "."), hashlib.sha256()
    for part in (dataset.train, dataset.test):
        found.update(part.inputs(torch.arange(len(part))).numpy().tobytes())
        found.update(part.targets.numpy().tobytes())
    return found.hexdigest()


def make_idx(folder: Path) -> None:
    """A file as MNIST has it, with a checksum of its own in place of the official one."""
    images = np.random.default_rng(0).integers(0, 255, (20, 28, 28), np.uint8)
    content = bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes() + images.tobytes()
    (folder / f"{IDX}.gz").write_bytes(gzip.compress(content, mtime=0))
    (folder / "md5").write_text(hashlib.md5(content, usedforsecurity=False).hexdigest())


def idx() -> str:
    from spikedistill.data.sets.idx import Source, read_official

    md5 = {IDX: Path("md5").read_text()}
    source = Source(shows="noise", page="its page", classes=tuple("0123456789"), mean=0.5, std=0.5, md5=md5)
    return digest(read_official(Path(IDX), (20, 28, 28), source).numpy().tobytes())


def make_pickle(folder: Path) -> None:
    """A file as Python 2 and its NumPy wrote it for CIFAR-10: eight images, and a label each."""
    images = np.random.default_rng(0).integers(0, 255, (8, 3072), np.uint8).tobytes()
    shape, length = (b"".join(b"J" + struct.pack("<i", n) for n in sizes) for sizes in ((8, 3072), (len(images),)))
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape + b"\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + length[1:] + images + b"tb"
    )
    labels = b"".join(b"K" + bytes([label]) for label in range(8))
    content = b"\x80\x02}(U\x04data" + array + b"U\x06labels](" + labels + b"eu."
    (folder / "data_batch_1").write_bytes(content)
    (folder / "md5").write_text(hashlib.md5(content, usedforsecurity=False).hexdigest())


def batch() -> str:
    from spikedistill.data.sets.cifar import Official, read_batch

    found = read_batch(Path("data_batch_1"), b"labels", 8, 10, Official(Path("md5").read_text()))
    return digest(found.data.numpy().tobytes() + found.targets.numpy().tobytes())


def _images(suffix: str) -> Callable[[Path], None]:
    return partial(make_images, count=2, suffix=suffix)


SORTS = (
    Sort("an idx file with its checksum", f"{IDX}.gz", make_idx, idx),
    Sort("a CIFAR pickle with its checksum", "data_batch_1", make_pickle, batch),
    Sort("event frames (.npz)", "train/left/001.npz", make_frames, partial(samples, "event_frames")),
    Sort("a PNG image", "train/cat/001.png", _images(".png"), partial(samples, "image_folder")),
    Sort(
        "a JPEG image (no checksum)",
        "train/cat/001.jpg",
        _images(".jpg"),
        partial(samples, "image_folder"),
        sealed=False,
    ),
    Sort(
        "an N-MNIST recording (no checksum)",
        "N-MNIST/Train/3/00000.bin",
        make_recordings,
        partial(samples, "nmnist"),
        sealed=False,
    ),
)
