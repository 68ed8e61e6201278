"""Users' own data, one folder per class: images, and event frames."""

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset
from .files import data_error, labelled_files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def load_image_folder(root: Path, size: int = 32) -> Dataset:
    """Images in `root/train/<class>/` and `root/test/<class>/` (or `val`), made colour and `size` x `size`, read when used.

    An image is scaled until its shorter side is `size`, then cropped at its centre. Mean and standard deviation are
    ImageNet's.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a class is empty or unknown in training, `size` is not positive; later, an image cannot be read.
    """
    if size < 1:
        raise ValueError(f"size is the images' side in pixels, at least 1; got {size}")
    read = partial(read_image, size=size)
    train, test, classes = labelled_files(root / "train", _test_folder(root), IMAGE_SUFFIXES, read)
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
    )


def read_image(path: Path, size: int) -> Tensor:
    """The image of a file, `[3, size, size]` uint8.

    Raises:
        ValueError: it is missing, damaged or no image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow's decoders raise exceptions of every kind
        raise data_error(path, f"is no readable image ({error})", "replace or remove it") from error
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def load_event_frames(root: Path, timesteps: int | None = None) -> Dataset:
    """Event frames in `root/train/<class>/*.npz` and `root/test/<class>/*.npz` (or `val`), read when used.

    Each file holds an array `frames` `[T, 2, H, W]`, events counted per timestep, polarity and pixel; all have one shape.

    Args:
        root: the folder.
        timesteps: the T that the files must have; by default the one they have.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a class is empty or unknown in training, or the first file is damaged or has other `timesteps`; later,
            a file is damaged or has another shape than the first.
    """
    train, test, classes = labelled_files(root / "train", _test_folder(root), (".npz",), read_frames)
    first = train.paths[0]
    T, _, H, W = shape = tuple(read_frames(first).shape)
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
    )


def read_frames(path: Path, shape: tuple[int, ...] | None = None) -> Tensor:
    """The array `frames` of a file, `[T, 2, H, W]` float32.

    Raises:
        ValueError: it is missing, damaged, has another `shape`, or holds anything but finite numbers.
    """
    remedy = "write it with numpy.savez(path, frames=...) from an array of event counts [T, 2, H, W]"
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if "frames" in names:
                with archive.open("frames.npy") as member:
                    frames = np.lib.format.read_array(member)  # refuses pickled objects
    except Exception as error:  # zipfile, zlib and numpy raise exceptions of every kind
        raise data_error(path, f"is no readable .npz file ({error})", remedy) from error
    if "frames" not in names:
        raise data_error(path, f"holds no array 'frames' but {', '.join(names) or 'nothing'}", remedy)
    if frames.ndim != 4 or frames.shape[1] != 2 or 0 in frames.shape:
        raise data_error(path, f"'frames' has shape {list(frames.shape)}, expected [T, 2, H, W]", remedy)
    if shape is not None and frames.shape != shape:
        raise data_error(
            path, f"'frames' has shape {list(frames.shape)}, other files have {list(shape)}", "give all files one shape"
        )
    if frames.dtype.kind not in "biuf" or not np.isfinite(frames).all():
        raise data_error(path, f"'frames' ({frames.dtype}) holds values that are no finite numbers", remedy)
    return torch.from_numpy(frames.astype(np.float32))


def _test_folder(root: Path) -> Path:
    return root / "val" if (root / "val").is_dir() and not (root / "test").is_dir() else root / "test"
