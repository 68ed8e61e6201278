"""Data sets of PyTorch as data sets of this library; the kind and shape of samples are read from the samples and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from ..errors import UserError
from ..from_python import import_path
from .dataset import Dataset, Samples, TensorSamples
from .statistics import statistics
from .torch_samples import Form, TorchSamples, pair_of, same_draws, spread, values_of

_TRIED = 16  # number of samples whose label is compared with that of the attribute
_LEVELS_TRIED = 100  # number of samples in which whole numbers above 1 are looked for
_KEYS = ("train", "test", "classes", "mean", "std", "name", "augmentations", "lengths")


def from_torch(
    train: Any,
    test: Any,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    name: str | None = None,
    augmentations: Sequence[str] = (),
    lengths: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Dataset:
    """A data set for `train`, `evaluate` and `register_dataset` from two data sets of PyTorch.

    Each has `len` and returns `(x, y)` for an index, as `TensorDataset`, `Subset`, `ConcatDataset` and those of torchvision do.
    x is a tensor, a NumPy array or a Pillow image:

    - an image `[C, H, W]` or `[H, W]`, uint8 or floating-point in [0, 1]. Leave `Normalize` out of the transform: a network
      normalises images itself, by `mean` and `std`;
    - or event frames `[T, C, H, W]`, which hold counts.

    y is the number of the class, from 0 on. All samples have one shape, except that recordings may differ in T if their `lengths`
    are given: they are padded to the longest, and the padding changes nothing. They are read when a batch needs them; a
    `TensorDataset` is used directly from memory. A transform that draws at random augments anew in every epoch, the
    same for the same seed; in the test samples it makes scores depend on the draw, so use another transform for these.

    Args:
        train: the training samples.
        test: the test samples.
        classes: names of the classes; default `train.classes` if there are some, else "0", "1", ...
        mean: mean of each channel of images in [0, 1]; default that of the training samples (of 2000 of them, if there are more).
        std: their standard deviation, likewise.
        name: what the data set is called; default the name of the class of `train`.
        augmentations: names for `spikedistill.data.augment` to apply to training batches.
        lengths: the frames of each training and of each test recording, if they differ.

    Raises:
        UserError: if a sample, a label or an argument is none of these.
    """
    for split, given in (("train", train), ("test", test)):
        _check_map_style(given, split)
    named = name if name is not None else _own_name(train)
    if not isinstance(named, str) or not named or any(sign.isspace() or sign in ",=" for sign in named):
        raise UserError(f"the data set has the name {named!r}, expected a text without spaces, commas and equals signs")
    first = "training sample 0"
    with same_draws(0):
        form = Form.of(values_of(pair_of(train[0], first)[0], first))
    frames: list[Tensor | None] = [None, None]
    if lengths is not None:
        form, frames = _with_lengths(form, lengths, (len(train), len(test)))
    parts = [
        _samples(given, split, form, L)
        for given, split, L in zip((train, test), ("training", "test"), frames, strict=True)
    ]
    names = _class_names(classes, train, test, [samples.targets for samples in parts])
    with same_draws(0):
        parts[1].inputs(torch.zeros(1, dtype=torch.int64))  # refuses another form than in training
    _check_levels(parts[0], form)
    mean, std = _statistics(parts[0], form, mean, std)
    return Dataset(
        name=named,
        train=parts[0],
        test=parts[1],
        classes=names,
        mean=mean,
        std=std,
        kind=form.kind,
        channels=form.shape[-3],
        size=(form.shape[-2], form.shape[-1]),
        augmentations=tuple(augmentations),
        source=import_path(_inner(train)),
    )


def as_dataset(data: Any) -> Dataset:
    """The argument of `train(config, data=...)` as a data set of this library.

    Args:
        data: a `Dataset`; a pair of training and test samples as for `from_torch`; or a mapping with "train", "test" and other
            arguments of `from_torch`.

    Raises:
        UserError: if it is anything else, or does not fit together.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Mapping):
        unknown = [key for key in data if key not in _KEYS]
        missing = [key for key in ("train", "test") if key not in data]
        if unknown or missing:
            said = f"has no {missing[0]!r}" if missing else f"has {unknown[0]!r}"
            raise UserError(
                f"data {said}, expected 'train' and 'test', and if needed {', '.join(map(repr, _KEYS[2:]))}"
            )
        return from_torch(**data)
    if isinstance(data, tuple | list) and len(data) == 2:
        return from_torch(data[0], data[1])
    raise UserError(
        f"data is a {type(data).__name__}, expected a pair of training and test samples, data=(train, test), each a "
        "torch.utils.data.Dataset, or a spikedistill.data.Dataset"
    )


