"""A user's images or event frames in NumPy's arrays."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..array_files import announced_by, read_npy, read_npz
from ..array_inputs import Form, Inputs, Prepare, Resizing, described, form_of, samples_of, statistics_of
from ..dataset import Dataset
from ..entries import Entry, register_dataset
from ..event_counts import frames_in_words, merging
from ..files import data_error
from ..images import MEANS
from ..preprocess import Resize, check_resize
from ..split import test_places
from .image_folder import HOW, check_size

INPUTS, LABELS = ("x", "images"), ("y", "labels")
IN_MEMORY = 2**30  # bytes: larger arrays stay in their file
MOST_IN_ARCHIVE = 2**31  # bytes of an array in an .npz file, which is read at once


class _Split(NamedTuple):
    inputs: Inputs
    labels: np.ndarray
    labels_in: Path
    classes: np.ndarray | None


def load_arrays(
    root: Path,
    size: int | Sequence[int] | None = None,
    resize: Resize = "crop",
    timesteps: int | None = None,
    test_share: float | None = None,
) -> Dataset:
    """Images or event frames from `root/train.npz` and `root/test.npz`, or from .npy files such as `root/x_train.npy`.

    An .npz file holds `x` (or `images`) and `y` (or `labels`), and the training file may hold `classes`; .npy files are called
    `x_train`, `y_train`, `x_test`, `y_test` and `classes`. Nothing is unpickled.

    - `x` is images `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]`, whole numbers 0 to 255 or floating-point numbers in [0, 1], or
      event frames `[N, T, 2, H, W]`, numbers of at least 0. The channels of images are the shorter of the second and last axis.
    - `y` is a whole number 0 to C-1 or a class name for each sample, `[N]`. Without `classes`, numbers are their own names, and
      names are numbered in alphabetical order.
    - The mean and standard deviation of images are those of the training images, for each channel.

    Args:
        root: the folder.
        size: height and width to resize grey or colour images of whole numbers to; by default they stay as they are.
        resize: how images get that size: "crop", "pad", "stretch" or "centre", see `Preprocess`.
        timesteps: how many event frames a recording gets, by default all. If it is less than T, which it must divide, as many
            neighbouring frames are added up.
        test_share: if there are no test arrays: the share of each class of the training arrays to test on.

    Raises:
        FileNotFoundError: an array is missing.
        UserError: if a file is damaged, or its arrays do not have these shapes and values.
        BrokenSample: when samples are read, if a large file has become shorter or cannot be read.
    """
    train, test = _split(root, "train"), _split(root, "test")
    if train is None:
        raise FileNotFoundError(f"{root} holds no training arrays: expected train.npz, or x_train.npy and y_train.npy")
    if test is None and test_share is None:
        raise FileNotFoundError(
            f"{root} holds no test arrays: expected test.npz, or x_test.npy and y_test.npy; or --data.test-share 0.2 sets a fifth "
            "of each class aside for testing"
        )
    if test is not None and test_share is not None:
        raise data_error(
            test.inputs.path, "holds the test samples already", "leave --data.test-share out, or move it away"
        )
    form = form_of(train.inputs)
    classes, targets = _labels(train, None)
    train_samples = samples_of(train.inputs, form, targets)
    chosen = None
    if test is None:
        assert test_share is not None
        chosen = test_places(targets, [str(place) for place in range(len(targets))], test_share, classes)
    is_image = form.timesteps is None
    to_train = train_samples if chosen is None else train_samples.subset((~chosen).nonzero().flatten())
    mean, std = statistics_of(to_train, form) if is_image else ((0.0, 0.0), (1.0, 1.0))
    prepare: Prepare | None = _resizing(train.inputs, form, size, resize, mean)
    T = form.timesteps
    if T is not None:
        prepare = merging(train.inputs.path, T, timesteps)
        T = T if prepare is None else prepare.timesteps
    if prepare is not None:
        train_samples = samples_of(train.inputs, form, targets, prepare)
    if test is not None:
        found = form_of(test.inputs)
        if found._replace(axes=form.axes) != form:
            fault = f"{test.inputs.name!r} is {described(found)}, that of {train.inputs.path.name} is {described(form)}"
            raise data_error(test.inputs.path, fault, "give both the same shape")
        _resizing(test.inputs, form, size, resize, mean)  # whose values may be of another type
        _check_same_labels(train, test, classes)
        test_samples = samples_of(test.inputs, found, _labels(test, classes)[1], prepare)
        notes = []
    else:
        assert chosen is not None
        train_samples, test_samples = (train_samples.subset(part.nonzero().flatten()) for part in (~chosen, chosen))
        notes = [
            f"{int(chosen.sum())} of the {len(chosen)} samples are set aside for testing (--data.test-share {test_share:g}), the "
            "same ones in every run"
        ]
    final = form.size
    options: dict[str, object] = {"timesteps": T} if T is not None else {}
    if isinstance(prepare, Resizing):
        final = prepare.size
        options = {"size": list(final), "resize": resize}
    return Dataset(
        name="arrays",
        train=train_samples,
        test=test_samples,
        classes=classes,
        mean=mean,
        std=std,
        kind="image" if is_image else "events",
        channels=form.channels,
        size=final,
        options=options,
        resize=resize if isinstance(prepare, Resizing) else "crop",
        describe=partial(list, (_what_happens(train.inputs, form, prepare, mean, std), *notes)),
    )


def _split(root: Path, split: str) -> _Split | None:
    """The arrays of a split; None if there are none."""
    archive = root / f"{split}.npz"
    parts = {name: root / f"{name}_{split}.npy" for name in (*INPUTS, *LABELS)}
    found = {name: path for name, path in parts.items() if path.exists()}
    if archive.exists() and found:
        raise data_error(
            archive, f"is next to {', '.join(path.name for path in found.values())}", "keep one of the two"
        )
    if archive.exists():
        arrays = read_npz(archive, (*INPUTS, *LABELS, "classes"), MOST_IN_ARCHIVE)
        inputs, labels = (_one_of(archive, names, [*arrays]) for names in (INPUTS, LABELS))
        return _Split(Inputs(archive, inputs, arrays[inputs]), arrays[labels], archive, arrays.get("classes"))
    if not found:
        return None
    inputs, labels = (_one_of(root / f"*_{split}.npy", names, [*found]) for names in (INPUTS, LABELS))
    names = root / "classes.npy"
    announced = announced_by(found[inputs])
    if announced.length > IN_MEMORY and announced.by_columns:
        fault, remedy = "is a large array in the order of Fortran", "save numpy.ascontiguousarray of it"
        raise data_error(found[inputs], fault, remedy)
    values = announced if announced.length > IN_MEMORY else read_npy(found[inputs])
    return _Split(
        Inputs(found[inputs], inputs, values),
        read_npy(found[labels]),
        found[labels],
        read_npy(names) if names.exists() else None,
    )


def _one_of(path: Path, names: tuple[str, ...], there: list[str]) -> str:
    found = [name for name in there if name in names]
    if len(found) != 1:
        fault = f"holds {' and '.join(found) or ', '.join(there) or 'nothing'}, expected one array {' or '.join(map(repr, names))}"
        raise data_error(path, fault, "write it with numpy.savez(path, x=..., y=...)")
    return found[0]


def _labels(split: _Split, known: tuple[str, ...] | None) -> tuple[tuple[str, ...], Tensor]:
    """The classes' names, and the class of every sample; `known` are those of the training arrays."""
    path, labels, count = split.labels_in, split.labels, split.inputs.shape[0]
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,):
        remedy = "give the number of the class, y.argmax(1)" if labels.ndim == 2 else "give as many labels as samples"
        raise data_error(
            path, f"the labels have shape {list(labels.shape)} for {count} samples, expected [{count}]", remedy
        )
    names = known
    if known is None and split.classes is not None:
        names = _names(path, split.classes)
        if len({*names}) < len(names):
            raise data_error(
                path, f"two classes have the same name: {_first(sorted(names))}", "give each a different name"
            )
    if labels.dtype.kind in "US":
        texts = _names(path, labels)
        names = names if names is not None else tuple(sorted({*texts}))
        numbers = {name: number for number, name in enumerate(names)}
        strange = next((text for text in texts if text not in numbers), None)
        if strange is not None:
            raise data_error(
                path, f"the label {strange!r} is not among the classes {_first(names)}", "name classes alike"
            )
        targets = torch.tensor([numbers[text] for text in texts])
    elif labels.dtype.kind in "biu":
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or (names is None and highest >= count) or (names is not None and highest >= len(names)):
            expected = f"0 to {len(names) - 1}" if names is not None else "0 to C-1"
            raise data_error(
                path, f"the labels are {lowest} to {highest}, expected {expected}", "number the classes from 0 on"
            )
        targets = torch.from_numpy(labels.astype(np.int64))
        names = names if names is not None else tuple(map(str, range(highest + 1)))
    else:
        raise data_error(
            path, f"the labels are of type {labels.dtype}, expected whole numbers or text", "y.astype(int)"
        )
    if known is None:
        empty = [
            name for name, found in zip(names, torch.bincount(targets, minlength=len(names)), strict=True) if not found
        ]
        if empty:
            fault = f"no training sample has the class {_first(empty)} of {_first(names)}"
            raise data_error(path, fault, "number the classes 0 to C-1, or leave out those without samples")
    return names, targets


