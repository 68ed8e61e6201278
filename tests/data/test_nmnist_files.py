"""N-MNIST, written here from the format: 40 bits an event, x, y, one bit of polarity, 23 bits of microseconds, big-endian."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spikedistill.data import Recording, load_dataset
from spikedistill.data.sets.nmnist import read_events

Event = tuple[int, int, int, int]


def event_bytes(*events: Event) -> bytes:
    return b"".join(((x << 32) | (y << 24) | (p << 23) | t).to_bytes(5, "big") for x, y, p, t in events)


def fields(events: Recording) -> list[list[int]]:
    return [getattr(events, name).tolist() for name in ("x", "y", "polarity", "time")]


def write_dataset(root: Path, content: bytes) -> Path:
    for split in ("Train", "Test"):
        for digit in range(10):
            folder = root / "N-MNIST" / split / str(digit)
            folder.mkdir(parents=True)
            (folder / "00001.bin").write_bytes(content)
    return root


def test_the_fields_of_an_event_by_hand(tmp_path: Path) -> None:
    # 0x92 = 1 0010010: polarity 1, then time 0x12 34 56 = 18 * 65536 + 52 * 256 + 86 = 1193046
    (tmp_path / "a.bin").write_bytes(bytes([33, 7, 0x92, 0x34, 0x56, 0, 33, 0x12, 0x34, 0x57]))
    events = read_events(tmp_path / "a.bin")
    assert fields(events) == [[33, 0], [7, 33], [1, 0], [1193046, 1193047]]


def test_row_240_says_that_the_clock_went_round(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(event_bytes((1, 2, 0, 8000), (0, 240, 0, 0), (3, 4, 1, 10)))
    events = read_events(tmp_path / "a.bin")
    assert fields(events) == [[1, 3], [2, 4], [0, 1], [8000, 8192 + 10]]


def test_a_dataset_reads_recordings_on_use(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, event_bytes((1, 2, 0, 5), (3, 4, 1, 6), (5, 6, 1, 7)))
    dataset = load_dataset("nmnist", root, timesteps=3)
    assert (len(dataset.train), len(dataset.test)) == (10, 10)
    frames = dataset.train.inputs(torch.tensor([4, 2]))
    assert (frames.shape, frames.dtype) == ((2, 3, 2, 34, 34), torch.float32)
    assert frames[0, 1, 1, 4, 3] == 1
    assert load_dataset("nmnist", root).train.inputs(torch.tensor([0])).shape[1] == 10
    by_time = load_dataset("nmnist", root, timesteps=2, slicing="time")  # 2 microseconds: 1 a frame
    assert by_time.train.inputs(torch.tensor([0]))[0].sum((1, 2, 3)).tolist() == [1, 2]
    evenly = load_dataset("nmnist", root, timesteps=2, slicing="even-time")  # 3 microseconds: 1.5 a frame
    assert evenly.train.inputs(torch.tensor([0]))[0].sum((1, 2, 3)).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: is empty, expected the events of a camera; copy or download it again"),
        (
            event_bytes((1, 2, 0, 5), (1, 2, 0, 6))[:-1],
            "byte 5: ends after 4 bytes of a record of 5: the file is cut; copy or download it again",
        ),
        (
            event_bytes((1, 2, 0, 5), (34, 2, 0, 6)),
            "1 of 2 events lie outside the sensor of 34x34 (height x width) pixels, the first is number 1 at x=34, y=2",
        ),
        (
            event_bytes((1, 200, 0, 5), (1, 34, 0, 6)),
            "2 of 2 events lie outside the sensor of 34x34 (height x width) pixels, the first is number 0 at x=1, y=200",
        ),
        (event_bytes((0, 240, 0, 0)), "holds no events, only marks of clock overflow"),
    ],
)
def test_a_damaged_recording_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    dataset = load_dataset("nmnist", write_dataset(tmp_path, content))
    with pytest.raises(ValueError, match=r"N-MNIST/Train/3/00001\.bin: .*again") as error:
        dataset.train.inputs(torch.tensor([3]))
    assert message in str(error.value)


def test_wrong_options_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="N-MNIST/Train is missing"):
        load_dataset("nmnist", tmp_path)
    root = write_dataset(tmp_path, event_bytes((1, 2, 0, 5)))
    with pytest.raises(ValueError, match="at least 1; got 0"):
        load_dataset("nmnist", root, timesteps=0)
    with pytest.raises(ValueError, match="slicing is one of number, even, time, even-time; got 'count'"):
        load_dataset("nmnist", root, slicing="count")
    (root / "N-MNIST" / "Train" / "7").rename(root / "N-MNIST" / "Train" / "seven")
    (root / "N-MNIST" / "Test" / "7").rename(root / "N-MNIST" / "Test" / "seven")
    with pytest.raises(ValueError, match=r"holds the folders 0, 1, .*seven, expected 0 to 9"):
        load_dataset("nmnist", root)


@pytest.mark.data
def test_real_recordings_look_like_the_camera_that_made_them(data_root: Path) -> None:
    dataset = load_dataset("nmnist", data_root, timesteps=10)
    frames = dataset.train.inputs(torch.arange(0, len(dataset.train), 20))
    per_frame = frames.sum((2, 3, 4))
    assert (per_frame[:, :9] == per_frame.sum(1, keepdim=True) // 10).all(), (
        "equal numbers of events, what remains in the last"
    )
    even = load_dataset("nmnist", data_root, timesteps=10, slicing="even").train.inputs(torch.arange(20)).sum((2, 3, 4))
    assert (even.amax(1) - even.amin(1) <= 1).all()
    assert 2000 < per_frame.sum(1).mean() < 6000  # about 4,100 events a recording
    polarity = frames.sum((0, 1, 3, 4))
    assert 0.5 < polarity[0] / polarity[1] < 2  # three saccades there and back: what gets darker gets brighter
    # the camera's motion takes about 300 ms, in three saccades
    events = read_events(next((data_root / "N-MNIST" / "Test").rglob("*.bin")))
    assert 250_000 < events.time.max() - events.time.min() < 340_000
    assert (np.diff(events.time) >= 0).all()