def data_path(dataset: Dataset) -> str:
    """The text that a run records for a data set from Python: the import path of its samples' class, or `Dataset` and its name."""
    return dataset.source or f"{import_path(dataset)} {dataset.name}"


def _check_levels(samples: Samples, form: Form) -> None:
    """Refuse images of whole numbers 0 and 1, which as levels from 0 to 255 are nearly black."""
    if form.kind == "events" or form.dtype != torch.uint8:
        return
    with same_draws(0):
        highest = samples.inputs(spread(len(samples), _LEVELS_TRIED)).max()
    if highest == 1:
        raise UserError(
            f"{min(len(samples), _LEVELS_TRIED)} training images that were read hold no whole numbers but 0 and 1, expected "
            "levels from 0 to 255: give black and white images as floating-point numbers, x.float()"
        )


def _own_name(data: Any) -> str:
    """The name of the class of samples; "data" for PyTorch's own classes."""
    kind = type(_inner(data))
    return "data" if kind.__module__.startswith("torch.") else kind.__name__


def _inner(data: Any) -> Any:
    """The data set behind subsets; the first one of several that are put together."""
    while isinstance(data, Subset | ConcatDataset):
        data = data.dataset if isinstance(data, Subset) else data.datasets[0]
    return data


def _check_map_style(data: Any, split: str) -> None:
    if isinstance(data, torch.utils.data.DataLoader):
        raise UserError(
            f"{split} is a DataLoader, expected the data set in it, loader.dataset: train makes the batches"
        )
    if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise UserError(
            f"{split} is a {type(data).__name__}, expected a map-style torch.utils.data.Dataset, with __len__ and __getitem__: "
            "batches are drawn by index"
        )
    if len(data) == 0:
        raise UserError(f"{split} has no samples, expected 1 or more")


def _with_lengths(
    form: Form, lengths: tuple[Sequence[int], Sequence[int]], counts: tuple[int, int]
) -> tuple[Form, list[Tensor | None]]:
    """The form of recordings that are padded to the longest, and the lengths of both splits.

    Raises:
        UserError: for images, or lengths that are not one number of frames for each recording.
    """
    try:
        frames = [torch.as_tensor(part, dtype=torch.int64) for part in lengths]
    except (TypeError, ValueError, RuntimeError):
        frames = []
    fits = [part.shape == (count,) and int(part.min()) > 0 for part, count in zip(frames, counts, strict=False)]
    if form.kind != "events" or len(fits) != 2 or not all(fits):
        raise UserError(
            f"lengths came for {form.kind}, expected for recordings [T, C, H, W] the frames of each of the {counts[0]} of training "
            f"and the {counts[1]} of testing: lengths=(train, test)"
        )
    longest = max(int(part.max()) for part in frames)
    return replace(form, shape=(longest, *form.shape[1:])), list(frames)


def _samples(data: Any, split: str, form: Form, lengths: Tensor | None = None) -> Samples:
    targets = _targets(data, split)
    if isinstance(data, TensorDataset) and lengths is None:
        values = [values_of(x, f"{split} sample {place}") for place, x in enumerate(data.tensors[0])]
        kinds = {(value.shape, value.dtype) for value in values}
        if kinds == {(torch.Size(form.shape), form.dtype)}:
            return TensorSamples(torch.stack(values), targets)
    return TorchSamples(data, torch.arange(len(data)), targets, form, split, lengths)


def _targets(data: Any, split: str) -> Tensor:
    """The class of every sample, `[N]` int64; from an attribute if it agrees with the samples, else from all samples."""
    named = _named_targets(data)
    if named is not None and len(named) == len(data):
        with same_draws(0):
            tried = [(named[place], data[place]) for place in spread(len(data), _TRIED).tolist()]
        if all(_label(label, "a label") == _label(pair_of(item, "a sample")[1], "a label") for label, item in tried):
            return torch.tensor([_label(label, f"{split} label {place}") for place, label in enumerate(named)])
    with same_draws(0):
        items = (pair_of(data[place], f"{split} sample {place}")[1] for place in range(len(data)))
        return torch.tensor([_label(label, f"{split} sample {place}") for place, label in enumerate(items)])