def _check_same_labels(train: _Split, test: _Split, classes: tuple[str, ...]) -> None:
    """Refuse test labels that may number the classes in another order than training does.

    Raises:
        UserError: if they may; the message names the file of the test labels.
    """
    if test.classes is not None and (found := _names(test.labels_in, test.classes)) != classes:
        fault = f"the classes are {_first(found)}, those of the training arrays are {_first(classes)}"
        raise data_error(test.labels_in, fault, "give both the same classes in the same order")
    if train.classes is None and train.labels.dtype.kind in "US" and test.labels.dtype.kind not in "US":
        fault = "the labels are numbers, and those of the training arrays are names"
        raise data_error(test.labels_in, fault, "save names in both, or add an array 'classes' to the training file")


def _names(path: Path, values: np.ndarray) -> tuple[str, ...]:
    """Class names, or labels that are names."""
    if values.ndim != 1 or values.dtype.kind not in "US":
        fault = f"the class names have shape {list(values.shape)} and type {values.dtype}, expected text [C]"
        raise data_error(path, fault, "save numpy.array(names, dtype=str)")
    try:
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in values.tolist())
    except UnicodeDecodeError:
        raise data_error(path, "a class name is no text in UTF-8", "save numpy.array(names, dtype=str)") from None


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _resizing(
    inputs: Inputs, form: Form, size: int | Sequence[int] | None, resize: Resize, mean: tuple[float, ...]
) -> Resizing | None:
    """The function that resizes the images; None if they keep their size.

    Raises:
        UserError: if they cannot be resized.
    """
    check_resize(resize)
    if size is None or check_size(size) == form.size:
        return None
    if form.timesteps is not None or form.channels not in MEANS or inputs.dtype.kind == "f":
        fault = f"--data.size is for grey or colour images of whole numbers 0 to 255, not for {described(form)} of {inputs.dtype}"
        raise data_error(inputs.path, fault, "resize them before, or leave it out")
    return Resizing(check_size(size), resize, mean)


