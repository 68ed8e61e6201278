"""CIFAR-10 and CIFAR-100 from their official Python files, whose pickles are read without executing anything that they name."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dataset import Dataset, TensorSamples
from ..entries import Entry, register_dataset
from ..files import data_error, read_all, read_bytes, verify_md5
from ..pickles import ByteArray, ForbiddenNameError, load_plain

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
AGAIN = f"download it again from {PAGE}"
MOST_BYTES = 2**28  # the largest file has 155 MB


@dataclass(frozen=True)
class Official:
    """The checksums that identify an official file."""

    md5: str  # of the file
    content: str | None = None  # of a rewritten copy: of its class names, or of its images and labels in any order


CIFAR10 = {
    "batches.meta": Official(
        "5ff9c542aee3614f3951f8cda6e48888", "bb3914949cecedee6d1257f7f5fdb8f43fa3b2c8095fd1763161caf1b873fe59"
    ),
    "data_batch_1": Official("c99cafc152244af753f735de768cd75f"),
    "data_batch_2": Official("d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": Official("54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": Official("634d18415352ddfa80567beed471001a"),
    "data_batch_5": Official("482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": Official(
        "40351d587109b95175f43aff81a1287e", "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f"
    ),
}
CIFAR100 = {
    "meta": Official(
        "7973b15100ade9c7d40fb424638fde48", "fbe8ad23bbaf24969898a386833b49c3aaf6ad1119d43f7b41cdea1b3416d578"
    ),
    "train": Official(
        "16019d7e3df5f24257cddd939b257f8d", "6d2a03c47c105e4c34d3a2ff16c2803e8df0e5d6fa0c631e46663a327aeac573"
    ),
    "test": Official(
        "f0ef6b0ae62326f3e7ffdfab6717acfc", "381b7d98ce1e9b98232a8df0db0a22992654c39ff2433270656ab8ace5a45e65"
    ),
}


def load_cifar10(root: Path) -> Dataset:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32, 10 classes, from `root/cifar-10-batches-py`.

    Every file is verified by its published md5. A rewritten test batch has another md5, and passes if it holds the official images
    with their labels, in any order; a rewritten `batches.meta` passes if it holds the official names. Mean and standard
    deviation are those of the papers' code (the latter a mean over images of each image's own).

    Raises:
        FileNotFoundError: a file is missing.
        UserError: if files are damaged, not the official ones, or name something for Python to run.
    """
    folder = root / "cifar-10-batches-py"
    names = partial(read_names, folder / "batches.meta", b"label_names", 10, CIFAR10["batches.meta"])
    batches = [
        partial(read_batch, folder / name, b"labels", 10_000, 10, official)
        for name, official in CIFAR10.items()
        if name != "batches.meta"
    ]
    classes, *parts, test = read_all([names, *batches])
    train = TensorSamples(torch.cat([part.data for part in parts]), torch.cat([part.targets for part in parts]))
    return _dataset("cifar10", train, test, classes, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))


def load_cifar100(root: Path) -> Dataset:
    """CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32, 100 fine classes, from `root/cifar-100-python`.

    Every file is verified by its published md5. A rewritten file has another md5, and passes if it holds the official images with
    their fine labels, in any order, or the official names.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: if files are damaged, not the official ones, or name something for Python to run.
    """
    folder = root / "cifar-100-python"
    classes, train, test = read_all(
        [
            partial(read_names, folder / "meta", b"fine_label_names", 100, CIFAR100["meta"]),
            partial(read_batch, folder / "train", b"fine_labels", 50_000, 100, CIFAR100["train"]),
            partial(read_batch, folder / "test", b"fine_labels", 10_000, 100, CIFAR100["test"]),
        ]
    )
    return _dataset("cifar100", train, test, classes, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))


