"""MNIST and Fashion-MNIST from their idx files (format: http://yann.lecun.com/exdb/mnist)."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..dataset import Dataset, TensorSamples
from ..entries import Entry, register_dataset
from ..files import data_error, read_all, read_bytes, verify_md5

UNSIGNED_BYTE = 0x08
MOST_BYTES = 2**26  # decompressed; the largest file has 47 MB


@dataclass(frozen=True)
class Source:
    shows: str
    page: str
    classes: tuple[str, ...]
    mean: float
    std: float
    md5: dict[str, str]  # of the decompressed file, so that a file compressed anew, or not at all, counts as official


SOURCES = {
    "fashion_mnist": Source(
        shows="clothes",
        page="https://github.com/zalandoresearch/fashion-mnist",
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        mean=0.2860,
        std=0.3530,
        md5={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
    "mnist": Source(
        shows="handwritten digits",
        page="https://ossci-datasets.s3.amazonaws.com/mnist",  # a copy of yann.lecun.com, which is no longer reachable
        classes=tuple("0123456789"),
        mean=0.1307,
        std=0.3081,
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
}


def load_idx(root: Path, name: str) -> Dataset:
    """MNIST (LeCun et al., 1998) or Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 grey images of 28x28, 10 classes.

    Reads the four official files of `root/<name>/`, compressed or not, and verifies the md5 of their decompressed content.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: if files are damaged, or not the official ones.
    """
    source = SOURCES[name]
    files = [
        partial(read_official, root / name / f"{split}-{content}-ubyte", (count, *shape), source)
        for split, count in (("train", 60_000), ("t10k", 10_000))
        for content, shape in (("images-idx3", (28, 28)), ("labels-idx1", ()))
    ]
    images, labels, test_images, test_labels = read_all(files)
    return Dataset(
        name=name,
        train=TensorSamples(images[:, None], labels.long()),
        test=TensorSamples(test_images[:, None], test_labels.long()),
        classes=source.classes,
        mean=(source.mean,),
        std=(source.std,),
        kind="image",
        channels=1,
        size=(28, 28),
    )


def read_official(stem: Path, shape: tuple[int, ...], source: Source) -> Tensor:
    """The content of the file at `stem`, with or without .gz, checked to have that shape and to be the official one."""
    compressed = stem.with_name(stem.name + ".gz")
    path = stem if stem.is_file() and not compressed.is_file() else compressed
    content = read_bytes(path, source.page, MOST_BYTES)
    values = parse_idx(path, content, shape, source.page)
    if values.ndim == 1 and values.max() >= len(source.classes):
        raise data_error(
            path,
            f"holds label {values.max()}, expected 0 to {len(source.classes) - 1}",
            f"download it again from {source.page}",
        )
    verify_md5(path, content, source.md5[stem.name], source.page)
    return torch.from_numpy(values)


def parse_idx(path: Path, content: bytes, shape: tuple[int, ...], page: str) -> np.ndarray:
    """The unsigned bytes of an idx file: two zero bytes, a type, the number of axes, each length (32 bit big-endian), the data.

    Args:
        path: the file, for errors.
        content: its bytes, decompressed.
        shape: the shape that it must have.
        page: the official page, for errors.

    Raises:
        UserError: if it is no idx file of unsigned bytes, has another shape, or its data is longer or shorter than
        that.
    """
    again = f"download it again from {page}"
    magic, expected_magic = content[:4], bytes([0, 0, UNSIGNED_BYTE, len(shape)])
    if magic != expected_magic:
        raise data_error(
            path, f"starts with {magic.hex()}, an idx file of {_words(shape)} with {expected_magic.hex()}", again
        )
    header = 4 + 4 * len(shape)
    found = tuple(int(n) for n in np.frombuffer(content[4:header], ">u4")) if len(content) >= header else ()
    if found != shape:
        raise data_error(path, f"announces {_words(found)}, expected {_words(shape)}", again)
    if len(content) - header != math.prod(shape):
        raise data_error(
            path, f"holds {len(content) - header} bytes of data, its header announces {math.prod(shape)}", again
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _words(shape: tuple[int, ...]) -> str:
    if not shape:
        return "nothing"
    return f"{shape[0]} labels" if len(shape) == 1 else f"{shape[0]} images of {'x'.join(map(str, shape[1:]))}"


for _name, _source in SOURCES.items():
    register_dataset(
        Entry(
            name=_name,
            about=f"70,000 grey images of 28 x 28 in 10 classes: {_source.shows}.",
            load=partial(load_idx, name=_name),
            files=f"{_name}/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte.gz",
            page=_source.page,
            usual={"epochs": 5, "optimizer.lr": 0.05},
        )
    )
