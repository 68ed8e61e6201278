"""`spikedistill data`, `data prepare` and `data info`: where files belong, and what is in them."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from ..errors import UserError

if TYPE_CHECKING:
    from ..data import Dataset

Root = Annotated[Path | None, arg(name="data.root", metavar="FOLDER", help_behavior_hint="")]
Flag = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]
Name = Annotated[Positional[str], arg(metavar="NAME")]
Size = Annotated[int | tuple[int, int] | None, arg(name="data.size", metavar="H W", help_behavior_hint="")]
T = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Slicing = Annotated[str | None, arg(name="data.slicing", metavar="HOW", help_behavior_hint="")]
Own = Annotated[
    UseAppendAction[tuple[tuple[str, str], ...]], arg(name="data.options", metavar="NAME VALUE", help_behavior_hint="")
]
_MOST_FAULTS = 20  # most faults of a data set that are shown


def data(
    name: Annotated[Positional[str | None], arg(metavar="[NAME]", help_behavior_hint="")] = None,
    *,
    verify: Flag = False,
    root: Root = None,
    size: Size = None,
    resize: Annotated[str | None, arg(name="data.resize", metavar="HOW", help_behavior_hint="")] = None,
    channels: Annotated[int | None, arg(name="data.channels", metavar="INT", help_behavior_hint="")] = None,
    test_share: Annotated[float | None, arg(name="data.test-share", metavar="SHARE", help_behavior_hint="")] = None,
    slicing: Slicing = None,
    timesteps: T = None,
    own: Own = (),
) -> None:
    """Show where a data set's files belong, and check them.

    spikedistill data prepare NAME converts recordings of events once, and spikedistill data info NAME draws samples.

    Args:
        name: a data set; default all of them
        verify: read every sample and name every broken file
        root: folder of the data sets; default SPIKEDISTILL_DATA
        size: height and width of the images of image_folder and arrays, and of event frames, or one number for both
        resize: crop, pad, stretch or centre: how images get that size
        channels: 1 to read the images of image_folder in grey
        test_share: share of each class of your own data to test on, if there are no test samples
        slicing: number, even, time, even-time or duration: how recordings of events become frames
        timesteps: frames per recording of event data; default as in training
        own: an option of this data set; also written --data.options.NAME VALUE, as in training
    """
    from ..data import (
        DATASETS,
        example_tree,
        expected_files,
        list_datasets,
        load_dataset,
        samples_per_class,
        what_loading_checks,
    )
    from ..data import verify as faults_of
    from ..data.progress import progress

    if name is None:
        if verify:
            raise UserError("--verify reads one data set: say which, such as spikedistill data image_folder --verify")
        for known in list_datasets():
            package = DATASETS.package(known)
            print(f"{known}: {f'of the package {package}' if package else expected_files(known)}")
        return
    try:
        dataset = load_dataset(
            name,
            root=root,
            size=size,
            timesteps=timesteps,
            slicing=slicing,
            resize=resize,
            channels=channels,
            test_share=test_share,
            options=_options(name, own),
        )
    except FileNotFoundError:
        if tree := example_tree(name):
            print(f"{name} is read from such files:\n{tree}", flush=True)
        raise
    samples = len(dataset.train) + len(dataset.test)
    print(_summary(name, dataset), samples_per_class(dataset), *dataset.describe(), sep="\n")
    if not verify:
        print(f"checked: {what_loading_checks(name)}")
        return
    faults = faults_of(dataset, track=functools.partial(progress, description="reading samples"))
    for fault in faults[:_MOST_FAULTS]:
        print(fault, file=sys.stderr)
    if len(faults) > _MOST_FAULTS:
        print(f"and {len(faults) - _MOST_FAULTS} more", file=sys.stderr)
    if faults:
        raise UserError(f"{len(faults)} of {samples} samples are broken: replace or remove them")
    print(f"verified: all {samples} samples were read, none is broken")


def prepare(
    name: Name,
    *,
    source: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None,
    root: Root = None,
    size: Size = None,
    slicing: Slicing = None,
    timesteps: T = None,
    own: Own = (),
    workers: Annotated[int, arg(metavar="INT", help_behavior_hint="")] = 0,
    skip_bad: Flag = False,
) -> None:
    """Unpack the archives of ImageNet, or convert recordings of events once to frames, which training maps into memory.

    If the command is stopped or killed, give it again: it continues.

    Args:
        name: imagenet, tiny_imagenet, or a data set of recordings, such as cifar10_dvs or event_folder
        source: the folder of its archives or recordings; for recordings, default where spikedistill data NAME shows
        root: folder of the data sets, where the result goes; default SPIKEDISTILL_DATA
        size: height and width of the frames, or one number for both
        slicing: number, even, time, even-time or duration: how recordings become frames
        timesteps: T, frames per recording
        own: an option of this data set; also written --data.options.NAME VALUE, as in training
        workers: processes; default one for each core
        skip_bad: leave out recordings that cannot be read, and list them, in place of an error
    """
    from ..data import DATASETS, find_root, load_dataset, samples_per_class
    from ..data.progress import progress

    entry = DATASETS[name]
    if entry.recordings is None and entry.unpack is None:
        prepared = ", ".join(
            known for known, other in DATASETS.registered().items() if other.recordings or other.unpack
        )
        raise UserError(f"{name} is read as it is, without being prepared; {prepared} are prepared")
    if source is not None and not source.is_dir():
        raise FileNotFoundError(f"--source {source} is no folder: give the folder of the archives or recordings")
    if entry.unpack is not None:
        if source is None:
            raise UserError(
                f"{name} is unpacked from its archives ({entry.page}): add --source FOLDER, the folder of these"
            )
        entry.unpack(source, find_root(name, root), functools.partial(progress, description="unpacking"))
        dataset = load_dataset(name, root=root, size=size)
        print(_summary(name, dataset), samples_per_class(dataset), *dataset.describe(), sep="\n")
        return
    options = _options(name, own) | {"workers": workers, "skip_bad": skip_bad}
    options |= {} if source is None else {"source": str(source.absolute())}
    dataset = load_dataset(name, root=root, size=size, timesteps=timesteps, slicing=slicing, options=options)
    print(_summary(name, dataset), samples_per_class(dataset), *dataset.describe(), sep="\n")


def info(
    name: Name,
    *,
    root: Root = None,
    size: Size = None,
    slicing: Slicing = None,
    timesteps: T = None,
    own: Own = (),
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None,
) -> None:
    """Count the samples of a data set, and draw some of each class.

    Args:
        name: a data set
        root: folder of the data sets; default SPIKEDISTILL_DATA
        size: height and width, or one number for both
        slicing: how recordings of events become frames
        timesteps: frames per recording of event data
        own: an option of this data set; also written --data.options.NAME VALUE, as in training
        out: the picture, a PNG; events move in it, a frame for each timestep. Default NAME.png
    """
    from ..data import load_dataset, samples_per_class
    from ..data.pictures import draw_samples

    options = _options(name, own)
    dataset = load_dataset(name, root=root, size=size, timesteps=timesteps, slicing=slicing, options=options)
    print(_summary(name, dataset), samples_per_class(dataset), *dataset.describe(), sep="\n")
    picture = out or Path(f"{name}.png")
    draw_samples(dataset, picture)
    print(f"samples of each class: {picture}")


def _summary(name: str, dataset: "Dataset") -> str:
    frames = f"{dataset.options['timesteps']} frames of " if dataset.kind == "events" else ""
    return (
        f"{name}: {len(dataset.train)} training and {len(dataset.test)} test samples of {len(dataset.classes)} classes, "
        f"{frames}{dataset.channels} x {dataset.size[0]} x {dataset.size[1]}"
    )


def _options(name: str, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A data set's own options from words, with the types of their defaults.

    Raises:
        UserError: for a value of another type.
    """
    from ..data import dataset_options

    known, found = dataset_options(name), {}
    for words, value in given:
        key = words.replace("-", "_")
        kind = type(known.get(key, ""))
        try:
            found[key] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise UserError(f"--data.options.{words} is {value!r}, expected {expected}") from None
    return found