def _dataset(
    name: str,
    train: TensorSamples,
    test: TensorSamples,
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Dataset:
    augmentations = ("crop", "flip", "autoaugment", "cutout")
    return Dataset(name, train, test, classes, mean, std, "image", 3, (32, 32), augmentations)


def read_batch(
    path: Path, labels_key: bytes, count: int, num_classes: int, official: Official | None = None
) -> TensorSamples:
    """The images `[count, 3, 32, 32]` and labels of one file, checked.

    Args:
        path: the file.
        labels_key: the key of the labels.
        count: how many images it must hold.
        num_classes: labels lie in [0, num_classes).
        official: the checksums that it must have, if any.

    Raises:
        FileNotFoundError: it is missing.
        UserError: if it is anything but such a file.
    """
    content = read_bytes(path, PAGE, MOST_BYTES)
    batch = safe_unpickle(path, content)
    images, labels = batch.get(b"data"), batch.get(labels_key)
    images = images.array if isinstance(images, ByteArray) else None
    if images is None or images.shape != (count, 3072):
        found = "no array" if images is None else f"an array of shape {list(images.shape)}"
        raise data_error(path, f"holds {found} under 'data', expected [{count}, 3072]", AGAIN)
    if not isinstance(labels, list) or len(labels) != count:
        found = f"{len(labels)} labels" if isinstance(labels, list) else "no list of labels"
        raise data_error(path, f"holds {found} under '{labels_key.decode()}' for {count} images", AGAIN)
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < num_classes]
    if wrong:
        # a label of another type or size may be too long for a message
        shown = (
            repr(wrong[0]) if isinstance(wrong[0], int | bytes) and sys.getsizeof(wrong[0]) < 100 else "something else"
        )
        raise data_error(path, f"holds label {shown}, expected 0 to {num_classes - 1}", AGAIN)
    if official is not None:
        _verify(path, content, official, lambda: content_digest(images, labels))
    return TensorSamples(torch.from_numpy(images.reshape(count, 3, 32, 32).copy()), torch.tensor(labels))


def read_names(path: Path, key: bytes, num_classes: int, official: Official) -> tuple[str, ...]:
    """The classes' names in a file of names, checked like `read_batch`."""
    content = read_bytes(path, PAGE, MOST_BYTES)
    names = safe_unpickle(path, content).get(key)
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, bytes) for name in names):
        raise data_error(path, f"holds no list of {num_classes} names under '{key.decode()}'", AGAIN)
    _verify(path, content, official, lambda: hashlib.sha256(b"\n".join(names)).hexdigest())
    return tuple(name.decode() for name in names)


def content_digest(images: np.ndarray, labels: list[int]) -> str:
    """SHA-256 of images `[N, 3072]` with their labels, independent of their order.

    It is that of the sorted SHA-256 of each label (one byte) followed by its image.
    """
    pairs = zip(labels, images, strict=True)
    return hashlib.sha256(
        b"".join(sorted(hashlib.sha256(bytes([k]) + x.tobytes()).digest() for k, x in pairs))
    ).hexdigest()


def _verify(path: Path, content: bytes, official: Official, digest: Callable[[], str]) -> None:
    """Check a file by its md5 or, if a rewritten copy is allowed, by the `digest` of its content.

    Raises:
        UserError: if it is not the official one.
    """
    if official.content is None or digest() != official.content:
        verify_md5(path, content, official.md5, PAGE)


def safe_unpickle(path: Path, content: bytes) -> dict[bytes, Any]:
    """The dictionary in an official file: lists, numbers, bytes and arrays, built without running anything it names.

    Raises:
        UserError: if it names anything else to import, is no pickle, or holds no dictionary.
    """
    try:
        batch = load_plain(content)
    except ForbiddenNameError as error:
        raise data_error(
            path,
            f"asks Python to import {str(error)!r}, which no official file does, and was refused",
            f"delete it and download it from {PAGE}",
        ) from None
    except Exception as error:  # damaged pickles raise exceptions of every kind
        raise data_error(path, f"is damaged ({error or type(error).__name__})", AGAIN) from error
    if not isinstance(batch, dict):
        raise data_error(path, f"holds a {type(batch).__name__}, expected a dictionary", AGAIN)
    return batch


_USUAL = {"epochs": 300, "model.name": "resnet18"}
register_dataset(
    Entry(
        name="cifar10",
        about="60,000 colour images of 32 x 32 in 10 classes.",
        load=load_cifar10,
        files="cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}",
        page=PAGE,
        usual=_USUAL,
    )
)
register_dataset(
    Entry(
        name="cifar100",
        about="60,000 colour images of 32 x 32 in 100 classes.",
        load=load_cifar100,
        files="cifar-100-python/{train,test,meta}",
        page=PAGE,
        usual=_USUAL,
    )
)
