"""A user's event frames, in one folder per class."""

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
from ..array_files import array_names, open_member
from ..class_folders import Files, own_folders
from ..dataset import Dataset, FileSamples
from ..entries import Entry, register_dataset
from ..event_counts import Merging, as_counts, frames_in_words, merging, padded
from ..files import MOST_VALUES, DataError, check_is_no_pipe, data_error

WRITE_FRAMES = "write it with numpy.savez(path, frames=...) from an array of event counts [T, 2, H, W]"


def load_event_frames(
    root: Path, timesteps: int | None = None, test_share: float | None = None, pad: bool = False
) -> Dataset:
    """Event frames in `root/train/<class>/*.npz` and `root/test/<class>/*.npz`, read when they are used.

    Each file holds an array `frames` `[T, 2, H, W]`, events counted per timestep, polarity and pixel. H and W are any sizes; all
    files have the shape of the first training file that can be read, except for T under `pad`.

    Args:
        root: the folder; its test folder may also be called val, valid or validation.
        timesteps: how many frames a recording gets, by default the T of the files. If it is less than T, which it must divide, as
            many neighbouring frames are added up.
        test_share: if there are no test files: the share of each class to test on, see `own_folders`.
        pad: recordings differ in length; T is then `timesteps`, by default the length of the longest. Longer ones are cut after T,
            and shorter ones padded, which changes nothing.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: if a class is empty or unknown in training, no training file can be read, or `timesteps` does not
        divide T.
        BrokenSample: when samples are read, if a file is damaged or has another shape.
    """
    train, test, classes, notes = own_folders(Files("event_frames", (".npz",), read_frames), root, test_share)
    first, shape = _first_shape(train.paths)
    T, _, H, W = shape
    if pad:
        return _padded(train, test, classes, notes, timesteps, (H, W))
    merge = merging(first, T, timesteps)
    read = partial(read_frames, shape=shape, merge=merge)
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
        options={"timesteps": T if merge is None else merge.timesteps},
        describe=partial(list, (frames_in_words(T, (H, W), merge), *notes)),
    )


def _padded(
    train: FileSamples,
    test: FileSamples,
    classes: tuple[str, ...],
    notes: Sequence[str],
    timesteps: int | None,
    size: tuple[int, int],
) -> Dataset:
    """Recordings of different length."""
    counts = [torch.tensor([_frames_in(path) for path in split.paths]) for split in (train, test)]
    every = torch.cat(counts)
    T = int(every.max()) if timesteps is None else timesteps
    if T < 1:
        raise UserError(f"timesteps is {timesteps}, expected 1 or more")
    said = f"recordings of {int(every.min())} to {int(every.max())} frames are padded to {T}"
    if cut := int((every > T).sum()):
        said += f", and {cut} of them cut after it"
    parts = [
        replace(split, read=partial(read_padded, timesteps=T, size=size), lengths=frames.clamp(max=T))
        for split, frames in zip((train, test), counts, strict=True)
    ]
    return Dataset(
        name="event_frames",
        train=parts[0],
        test=parts[1],
        classes=classes,
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        kind="events",
        channels=2,
        size=size,
        augmentations=("flip", "nda"),
        options={"timesteps": T, "pad": True},
        describe=partial(list, (said, *notes)),
    )


def _frames_in(path: Path) -> int:
    """T of a file, from its header; 1 if it cannot be read, which is said when it is."""
    check_is_no_pipe(path)
    try:
        with zipfile.ZipFile(path) as archive, open_member(archive, "frames") as (_, announced):
            return max(1, announced.shape[0])
    except Exception:  # zipfile, zlib and numpy raise exceptions of every kind
        return 1


def read_padded(path: Path, timesteps: int, size: tuple[int, int]) -> Tensor:
    """The array `frames` of a file, of any length, cut or padded to `[timesteps, 2, H, W]` float32.

    Raises:
        UserError: as `read_frames`, and for another size.
    """
    frames = read_frames(path)[:timesteps]
    if tuple(frames.shape[2:]) != size:
        raise data_error(
            path, f"'frames' has frames of {list(frames.shape[2:])}, other files of {list(size)}", "scale it"
        )
    return padded(frames, timesteps)


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


def read_frames(path: Path, shape: tuple[int, ...] | None = None, merge: Merging | None = None) -> Tensor:
    """The array `frames` of a file, `[T, 2, H, W]` float32, with frames added up by `merge`.

    Raises:
        UserError: if it is missing, damaged, has another `shape`, or holds anything but finite numbers of at least 0.
    """
    check_is_no_pipe(path)
    try:
        with zipfile.ZipFile(path) as archive:
            counts = _read_counts(path, archive, shape)
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise exceptions of every kind
        raise data_error(path, f"is no readable .npz file ({error})", WRITE_FRAMES) from error
    frames = as_counts(path, "frames", counts, WRITE_FRAMES)
    return frames if merge is None else merge(frames)


def _read_counts(path: Path, archive: zipfile.ZipFile, shape: tuple[int, ...] | None) -> np.ndarray:
    """The array `frames` as stored. Its header is checked before memory is allocated, and its checksum while it is read."""
    names = array_names(archive)
    if "frames" not in names:
        raise data_error(path, f"holds no array 'frames' but {', '.join(names) or 'nothing'}", WRITE_FRAMES)
    with open_member(archive, "frames") as (member, announced):
        found = announced.shape
        if len(found) != 4 or found[1] != 2 or min(found) < 1:
            raise data_error(path, f"'frames' has shape {list(found)}, expected [T, 2, H, W]", WRITE_FRAMES)
        if shape is not None and found != shape:
            fault = f"'frames' has shape {list(found)}, other files have {list(shape)}"
            raise data_error(path, fault, "give all files one shape")
        if math.prod(found) > MOST_VALUES:
            raise data_error(path, f"'frames' has shape {list(found)}, more than {MOST_VALUES} values", WRITE_FRAMES)
        if announced.dtype.kind not in "biuf":
            fault = f"'frames' ({announced.dtype}) holds values that are no finite numbers"
            raise data_error(path, fault, WRITE_FRAMES)
        announced.check()
        return announced.read(member)


register_dataset(
    Entry(
        name="event_frames",
        about="Your own event frames, one .npz file for each sample, in a folder for each class.",
        load=load_event_frames,
        checked="file names and classes, and the frames of one file; the others are not read: --verify reads them",
        files="{train,test}/<class>/*.npz",
        options=("timesteps", "test_share"),
        own_options={"pad": False},
        tree="""
            ROOT/
              train/
                left/    0001.npz  0002.npz  ...   (each with an array "frames" [T, 2, H, W])
                right/   0001.npz  ...
              test/      the same folders; or leave it out and add --data.test-share 0.2
        """,
        usual={"epochs": 30, "timesteps": 10, "data.batch_size": 32, "optimizer.lr": 0.05},
    )
)