def _what_happens(
    inputs: Inputs, form: Form, prepare: Prepare | None, mean: tuple[float, ...], std: tuple[float, ...]
) -> str:
    if form.timesteps is not None:
        merge = None if isinstance(prepare, Resizing) else prepare
        return f"{inputs.path.name}: {frames_in_words(form.timesteps, form.size, merge)}"
    how = (
        HOW[prepare.resize].format("x".join(map(str, prepare.size)))
        if isinstance(prepare, Resizing)
        else "taken as they are"
    )
    where = {"HWC": " (the last axis)", "CHW": " (the second axis)"}.get(form.axes, "")
    said = f"{inputs.path.name}: {described(form)}{where} are {how}"
    numbers = ("  ".join(f"{value:g}" for value in values) for values in (mean, std))
    return said + "; the network normalises them with mean {} and standard deviation {}".format(*numbers)


register_dataset(
    Entry(
        name="arrays",
        about="Your own images or event frames, in .npz or .npy files of arrays.",
        load=load_arrays,
        checked="all values and labels",
        files="{train,test}.npz or {x,y}_{train,test}.npy",
        options=("size", "resize", "timesteps", "test_share"),
        tree="""
            ROOT/
              train.npz   numpy.savez("train.npz", x=images, y=labels): images [N, H, W], [N, H, W, C] or [N, C, H, W],
                          or event frames [N, T, 2, H, W]; labels whole numbers or class names [N]
              test.npz    the same; or leave it out and add --data.test-share 0.2
            or x_train.npy, y_train.npy, x_test.npy and y_test.npy with the same arrays
        """,
        usual={"epochs": 30, "data.batch_size": 32, "optimizer.lr": 0.05},
    )
)