def _named_targets(data: Any) -> list[Any] | None:
    """The labels that an attribute of a data set holds; None if there is no such attribute."""
    if isinstance(data, Subset):
        inner = _named_targets(data.dataset)
        return None if inner is None else [inner[place] for place in data.indices]
    if isinstance(data, ConcatDataset):
        parts = [_named_targets(part) for part in data.datasets]
        return None if None in parts else [label for part in parts for label in part or ()]
    if isinstance(data, TensorDataset):
        found: Any = data.tensors[1] if len(data.tensors) == 2 else None
    else:
        found = None if getattr(data, "target_transform", None) else getattr(data, "targets", None)
    if isinstance(found, Tensor | np.ndarray):
        return list(found) if found.ndim == 1 else None
    return found if isinstance(found, list) else None


def _label(y: Any, what: str) -> int:
    if isinstance(y, Tensor | np.ndarray) and y.ndim > 0:
        hint = ": y.argmax() makes one of one-hot labels" if y.ndim == 1 and len(y) > 1 else ""
        raise UserError(f"{what} has a label {list(y.shape)}, expected the number of a class{hint}")
    value = y.item() if isinstance(y, Tensor | np.ndarray | np.generic) else y
    if isinstance(value, int):
        return int(value)
    shown = repr(value) if len(repr(value)) <= 40 else f"a {type(value).__name__}"
    raise UserError(f"{what} has the label {shown}, expected the number of a class: 0, 1, 2, ...")


def _class_names(classes: Sequence[str] | None, train: Any, test: Any, targets: Sequence[Tensor]) -> tuple[str, ...]:
    """The names of the classes, checked against the labels of both splits."""
    least, most = min(int(t.min()) for t in targets), max(int(t.max()) for t in targets)
    if least < 0:
        raise UserError(f"a sample has the label {least}, expected 0 or more: leave samples without a class out")
    found = classes if classes is not None else _inner_classes(train)
    if classes is None:
        pairs = enumerate(zip(found or (), _inner_classes(test) or (), strict=False))
        differs = next(((label, ours, theirs) for label, (ours, theirs) in pairs if ours != theirs), None)
        if differs:
            label, ours, theirs = differs
            raise UserError(
                f"label {label} is the class {str(ours)!r} of training samples and {str(theirs)!r} of test samples: number the "
                "classes alike in both, or give classes, the names of all"
            )
    if found is not None:
        names = tuple(str(name) for name in found)
        if len(set(names)) < len(names):
            raise UserError("classes has a name twice, expected one for each class")
        if most >= len(names):
            hint = ": labels count from 0, y - 1" if most == len(names) and targets[0].min() == 1 else ""
            raise UserError(f"a sample has the label {most}, and there are names of {len(names)} classes{hint}")
        return names
    missing = sorted({*range(most + 1)} - {*targets[0].tolist()})
    if missing == [0]:
        raise UserError(f"labels run from 1 to {most}, expected 0 to {most - 1}: subtract 1")
    if missing:
        raise UserError(
            f"no training sample has the label {missing[0]}, and the largest label is {most}: number the classes 0, 1, 2, ... "
            "without gaps, or give classes, the names of all"
        )
    return tuple(map(str, range(most + 1)))


def _inner_classes(data: Any) -> Sequence[str] | None:
    found = getattr(_inner(data), "classes", None)
    return found if isinstance(found, list | tuple) and found else None


def _statistics(
    samples: Samples, form: Form, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Those that are given, or else those of images spread evenly over the samples."""
    channels = form.shape[-3]
    if (mean is None) != (std is None):
        raise UserError("mean and std come together: give both or neither")
    if mean is not None and std is not None:
        if form.kind == "events":
            raise UserError("event frames are taken as they are: leave mean and std out")
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise UserError(
                f"mean is {list(mean)} and std {list(std)}, expected a number for each of {channels} channels, and each std above 0"
            )
        return tuple(map(float, mean)), tuple(map(float, std))
    if form.kind == "events":
        return (0.0,) * channels, (1.0,) * channels
    with same_draws(0):
        return statistics(samples.inputs(places) for places in spread(len(samples)).split(100))
