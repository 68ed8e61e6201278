"""Data sets by name."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

from ..errors import UserError
from ..options import OptionValue, check_options
from . import sets  # noqa: F401 it fills the entries
from .dataset import Dataset
from .entries import DATASETS, SHARED_OPTIONS

ROOT_VARIABLE = "SPIKEDISTILL_DATA"


def list_datasets() -> list[str]:
    """The names that `load_dataset` knows."""
    return list(DATASETS)


def expected_files(name: str) -> str:
    """The files of a data set and their source, in words.

    Raises:
        UserError: if no data set has this name.
    """
    entry = DATASETS[name]
    if entry.files is None:
        return f"none: it comes with {entry.page}"
    return f"ROOT/{entry.files} (from {entry.page})".replace("ROOT/ ", "ROOT ")


def example_tree(name: str) -> str:
    """The files of a user's own data as a tree of folders, in several lines; empty for other data sets.

    Raises:
        UserError: if no data set has this name.
    """
    return dedent(DATASETS[name].tree).strip()


def what_loading_checks(name: str) -> str:
    """What `load_dataset` checks of a data set and what it does not, in words.

    Raises:
        UserError: if no data set has this name.
    """
    return DATASETS[name].checked


def usual_settings(name: str) -> Mapping[str, Any] | None:
    """Settings of the recipes of a data set, by the settings' full names; None if it has no recipes.

    Raises:
        UserError: if no data set has this name.
    """
    return DATASETS[name].usual


def dataset_options(name: str) -> dict[str, OptionValue]:
    """A data set's own options and their defaults.

    Raises:
        UserError: if no data set has this name.
    """
    return dict(DATASETS[name].own_options)


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    timesteps: int | None = None,
    size: int | Sequence[int] | None = None,
    slicing: str | None = None,
    resize: str | None = None,
    channels: int | None = None,
    test_share: float | None = None,
    options: Mapping[str, OptionValue] | None = None,
) -> Dataset:
    """Load a data set and check its files; `what_loading_checks(name)` names the checks, and `verify` reads every
    sample.

    Args:
        name: one of `list_datasets()`.
        root: the folder that holds the files named by `expected_files(name)`; by default `$SPIKEDISTILL_DATA`. Unused by
            "digits".
        timesteps: T of event data: frames per recording of "nmnist" (default 10), and of "event_frames" and "arrays", whose frames
            are added up if it is a divisor of the number that the files have (default).
            Images have no time axis: they can be shown for any number of timesteps.
        size: height and width in pixels of the images of "image_folder" (default 32) and "arrays" (default as they are), or one
            number for both.
        slicing: how "nmnist" fills its frames: "number" (default), each with the same number of events, the remainder in the last;
            "even", the remainder spread; or "time", each equally long.
        resize: how images of "image_folder" and "arrays" get that size: "crop" (default), "pad", "stretch" or "centre",
            see `Preprocess`; of "imagenet" "centre" (default).
        channels: 3 for images of "image_folder" in colour (default), 1 for grey.
        test_share: for "image_folder", "event_frames" and "arrays" without test samples: the share of each class to test on.
        options: a registered data set's own options.

    Raises:
        FileNotFoundError: if no root is given, or files are missing in it.
        UserError: if no data set has this name, an option does not belong to it or is no whole number, or files are damaged or
            not the official ones.
        BrokenSample: when samples are read, if a file of "image_folder", "event_frames" or "nmnist" cannot be read.
    """
    entry = DATASETS[name]
    values = timesteps, size, slicing, resize, channels, test_share
    given: dict[str, Any] = dict(zip(SHARED_OPTIONS, values, strict=True))
    for key in ("timesteps", "size"):
        numbers = given[key] if key == "size" and isinstance(given[key], tuple | list) else [given[key]]
        if any(number is not None and type(number) is not int for number in numbers):
            raise UserError(f"{key} is a whole number; got {given[key]!r}")
    taken = {key: value for key, value in given.items() if value is not None and key in entry.options}
    for key in [*given][1:]:
        if given[key] is not None and key not in taken:
            owners = ", ".join(owner for owner, other in DATASETS.registered().items() if key in other.options)
            raise UserError(f"{name} takes no {key!r}, which is an option of {owners}; leave it out")
    check_options(f"data set {name!r}", entry.own_options, options or {})
    own = {**entry.own_options, **(options or {})}
    where = () if entry.files is None else (find_root(name, root),)
    found = entry.load(*where, **taken, **own)
    if DATASETS.origin(name) is None:
        return found
    if not isinstance(found, Dataset):
        raise UserError(
            f"the data set {name!r} returned a {type(found).__name__}, expected a spikedistill.data.Dataset, which "
            "Dataset.from_torch makes of two torch data sets"
        )
    return replace(found, name=name, options={**found.options, **own})


def find_root(name: str, root: str | Path | None) -> Path:
    """The data root: that given, or $SPIKEDISTILL_DATA.

    Raises:
        FileNotFoundError: if neither is, or it is no folder.
    """
    chosen = root or os.environ.get(ROOT_VARIABLE)
    if not chosen:
        raise FileNotFoundError(
            f"{name} is read from {expected_files(name)}: set --data.root or ${ROOT_VARIABLE} to the folder ROOT"
        )
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        given_by = "--data.root" if root else f"${ROOT_VARIABLE}"
        raise FileNotFoundError(
            f"{folder}, given by {given_by}, is no folder: {name} is read from {expected_files(name)}, with that folder "
            "as ROOT"
        )
    return folder
