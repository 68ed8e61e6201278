"""Samples in one folder per class, with errors for common mistakes in such folders."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .dataset import FileSamples
from .files import data_error
from .split import test_places

TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first that is there
JUNK = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}  # files of operating systems
# suffixes of images that are not read, and what to do about them
UNREAD_IMAGES = (".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef", ".arw")
_SHOWN = 5


class Files(NamedTuple):
    """The files of a data set, a sample in each.

    Attributes:
        dataset: its name.
        suffixes: suffixes of the files, in lower case.
        read: returns the sample of a file.
    """

    dataset: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Tensor]

    def among(self, names: Sequence[str]) -> list[str]:
        """Those of the names that such files have."""
        return [name for name in names if name.lower().endswith(self.suffixes)]

    def kinds(self) -> str:
        return "*" + " or *".join(self.suffixes)

    def example(self, folder: Path) -> str:
        return f"{folder}/<class>/{self.kinds()}"


class Folders(NamedTuple):
    """Samples from one folder per class.

    Attributes:
        train: training samples.
        test: test samples.
        classes: the classes' names.
        notes: sentences for the user about the folders.
    """

    train: FileSamples
    test: FileSamples
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


class _Class(NamedTuple):
    files: list[Path]
    others: list[Path]  # files that are left out


def labelled_files(kind: Files, train: Path, test: Path) -> Folders:
    """Samples from `train/<class>/<file>` and `test/<class>/<file>`; the classes are those of the training folder.

    Classes and files are sorted by name. Hidden files and files with other suffixes are left out.

    Raises:
        FileNotFoundError: if a folder is missing or holds no folder per class.
        UserError: if a class has no file, or the test folder has a class that the training folder lacks.
    """
    train_files, test_files = (_files_by_class(folder, kind) for folder in (train, test))
    classes = tuple(train_files)
    for name in test_files:
        if name not in train_files:
            close = [known for known in classes if known.casefold() == name.casefold()]
            known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise data_error(
                test / name,
                f"class {name!r} is not among the {len(classes)} classes of {train} ({known})",
                f"rename it to {close[0]!r}" if close else "give both folders the same classes",
            )
    untested = [name for name in classes if name not in test_files]
    notes = [f"no test samples of {_several(untested, 'class', 'classes')}"] if untested else []
    return Folders(
        _samples(kind, train, train_files, classes),
        _samples(kind, test, test_files, classes),
        classes,
        (*notes, *_left_out([*train_files.values(), *test_files.values()], kind)),
    )


def own_folders(kind: Files, root: Path, test_share: float | None = None) -> Folders:
    """A user's samples: `root/train/<class>/` and `root/test/<class>/`, or one folder per class and a share of it for testing.

    Args:
        kind: of the files.
        root: the folder. Test samples are in the first of `TEST_FOLDERS` that exists.
        test_share: share of the samples of each class to set aside for testing; only if there is no folder of test samples. They
            come from `root/train/<class>/`, or from `root/<class>/`, and are chosen by their names, so every run has the same.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: if a class has too few files or is unknown in training, or `test_share` is given although there are
        test samples.
    """
    train = root / "train"
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if train.is_dir() and tests:
        if test_share is not None:
            raise data_error(tests[0], "holds the test samples already", "leave --data.test-share out, or move it away")
        return labelled_files(kind, train, tests[0])
    if test_share is None:
        raise _missing(root, train, kind)
    if not train.is_dir() and tests:
        raise data_error(
            tests[0], "is here, but no train folder", f"make {train}, or move it away for --data.test-share"
        )
    folder = train if train.is_dir() else root
    if folder is root and not _class_names(root):
        raise _missing(root, train, kind)
    files = _files_by_class(folder, kind)
    every = _samples(kind, folder, files, tuple(files))
    names = [f"{path.parent.name}/{path.name}" for path in every.paths]
    test = test_places(every.targets, names, test_share, tuple(files))
    note = (
        f"{int(test.sum())} of the {len(test)} samples in {folder} are set aside for testing (--data.test-share "
        f"{test_share:g}), the same ones in every run"
    )
    to_train, to_test = (every.subset(chosen.nonzero().flatten()) for chosen in (~test, test))
    return Folders(to_train, to_test, tuple(files), (note, *_left_out([*files.values()], kind)))


def _samples(kind: Files, folder: Path, files: dict[str, _Class], classes: Sequence[str]) -> FileSamples:
    label = {name: k for k, name in enumerate(classes)}
    paths = [path for of_class in files.values() for path in of_class.files]
    targets = torch.tensor([label[name] for name, of_class in files.items() for _ in of_class.files])
    return FileSamples(paths, targets, kind.read, folder, kind.dataset)


def _files_by_class(folder: Path, kind: Files) -> dict[str, _Class]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing: expected one folder per class in it ({kind.example(folder)}); make it, or point "
            "--data.root or $SPIKEDISTILL_DATA elsewhere"
        )
    names = _class_names(folder)
    if not names:
        loose = len(kind.among(_entries(folder)))
        found = f"{loose} files but no folders" if loose else "no folders"
        raise FileNotFoundError(f"{folder} holds {found}: expected one per class ({kind.example(folder)})")
    files: dict[str, _Class] = {}
    for name in names:
        # a letter with an accent is one character or two, depending on the system that wrote the name
        label = unicodedata.normalize("NFC", name)
        if not _is_text(label):
            raise data_error(folder, f"the name of the folder {name!r} is no text in UTF-8", "rename the folder")
        if label in files:
            raise data_error(folder / name, f"another folder has the same name {label!r}", "rename one of them")
        files[label] = _files_of_class(folder / name, kind)
    return files


def _files_of_class(folder: Path, kind: Files) -> _Class:
    names = _entries(folder)
    entries, taken = ([folder / name for name in some] for some in (names, kind.among(names)))
    if not taken:
        inside = [path for path in entries if path.is_dir() and kind.among(_entries(path))]
        unread = [path for path in entries if path.name.lower().endswith(UNREAD_IMAGES)]
        if inside:
            remedy = f"move the files of {inside[0]} and of other such folders up into {folder}"
        elif unread:
            remedy = f"convert files such as {unread[0].name} to JPEG or PNG"
        else:
            remedy = "put the class's samples there or remove the folder"
        raise data_error(folder, f"no {kind.kinds()} file among its {len(entries)} entries", remedy)
    return _Class(taken, [path for path in entries if path not in {*taken} and not path.is_dir()])


def _missing(root: Path, train: Path, kind: Files) -> FileNotFoundError:
    """The error for a root without training or test folder, with advice that depends on its content."""
    set_aside = "--data.test-share 0.2 sets a fifth of each class aside for testing"
    if train.is_dir():
        _files_by_class(train, kind)  # raises if the test folder is wrong too
        return FileNotFoundError(
            f"{root / TEST_FOLDERS[0]} is missing: expected one folder per class in it ({kind.example(root / 'test')}); "
            f"make it, or leave it out: {set_aside}"
        )
    folders = _class_names(root)
    alike = [name for name in folders if name.lower() in ("train", "training", "trainset", "train_set")]
    deeper = [name for name in folders if (root / name / "train").is_dir()]
    nested = [name for name in folders if len(folders) == 1 and _holds_classes(root / name, kind)]
    classes = [name for name in folders if kind.among(_entries(root / name))]
    if alike:
        hint = f"rename {root / alike[0]} to train"
    elif deeper or nested:
        hint = f"point --data.root at {root / (deeper + nested)[0]}, which holds the folders"
    elif classes:
        shown = _several(classes, "folder", "folders")
        hint = f"the {shown} may be your classes: {set_aside}"
    elif loose := len(kind.among(_entries(root))):
        hint = f"{root} holds {loose} files: sort them into a folder per class"
    else:
        hint = "make it, or point --data.root or $SPIKEDISTILL_DATA elsewhere"
    return FileNotFoundError(f"{train} is missing: expected one folder per class in it ({kind.example(train)}); {hint}")


def _holds_classes(folder: Path, kind: Files) -> bool:
    return any(kind.among(_entries(folder / name)) for name in _class_names(folder))


def _class_names(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return [name for name in _entries(folder) if (folder / name).is_dir()]


def _entries(folder: Path) -> list[str]:
    """Names of the entries of a folder, sorted, without hidden files and those that operating systems create."""
    return sorted(
        entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.name.lower() not in JUNK
    )


def _left_out(classes: Sequence[_Class], kind: Files) -> list[str]:
    """A sentence on the files that are not read, if there are any."""
    others = [path for of_class in classes for path in of_class.others]
    if not others:
        return []
    images = [path for path in others if path.name.lower().endswith(UNREAD_IMAGES)]
    shown = _several([path.name for path in images + [path for path in others if path not in images]], "file", "files")
    convert = ": convert images of other formats to JPEG or PNG" if images else ""
    return [f"left out because they do not end in {kind.kinds()}: {shown}{convert}"]


def _several(names: Sequence[str], one: str, many: str) -> str:
    shown = ", ".join(name.encode(errors="replace").decode() for name in names[:_SHOWN])
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} {one if len(names) == 1 else many} ({shown}{more})"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
