"""Reading files that people brought: what is missing, damaged or in the wrong place is named, with what to do about it."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .dataset import FileSamples

MOST_VALUES = 2**28  # of one sample: 1 GiB in float32, so that no file and no option can ask for all memory
LONGEST_FAULT = 400  # characters: what a damaged file says of itself can be of any length


class DataError(UserError):
    """A file is there but wrong."""


def data_error(path: Path, found: str, remedy: str) -> DataError:
    """The one-line error for a file that is there but wrong: `path`, what was found (and expected), what to do."""
    found = " ".join(found.split())
    if len(found) > LONGEST_FAULT:
        found = found[:LONGEST_FAULT] + " ..."
    return DataError(f"{path}: {found}; {remedy}")


def check_is_no_pipe(path: Path) -> None:
    """Refuse what is neither a file nor a folder: a pipe would be waited for, and a device read for ever.

    Raises:
        UserError: it is a pipe, a device or a socket.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise data_error(path, "is no file but a pipe, a device or a socket", "replace or remove it")


def read_bytes(path: Path, page: str, most: int) -> bytes:
    """The bytes of `path`, decompressed where its name ends in .gz.

    Args:
        path: the file.
        page: the official page that offers it, for the error.
        most: how many bytes are read at most, so that a file which unpacks to gigabytes does not take all memory.

    Raises:
        FileNotFoundError: it does not exist.
        UserError: it cannot be read or decompressed, or has more than `most` bytes.
    """
    again = f"download it again from {page}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: download it from {page}, or point --data.root or $SPIKEDISTILL_DATA at the folder "
            f"that holds {path.parent.name}/"
        )
    too_long = data_error(path, f"holds more than {most} bytes, which no official file does", again)
    try:
        if path.stat().st_size > most:
            raise too_long
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise data_error(path, f"cannot be read ({error})", again) from error
    if len(content) > most:
        raise too_long
    return content


def read_all(readers: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each reader returns. One error names every file that is wrong, up to the first that is missing.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: files are wrong.
    """
    contents = []
    faults: list[UserError] = []
    for reader in readers:
        try:
            contents.append(reader())
        except FileNotFoundError as error:
            raise FileNotFoundError("; also ".join(map(str, (error, *faults)))) from error
        except UserError as error:
            faults.append(error)
    if faults:
        raise DataError("; also ".join(map(str, faults))) from faults[0]
    return contents


def verify_md5(path: Path, content: bytes, expected: str, page: str) -> None:
    """Check that `content`, read from `path`, is the official one.

    Raises:
        UserError: its md5 is not `expected`.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise data_error(path, f"has md5 {found}, the official file has {expected}", f"download it again from {page}")


def labelled_files(
    dataset: str, train: Path, test: Path, suffixes: tuple[str, ...], read: Callable[[Path], Tensor]
) -> tuple[FileSamples, FileSamples, tuple[str, ...]]:
    """Samples from `train/<class>/<file>` and `test/<class>/<file>`, and the classes' names, those of the training folders.

    Classes and files are taken in the order of their names. Hidden files and files with other suffixes are left out.

    Raises:
        FileNotFoundError: a folder is missing or holds no folder per class.
        UserError: a class has no file, or the test folder has a class that the training folder lacks.
    """
    train_files, test_files = (_files_by_class(folder, suffixes) for folder in (train, test))
    classes = tuple(train_files)
    for name in test_files:
        if name not in train_files:
            known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise data_error(
                test / name,
                f"class {name!r} is not among the {len(classes)} classes of {train} ({known})",
                "give both folders the same classes",
            )
    label = {name: k for k, name in enumerate(classes)}

    def samples(folder: Path, files: dict[str, list[Path]]) -> FileSamples:
        paths = [path for paths in files.values() for path in paths]
        targets = torch.tensor([label[path.parent.name] for path in paths])
        return FileSamples(paths, targets, read, folder, dataset)

    return samples(train, train_files), samples(test, test_files), classes


def _files_by_class(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    kinds = "*" + " or *".join(suffixes)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing: expected one folder per class in it ({folder}/<class>/{kinds}); make it, or point "
            "--data.root or $SPIKEDISTILL_DATA elsewhere"
        )
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise FileNotFoundError(f"{folder} holds no folders: expected one per class ({folder}/<class>/{kinds})")
    files = {}
    for name in names:
        entries = sorted(entry.name for entry in os.scandir(folder / name) if not entry.name.startswith("."))
        files[name] = [folder / name / entry for entry in entries if entry.lower().endswith(suffixes)]
        if not files[name]:
            raise data_error(
                folder / name,
                f"no {kinds} file among its {len(entries)} entries",
                "put the class's samples there or remove the folder",
            )
    return files
