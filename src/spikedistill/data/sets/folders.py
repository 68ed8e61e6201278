"""Users' own data, one folder per class: images, and event frames."""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ..dataset import Dataset
from ..entries import Entry, register_dataset
from ..files import MOST_VALUES, DataError, check_is_no_pipe, data_error, labelled_files
from ..images import SUFFIXES, read_image

MOST_SIZE = math.isqrt(MOST_VALUES // 3)
WRITE_FRAMES = "write it with numpy.savez(path, frames=...) from an array of event counts [T, 2, H, W]"


def load_image_folder(root: Path, size: int = 32) -> Dataset:
    """Images in `root/train/<class>/` and `root/test/<class>/` (or `val`), in colour and `size` x `size`, read when used.

    An image is scaled until its shorter side is `size`, then cropped at its centre; `read_image` says how every kind of image
    is read. Mean and standard deviation are ImageNet's.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: a class is empty or unknown in training, `size` is not positive or too large.
        BrokenSample: later, an image cannot be read.
    """
    if not 1 <= size <= MOST_SIZE:
        raise UserError(f"size is the images' side in pixels, at most {MOST_SIZE} and at least 1; got {size}")
    read = partial(read_image, size=size)
    train, test, classes = labelled_files("image_folder", root / "train", _test_folder(root), SUFFIXES, read)
    return Dataset(
        name="image_folder",
        train=train,
        test=test,
        classes=classes,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        kind="image",
        channels=3,
        size=(size, size),
        augmentations=("crop", "flip"),
        options={"size": size},
    )


def load_event_frames(root: Path, timesteps: int | None = None) -> Dataset:
    """Event frames in `root/train/<class>/*.npz` and `root/test/<class>/*.npz` (or `val`), read when used.

    Each file holds an array `frames` `[T, 2, H, W]`, events counted per timestep, polarity and pixel. All have one shape, that
    of the first training file that can be read.

    Args:
        root: the folder.
        timesteps: the T that the files must have; by default the one they have.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: a class is empty or unknown in training, no training file can be read, or they have other `timesteps`.
        BrokenSample: later, a file is damaged or has another shape.
    """
    train, test, classes = labelled_files("event_frames", root / "train", _test_folder(root), (".npz",), read_frames)
    first, shape = _first_shape(train.paths)
    T, _, H, W = shape
    if timesteps not in (None, T):
        raise data_error(first, f"holds {T} timesteps, expected {timesteps}", f"ask for {T}, or write the files anew")
    read = partial(read_frames, shape=shape)
    return Dataset(
        name="event_frames",
        train=replace(train, read=read),
        test=replace(test, read=read),
        classes=classes,
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        kind="events",
        channels=2,
        size=(H, W),
        augmentations=("flip", "nda"),
        options={"timesteps": T},
    )


def _first_shape(paths: Sequence[Path]) -> tuple[Path, tuple[int, ...]]:
    """The first file that can be read, and the shape of its frames."""
    fault = None
    for path in paths:
        try:
            return path, tuple(read_frames(path).shape)
        except UserError as error:
            fault = fault or error
    assert fault is not None  # there are files
    raise fault


def read_frames(path: Path, shape: tuple[int, ...] | None = None) -> Tensor:
    """The array `frames` of a file, `[T, 2, H, W]` float32.

    Raises:
        UserError: it is missing, damaged, has another `shape`, or holds anything but finite numbers of at least 0.
    """
    check_is_no_pipe(path)
    try:
        with zipfile.ZipFile(path) as archive:
            counts = _read_counts(path, archive, shape)
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise exceptions of every kind
        raise data_error(path, f"is no readable .npz file ({error})", WRITE_FRAMES) from error
    with np.errstate(over="ignore"):
        frames = counts.astype(np.float32)
    if not np.isfinite(frames).all():
        raise data_error(path, f"'frames' ({counts.dtype}) holds values that are no finite numbers", WRITE_FRAMES)
    if (frames < 0).any():
        raise data_error(path, f"'frames' holds {frames.min()}, expected counts of events, at least 0", WRITE_FRAMES)
    return torch.from_numpy(frames)


def _read_counts(path: Path, archive: zipfile.ZipFile, shape: tuple[int, ...] | None) -> np.ndarray:
    """The array `frames` as stored. What it announces is checked before memory is taken, and its checksum as it is read."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if "frames" not in names:
        raise data_error(path, f"holds no array 'frames' but {', '.join(names) or 'nothing'}", WRITE_FRAMES)
    entry = archive.getinfo("frames.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError("compressed by another method than numpy's")
    with archive.open(entry) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise UserError("an array in another version than 1.0 of numpy's format")
        found, by_columns, dtype = np.lib.format.read_array_header_1_0(member)
        if len(found) != 4 or found[1] != 2 or min(found) < 1:
            raise data_error(path, f"'frames' has shape {list(found)}, expected [T, 2, H, W]", WRITE_FRAMES)
        if shape is not None and found != shape:
            fault = f"'frames' has shape {list(found)}, other files have {list(shape)}"
            raise data_error(path, fault, "give all files one shape")
        if math.prod(found) > MOST_VALUES:
            raise data_error(path, f"'frames' has shape {list(found)}, more than {MOST_VALUES} values", WRITE_FRAMES)
        if dtype.kind not in "biuf":
            raise data_error(path, f"'frames' ({dtype}) holds values that are no finite numbers", WRITE_FRAMES)
        length = math.prod(found) * dtype.itemsize
        if entry.file_size - member.tell() != length:
            raise UserError(f"{entry.file_size} bytes, expected {member.tell() + length} of an array {list(found)}")
        values = np.frombuffer(member.read(length), dtype)
    return values.reshape(found, order="F" if by_columns else "C")


def _test_folder(root: Path) -> Path:
    return root / "val" if (root / "val").is_dir() and not (root / "test").is_dir() else root / "test"


register_dataset(
    Entry(
        name="image_folder",
        load=load_image_folder,
        checked="file names and classes; pixels are not read: --verify reads them",
        files="{train,test}/<class>/*." + "{" + ",".join(suffix[1:] for suffix in SUFFIXES) + "}",
        options=("size",),
        # such as ImageNet, with the network, neuron and schedule of TWKD and ESD on it
        usual={
            "epochs": 100,
            "model.name": "resnet34",
            "model.lif.decay": 0.2,
            "data.size": 224,
            "data.batch_size": 512,
            "optimizer.lr": 0.2,
            "optimizer.weight_decay": 2e-5,
        },
    )
)
register_dataset(
    Entry(
        name="event_frames",
        load=load_event_frames,
        checked="file names and classes, and the frames of one file; the others are not read: --verify reads them",
        files="{train,test}/<class>/*.npz",
        options=("timesteps",),
    )
)
