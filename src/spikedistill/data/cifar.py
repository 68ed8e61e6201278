"""CIFAR-10 and CIFAR-100 from their official Python files, read without running what a pickle asks for."""

import io
import math
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from .dataset import Dataset, TensorSamples
from .files import data_error, read_bytes, verify_md5

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
AGAIN = f"download it again from {PAGE}"

# The test batch has none: it is checked by its shape and its 1,000 images per class.
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}


def load_cifar10(root: Path) -> Dataset:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32, 10 classes, from `root/cifar-10-batches-py`.

    The md5 of the training batches is verified, the test batch by its shape and number of images per class. Mean and
    standard deviation are those of the papers' code (the latter a mean over images of each image's own).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, not the official one, or asks Python to run something.
    """
    folder = root / "cifar-10-batches-py"
    classes = _read_classes(folder / "batches.meta", b"label_names", 10)
    batches = [read_batch(folder / name, b"labels", 10_000, 10, md5) for name, md5 in CIFAR10_MD5.items()]
    test = read_batch(folder / "test_batch", b"labels", 10_000, 10)
    check_balance(folder / "test_batch", test, 10)
    train = TensorSamples(torch.cat([batch.data for batch in batches]), torch.cat([batch.targets for batch in batches]))
    return _dataset("cifar10", train, test, classes, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))


def load_cifar100(root: Path) -> Dataset:
    """CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32, 100 fine classes, from `root/cifar-100-python`.

    The files are checked by their shapes and their numbers of images per class.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, not the official one, or asks Python to run something.
    """
    folder = root / "cifar-100-python"
    classes = _read_classes(folder / "meta", b"fine_label_names", 100)
    train = read_batch(folder / "train", b"fine_labels", 50_000, 100)
    check_balance(folder / "train", train, 100)
    test = read_batch(folder / "test", b"fine_labels", 10_000, 100)
    check_balance(folder / "test", test, 100)
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


def read_batch(path: Path, labels_key: bytes, count: int, num_classes: int, md5: str | None = None) -> TensorSamples:
    """The images `[count, 3, 32, 32]` and labels of one file, checked.

    Args:
        path: the file.
        labels_key: the entry that holds the labels.
        count: how many images it must hold.
        num_classes: labels lie in [0, num_classes).
        md5: of the official file, verified where given.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is anything but such a file.
    """
    content = read_bytes(path, PAGE)
    batch = safe_unpickle(path, content)
    images, labels = batch.get(b"data"), batch.get(labels_key)
    images = images.array if isinstance(images, _Array) else None
    if images is None or images.shape != (count, 3072):
        found = "no array" if images is None else f"an array of shape {list(images.shape)}"
        raise data_error(path, f"holds {found} under 'data', expected [{count}, 3072]", AGAIN)
    if not isinstance(labels, list) or len(labels) != count:
        found = f"{len(labels)} labels" if isinstance(labels, list) else "no list of labels"
        raise data_error(path, f"holds {found} under '{labels_key.decode()}' for {count} images", AGAIN)
    wrong = next((label for label in labels if type(label) is not int or not 0 <= label < num_classes), None)
    if wrong is not None:
        raise data_error(path, f"holds label {wrong!r}, expected 0 to {num_classes - 1}", AGAIN)
    if md5 is not None:
        verify_md5(path, content, md5, PAGE)
    return TensorSamples(torch.from_numpy(images.reshape(count, 3, 32, 32).copy()), torch.tensor(labels))


def check_balance(path: Path, samples: TensorSamples, num_classes: int) -> None:
    """Check that every class has the same number of samples, as in the official file.

    Raises:
        ValueError: naming the first class that has not.
    """
    counts = torch.bincount(samples.targets, minlength=num_classes)
    expected = len(samples) // num_classes
    if (counts != expected).any():
        label = int((counts != expected).nonzero()[0])
        raise data_error(path, f"holds {counts[label]} images of class {label}, expected {expected}", AGAIN)


def _read_classes(path: Path, key: bytes, num_classes: int) -> tuple[str, ...]:
    names = safe_unpickle(path, read_bytes(path, PAGE)).get(key)
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, bytes) for name in names):
        raise data_error(path, f"holds no list of {num_classes} names under '{key.decode()}'", AGAIN)
    return tuple(name.decode("utf-8", "replace") for name in names)


class _Dtype:
    """Stands in for `numpy.dtype` in a pickle."""

    def __init__(self, code: bytes, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which unsigned bytes do not have."""


class _Array:
    """Stands in for `numpy.ndarray` in a pickle, and takes plain unsigned bytes alone."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, data = state
        if dtype.code != b"u1" or fortran_order or math.prod(shape) != len(data):
            raise pickle.UnpicklingError("an array is not made of unsigned bytes, or does not match its own shape")
        self.array = np.frombuffer(data, np.uint8).reshape(shape)


class _Unpickler(pickle.Unpickler):
    """Knows the three names of an official file, and gives stand-ins for them: nothing that a pickle names is ever called."""

    STAND_INS: ClassVar[dict[tuple[str, str], type]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.STAND_INS:
            raise _ForbiddenNameError(f"{module}.{name}")
        return self.STAND_INS[module, name]


class _ForbiddenNameError(Exception):
    pass


def safe_unpickle(path: Path, content: bytes) -> dict[bytes, Any]:
    """The dictionary in an official file: lists, numbers, bytes and arrays, built without running anything it names.

    Raises:
        ValueError: it names something else to be imported, is no pickle, or holds no dictionary.
    """
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except _ForbiddenNameError as error:
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
