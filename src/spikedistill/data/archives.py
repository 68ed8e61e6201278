"""Unpacks the archives of ImageNet and Tiny-ImageNet to a folder for each class. A call continues what a killed process left.

No name in an archive is used as a path: names must have the published form, and folders are made of them. Each file is
written under a name of its own and then renamed.
"""

import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

from ..errors import UserError
from ..files import PARTIAL
from .files import data_error

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
TINY = "tiny-imagenet-200.zip"
_LARGEST = 2**27  # bytes of an image

Track = Callable[[Iterable[str], int], Iterable[str]]
"""Shows progress over the names of what was unpacked, of which it gets the number."""


def unpack_imagenet(source: Path, root: Path, track: Track) -> None:
    """Unpack the official archives of ImageNet to `root/imagenet/{train,val}/<class>/`.

    The archive of training images has one for each class. That of the validation images has no classes; the development kit has the
    number of the class of each, in their order.

    Args:
        source: the folder of the three archives.
        root: the data root.
        track: shows progress.

    Raises:
        FileNotFoundError: an archive is missing.
        UserError: if one is damaged, or holds something else.
    """
    _check_there(source, TRAIN, VAL, DEVKIT)
    labels = _validation_classes(source / DEVKIT)
    target = root / "imagenet"
    with _reading(source / TRAIN), tarfile.open(source / TRAIN) as train:
        classes = [member for member in train if member.isfile()]
        for _ in track(_unpacked_classes(source / TRAIN, train, classes, target / "train"), len(classes)):
            pass
    with _reading(source / VAL), tarfile.open(source / VAL) as val:
        for _ in track(_unpacked_validation(source / VAL, val, labels, target / "val"), len(labels)):
            pass


def unpack_tiny_imagenet(source: Path, root: Path, track: Track) -> None:
    """Unpack the official archive of Tiny-ImageNet to `root/tiny_imagenet/{train,val}/<class>/`.

    Raises:
        FileNotFoundError: it is missing.
        UserError: if it is damaged, or holds something else.
    """
    _check_there(source, TINY)
    with _reading(source / TINY), zipfile.ZipFile(source / TINY) as archive:
        names = [name for name in archive.namelist() if name.endswith(".JPEG") and "/test/" not in name]
        for _ in track(_unpacked_tiny(source / TINY, archive, names, root / "tiny_imagenet"), len(names)):
            pass


def _unpacked_classes(
    path: Path, train: tarfile.TarFile, classes: list[tarfile.TarInfo], target: Path
) -> Iterator[str]:
    for member in classes:
        label = _matched(path, r"(n\d{8})\.tar", member.name)
        inner = train.extractfile(member)
        assert inner is not None  # it is a file
        with tarfile.open(fileobj=inner) as images:
            for image in images:
                if image.isfile():
                    name = _matched(path, rf"({label}_\d+\.JPEG)", image.name)
                    _write(path, images.extractfile(image), image.size, target / label / name)
        yield label


def _unpacked_validation(path: Path, val: tarfile.TarFile, labels: list[str], target: Path) -> Iterator[str]:
    for image in val:
        if not image.isfile():
            continue
        number = int(_matched(path, r"ILSVRC2012_val_(\d{8})\.JPEG", image.name))
        if not 1 <= number <= len(labels):
            raise data_error(path, f"holds image {number} of {len(labels)}", "download it again")
        _write(path, val.extractfile(image), image.size, target / labels[number - 1] / Path(image.name).name)
        yield image.name


def _unpacked_tiny(path: Path, archive: zipfile.ZipFile, names: list[str], target: Path) -> Iterator[str]:
    listed = archive.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()
    of_image = {line.split("\t")[0]: line.split("\t")[1] for line in listed if line}
    for name in names:
        image = name.rsplit("/", 1)[-1]
        if "/val/" in name:
            if image not in of_image:
                raise data_error(path, f"has no class of {image!r}", "download it again")
            label = _matched(path, r"(n\d{8})", of_image[image])
            place = target / "val" / label / _matched(path, r"(val_\d+\.JPEG)", image)
        else:
            label = _matched(path, r"tiny-imagenet-200/train/(n\d{8})/images/n\d{8}_\d+\.JPEG", name)
            place = target / "train" / label / image
        with archive.open(name) as file:
            _write(path, file, archive.getinfo(name).file_size, place)
        yield name


def _validation_classes(devkit: Path) -> list[str]:
    """The class of each validation image, such as n01440764."""
    from scipy.io import loadmat

    with _reading(devkit), tarfile.open(devkit) as archive:
        content = {Path(member.name).name: member for member in archive if member.isfile()}
        meta, truth = content["meta.mat"], content["ILSVRC2012_validation_ground_truth.txt"]
        table, numbers = archive.extractfile(meta), archive.extractfile(truth)
        assert table is not None
        assert numbers is not None
        rows = loadmat(BytesIO(table.read()), squeeze_me=True)["synsets"]
        classes = {int(row["ILSVRC2012_ID"]): _matched(devkit, r"(n\d{8})", str(row["WNID"])) for row in rows}
        return [classes[int(number)] for number in numbers.read().split()]


def _write(archive: Path, file: IO[bytes] | None, size: int, place: Path) -> None:
    """Write an image, unless it is there."""
    assert file is not None
    if size > _LARGEST:
        raise data_error(
            archive, f"holds {place.name} of {size} bytes, which no image of the data set has", "download it again"
        )
    if place.is_file() and place.stat().st_size == size:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}{PARTIAL}")
    content = file.read(size + 1)
    if len(content) != size:
        raise data_error(archive, f"holds {place.name} of other than {size} bytes: it is cut", "download it again")
    partial.write_bytes(content)
    os.replace(partial, place)


def _matched(archive: Path, form: str, name: str) -> str:
    """The part of a name in parentheses."""
    found = re.fullmatch(form, name)
    if found is None:
        raise data_error(archive, f"holds {name!r}, which no official archive does", "download it again")
    return found[1]


def _check_there(source: Path, *names: str) -> None:
    absent = [name for name in names if not (source / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{source} lacks {', '.join(absent)}: download them there")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which archive cannot be read."""
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:  # tarfile, zipfile, zlib and scipy raise exceptions of every kind
        raise data_error(path, f"cannot be read ({type(error).__name__}: {error})", "download it again") from error
