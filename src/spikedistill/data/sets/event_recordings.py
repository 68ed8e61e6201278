"""Data sets of event recordings, which are prepared once: CIFAR10-DVS, DVS128 Gesture, N-Caltech101, and a user's own."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from ...options import OptionValue
from ..class_folders import Files, own_folders
from ..dataset import FileSamples
from ..entries import Entry, register_dataset
from ..files import data_error
from ..prepared import OWN, Asked, Clip, Clips, Cut, Kind
from ..recordings import SUFFIXES, read_recording

_SPLITS = Path(__file__).parents[1] / "splits"

CIFAR10_DVS = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"
DVS_GESTURE = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8"
N_CALTECH101 = "https://www.garrickorchard.com/datasets/n-caltech101"


@dataclass(frozen=True)
class Sensor:
    """What the files of a data set do not say of their camera."""

    size: tuple[int, int]
    camera: str | None = None
    turned: bool = False

    def cut(self, asked: Asked) -> Cut:
        return Cut(
            timesteps=asked.timesteps,
            slicing=asked.slicing,
            size=asked.size or self.size,
            sensor=self.size,
            milliseconds=asked.milliseconds,
            camera=self.camera,
            turn="spikingjelly" if self.turned else "as stored",
        )


# CIFAR10-DVS


def cifar10_dvs(folder: Path, asked: Asked) -> Clips:
    """The 10,000 recordings `<class>/cifar10_<class>_<k>.aedat` of CIFAR10-DVS (Li et al., 2017), 1,000 of each class.

    The option `split`: "stratified" tests on 100 recordings of each class, drawn with seed 0; "seed42" on the 1,000 that
    PyTorch's `random_split` draws with seed 42 from all, sorted by name, as in the code of TWKD and ESD.

    Raises:
        FileNotFoundError: recordings are missing.
        UserError: for another split.
    """
    file = _SPLITS / f"cifar10_dvs-{asked.own['split']}.txt"
    known = sorted(path.stem.partition("-")[2] for path in _SPLITS.glob("cifar10_dvs-*.txt"))
    if asked.own["split"] not in known:
        raise UserError(f"split of cifar10_dvs is {' or '.join(known)}; got {asked.own['split']!r}")
    tested = set(file.read_text().split())
    classes = tuple(sorted({name.partition("/")[0] for name in tested}))
    names = sorted(f"{label}/cifar10_{label}_{k}" for label in classes for k in range(1000))
    missing = [name for name in names if not (folder / f"{name}.aedat").is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the {len(names)} recordings, among them {missing[0]}.aedat: unpack all archives of "
            f"{CIFAR10_DVS} there, a folder for each class"
        )
    clips = {name: Clip(f"{name}.aedat", classes.index(name.partition("/")[0])) for name in names}
    return Clips(
        folder,
        tuple(clip for name, clip in clips.items() if name not in tested),
        tuple(clip for name, clip in clips.items() if name in tested),
        classes,
        Sensor((128, 128), "DVS128", turned=True).cut(asked),
    )


# DVS128 Gesture

GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right hand clockwise",
    "right hand counter clockwise",
    "left hand clockwise",
    "left hand counter clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)


def dvs_gesture(folder: Path, asked: Asked) -> Clips:
    """Gestures cut from the recordings of 29 people (Amir et al., 2017): of people 1 to 23 to train on, of the others to test on.

    `trials_to_train.txt` and `trials_to_test.txt` name the recordings. Each, such as `user01_fluorescent.aedat`, has a table
    `user01_fluorescent_labels.csv` of gestures, 1 to 11, with the microseconds of their begin and end.

    Raises:
        FileNotFoundError: a recording or table is missing.
        UserError: for a table that is none.
    """
    found: dict[str, list[Clip]] = {}
    for split in ("train", "test"):
        trials = folder / f"trials_to_{split}.txt"
        if not trials.is_file():
            raise FileNotFoundError(f"{trials} is missing: unpack {DVS_GESTURE} there")
        names = trials.read_text().split()
        found[split] = [clip for name in names for clip in _gestures(folder, name)]
    people = {split: {clip.file.partition("_")[0] for clip in clips} for split, clips in found.items()}
    if both := people["train"] & people["test"]:
        raise data_error(folder, f"has {', '.join(sorted(both))} in training and in testing", "unpack it again")
    return Clips(folder, tuple(found["train"]), tuple(found["test"]), GESTURES, Sensor((128, 128)).cut(asked))


def _gestures(folder: Path, name: str) -> list[Clip]:
    table = folder / name.replace(".aedat", "_labels.csv")
    if not table.is_file():
        raise FileNotFoundError(f"{table} is missing: unpack {DVS_GESTURE} there")
    found = []
    with table.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                label, start, stop = (int(row[key]) for key in ("class", "startTime_usec", "endTime_usec"))
            except (KeyError, TypeError, ValueError):
                label, start, stop = 0, 0, 0
            if not 1 <= label <= len(GESTURES) or not 0 <= start < stop:
                columns = "class (1 to 11), startTime_usec and endTime_usec"
                raise data_error(table, f"line {number} holds {dict(row)}, expected {columns}", "unpack it again")
            found.append(Clip(name, label - 1, start, stop))
    return found


# N-Caltech101


def ncaltech101(folder: Path, asked: Asked) -> Clips:
    """The recordings `<class>/image_<k>.bin` of N-Caltech101 (Orchard et al., 2015), a tenth of each class to test on.

    The data set has no official split: which recordings are tested on follows from their names, so that it is the same everywhere.

    Raises:
        FileNotFoundError: there is no folder of a class.
        UserError: if a class has too few recordings.
    """
    found = own_folders(Files("ncaltech101", (".bin",), _unread), folder, 0.1)
    return _of_folders(folder, found.train, found.test, found.classes, Sensor((180, 240)).cut(asked))


# A user's own


def event_folder(folder: Path, asked: Asked) -> Clips:
    """Recordings of any format `read_recording` knows, in `train/<class>/` and `test/<class>/`, or in one folder per class.

    The options are `test_share`, the share of each class to test on if there is no folder of test recordings; `sensor`, such as
    "260x346" (height x width), if the files do not state it; and `camera` for AEDAT 2.0 whose header names none.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: if classes or options are wrong, or the sensor is not known.
    """
    share = float(asked.own["test_share"]) or None
    camera = str(asked.own["camera"]) or None
    found = own_folders(Files("event_folder", SUFFIXES, _unread), folder, share)
    size = _sensor(found.train.paths, str(asked.own["sensor"]), camera)
    return _of_folders(folder, found.train, found.test, found.classes, Sensor(size, camera).cut(asked))


def _sensor(paths: Sequence[Path], given: str, camera: str | None) -> tuple[int, int]:
    """The size of the sensor: the given one, or that of the first recording that states it."""
    if given:
        sides = given.lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
            raise UserError(f"sensor is HEIGHTxWIDTH in pixels, such as 260x346; got {given!r}")
        return int(sides[0]), int(sides[1])
    fault: UserError | None = None
    for path in paths[:_LOOK]:
        try:
            found = read_recording(path, camera=camera)
        except UserError as error:
            fault = fault or error
            continue
        if found.size is not None:
            return found.size
        raise UserError(f"{path} does not state the size of its sensor: add --data.options.sensor HEIGHTxWIDTH")
    assert fault is not None
    raise fault


_LOOK = 5


def _unread(path: Path) -> torch.Tensor:
    raise AssertionError(path)  # recordings are read when they are prepared


def _of_folders(folder: Path, train: FileSamples, test: FileSamples, classes: Sequence[str], cut: Cut) -> Clips:
    def clips(samples: FileSamples) -> tuple[Clip, ...]:
        pairs = zip(samples.paths, samples.targets.tolist(), strict=True)
        return tuple(Clip(path.relative_to(folder).as_posix(), target) for path, target in pairs)

    return Clips(folder, clips(train), clips(test), tuple(classes), cut)


def _register(kind: Kind, own: Mapping[str, OptionValue], **entry: Any) -> None:
    register_dataset(
        Entry(
            name=kind.name,
            load=kind.load,
            recordings=kind,
            options=("timesteps", "size", "slicing"),
            own_options={**OWN, **own},
            checked="the files of prepared samples have the sizes listed in their manifest; --verify reads every sample",
            **entry,
        )
    )


_register(
    Kind("cifar10_dvs", cifar10_dvs, "CIFAR10DVS", timesteps=10, size=(48, 48)),
    {"split": "stratified"},
    about="CIFAR-10's pictures seen by an event camera, 10,000 recordings of 128 x 128 in 10 classes, scaled to 48 x 48.",
    files="CIFAR10DVS/<class>/cifar10_<class>_<k>.aedat",
    page=CIFAR10_DVS,
    usual={"epochs": 100, "timesteps": 10, "model.name": "vgg9", "data.batch_size": 32, "optimizer.lr": 0.1},
)
_register(
    Kind("dvs_gesture", dvs_gesture, "DvsGesture", timesteps=16, size=(48, 48)),
    {},
    about="11 gestures of 29 people seen by an event camera of 128 x 128, scaled to 48 x 48; the test set has other people.",
    files="DvsGesture/user<k>_<light>.aedat, user<k>_<light>_labels.csv, trials_to_{train,test}.txt",
    page=DVS_GESTURE,
    usual={"epochs": 100, "timesteps": 16, "model.name": "vgg9", "data.batch_size": 16, "optimizer.lr": 0.1},
)
_register(
    Kind("ncaltech101", ncaltech101, "Caltech101", timesteps=10, size=(48, 48)),
    {},
    about="Caltech101's pictures seen by an event camera, 8,709 recordings of 180 x 240 in 101 classes, scaled to 48 x 48.",
    files="Caltech101/<class>/image_<k>.bin",
    page=N_CALTECH101,
    usual={"epochs": 100, "timesteps": 10, "model.name": "vgg9", "data.batch_size": 32, "optimizer.lr": 0.1},
)
_register(
    Kind("event_folder", event_folder, "", timesteps=10),
    {"test_share": 0.0, "sensor": "", "camera": ""},
    about="Your own recordings of an event camera, in a folder for each class.",
    files="{train,test}/<class>/*.{aedat,aedat4,bin,dat,es,npz,raw}",
    tree="""
        ROOT/
          train/
            left/    0001.raw  0002.raw  ...   (any format that spikedistill.data.read_recording reads)
            right/   0001.raw  ...
          test/      the same folders; or leave it out and add --data.options.test-share 0.2
    """,
    usual={"epochs": 30, "timesteps": 10, "data.batch_size": 32, "optimizer.lr": 0.05},
)
