"""N-MNIST: digits seen by an event camera, from the official 40-bit event files (Orchard et al., 2015)."""

from functools import partial
from pathlib import Path
from typing import get_args

from torch import Tensor

from ...errors import UserError
from ..class_folders import Files, labelled_files
from ..dataset import Dataset
from ..entries import Entry, register_dataset
from ..files import MOST_VALUES, data_error
from ..recordings import SLICINGS, Recording, frames_of, read_recording
from ..recordings.frames import ByShare

PAGE = "https://www.garrickorchard.com/datasets/n-mnist"
SIDE = 34
MOST_BYTES = 2**24  # bytes of a recording; the official ones have about 20,000
MOST_TIMESTEPS = MOST_VALUES // (2 * SIDE * SIDE)


def load_nmnist(root: Path, timesteps: int = 10, slicing: ByShare = "number") -> Dataset:
    """N-MNIST as frames `[T, 2, 34, 34]` of event counts, from `root/N-MNIST/{Train,Test}/<digit>/<id>.bin`, read when used.

    Any number of recordings is accepted: the whole set has 60,000 + 10,000.

    Args:
        root: the data root.
        timesteps: T, frames per recording.
        slicing: of N events "number" puts floor(N / T) into each frame and the remainder into the last one, as
            SpikingJelly does; "even" spreads the remainder, so that frames differ by one event at most; with "time" all
            frames last equally long but for the last, which has the remainder, as in SpikingJelly; with "even-time" all do.

    Raises:
        FileNotFoundError: a folder is missing.
        UserError: if `timesteps` or `slicing` has another value, or a folder is empty or no digit; when samples are
        read, if a file is damaged.
    """
    if not 1 <= timesteps <= MOST_TIMESTEPS:
        raise UserError(
            f"timesteps is the number of frames per recording, at most {MOST_TIMESTEPS} and at least 1; got {timesteps}"
        )
    if slicing not in get_args(ByShare):
        raise UserError(f"slicing is one of {', '.join(get_args(ByShare))}; got {slicing!r}")
    folder = root / "N-MNIST"
    read = partial(read_frames, timesteps=timesteps, slicing=slicing)
    train, test, classes, _ = labelled_files(Files("nmnist", (".bin",), read), folder / "Train", folder / "Test")
    if classes != tuple("0123456789"):
        raise data_error(
            folder / "Train", f"holds the folders {', '.join(classes[:12])}, expected 0 to 9", f"unpack {PAGE} there"
        )
    return Dataset(
        name="nmnist",
        train=train,
        test=test,
        classes=classes,
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        kind="events",
        channels=2,
        size=(SIDE, SIDE),
        options={"timesteps": timesteps, "slicing": SLICINGS[slicing].identity},
    )


def read_frames(path: Path, timesteps: int, slicing: ByShare) -> Tensor:
    """The recording of a file as frames `[timesteps, 2, 34, 34]` float32: events counted per frame, polarity and pixel.

    Raises:
        FileNotFoundError: it is missing.
        UserError: it is damaged, or holds no events.
    """
    return frames_of(read_events(path), timesteps, slicing, (SIDE, SIDE))


def read_events(path: Path) -> Recording:
    """The events of a file.

    Raises:
        FileNotFoundError: it is missing.
        UserError: if it is empty, is cut inside an event, or has an event outside 34x34 pixels.
    """
    again = f"unpack it again from {PAGE}"
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise data_error(path, f"holds more than {MOST_BYTES} bytes, which no official file does", again)
    found = read_recording(path, size=(SIDE, SIDE))
    if not len(found):
        raise data_error(path, "holds no events, only marks of clock overflow", again)
    return found


register_dataset(
    Entry(
        name="nmnist",
        about="70,000 digits as events of a camera, 34 x 34, in 10 classes.",
        load=load_nmnist,
        checked="file names and classes; events are not read: --verify reads them",
        files="N-MNIST/{Train,Test}/<digit>/<id>.bin",
        page=PAGE,
        options=("timesteps", "slicing"),
        usual={"epochs": 10, "timesteps": 10, "optimizer.lr": 0.05},
    )
)
