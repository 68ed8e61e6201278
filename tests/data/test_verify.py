"""Reading every sample: what `spikedistill data` says that it checked, and which files it names as broken."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikedistill.cli import main
from spikedistill.data import BrokenSample, Dataset, FileSamples, TensorSamples, load_dataset, verify


def image_folder(root: Path, number: int = 3) -> Path:
    for split in ("train", "test"):
        for name in ("ant", "cat"):
            (root / split / name).mkdir(parents=True)
            for k in range(number):
                noise = np.random.default_rng(k).integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(noise).save(root / split / name / f"{k}.png")
    return root


def event_frames(root: Path) -> Path:
    for split in ("train", "test"):
        (root / split / "a").mkdir(parents=True)
        for k in range(3):
            np.savez(root / split / "a" / f"{k}.npz", frames=np.ones((3, 2, 4, 4), np.uint8))
    return root


def nmnist(root: Path) -> Path:
    for split in ("Train", "Test"):
        for digit in range(10):
            (root / "N-MNIST" / split / str(digit)).mkdir(parents=True)
            (root / "N-MNIST" / split / str(digit) / "00001.bin").write_bytes(bytes([1, 2, 0, 0, 5]))
    return root


def cut(path: Path, length: int = -40) -> None:
    path.write_bytes(path.read_bytes()[:length])


def test_without_verify_it_says_what_it_did_not_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut(image_folder(tmp_path) / "train" / "cat" / "1.png")
    assert main(["data", "image_folder", "--data.root", str(tmp_path)]) == 0
    said, complaint = capsys.readouterr()
    assert said.splitlines() == [
        "image_folder: 6 training and 6 test samples of 2 classes, 3 x 32 x 32",
        "training samples of each class: 3",
        "images of 20x20 (height x width) are scaled and cropped at the centre to 32x32, in colour",
        "checked: file names and classes; pixels are not read: --verify reads them",
    ]
    assert complaint == ""


def test_verify_names_every_broken_file_of_both_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_folder(tmp_path)
    cut(tmp_path / "train" / "cat" / "1.png")
    (tmp_path / "train" / "ant" / "0.png").write_bytes(b"")
    (tmp_path / "test" / "ant" / "2.png").write_text("no image")
    flipped = bytearray((tmp_path / "test" / "cat" / "0.png").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "test" / "cat" / "0.png").write_bytes(flipped)
    assert main(["data", "image_folder", "--verify", "--data.root", str(tmp_path)]) == 2
    said, complaint = capsys.readouterr()
    assert said.splitlines()[0] == "image_folder: 6 training and 6 test samples of 2 classes, 3 x 32 x 32"
    *faults, last = complaint.splitlines()
    broken = ("train/ant/0.png", "train/cat/1.png", "test/ant/2.png", "test/cat/0.png")
    assert len(faults) == 4
    for fault, path in zip(faults, broken, strict=True):
        assert fault.startswith(f"{tmp_path / path}: is no readable image (")
        assert fault.endswith("; replace or remove it")
    assert last == "spikedistill data: 4 of 12 samples are broken: replace or remove them"


def test_of_many_broken_files_twenty_are_shown_and_all_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image_folder(tmp_path, number=12)
    for path in (tmp_path / "train").rglob("*.png"):
        cut(path)
    assert main(["data", "image_folder", "--verify", "--data.root", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[20]) == (22, "and 4 more")
    assert lines[21].endswith("24 of 48 samples are broken: replace or remove them")


def test_sound_data_are_read_to_the_end_with_their_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_folder(tmp_path / "images")
    assert main(["data", "image_folder", "--verify", "--data.root", f"{tmp_path}/images", "--data.size", "8"]) == 0
    assert capsys.readouterr() == (
        "image_folder: 6 training and 6 test samples of 2 classes, 3 x 8 x 8\n"
        "training samples of each class: 3\n"
        "images of 20x20 (height x width) are scaled and cropped at the centre to 8x8, in colour\n"
        "verified: all 12 samples were read, none is broken\n",
        "",
    )
    nmnist(tmp_path)
    options = ["--timesteps", "4", "--data.slicing", "time"]
    assert main(["data", "nmnist", "--verify", "--data.root", str(tmp_path), *options]) == 0
    assert main(["data", "digits", "--verify"]) == 0
    assert "all 1797 samples were read, none is broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verify"], "--verify reads one data set: say which, such as spikedistill data image_folder --verify"),
        (
            ["digits", "--data.size", "8"],
            "digits takes no 'size', which is an option of arrays, cifar10_dvs, dvs_gesture, event_folder, image_folder",
        ),
        (
            ["image_folder", "--data.size", "0"],
            "size is the images' side in pixels, or height and width, at most 9459 and at least 1; got 0",
        ),
        (["image_folder", "--data.size", "1000000000"], "at most 9459 and at least 1; got 1000000000"),
        (["nmnist", "--timesteps", "1000000000"], "at most 116105 and at least 1; got 1000000000"),
        (["nmnist", "--timesteps", "-1"], "timesteps is the number of frames per recording"),
        (["nmnist", "--data.slicing", "both"], "slicing is one of number, even, time, even-time; got 'both'"),
        (["event_frames", "--timesteps", "7"], "0.npz: holds 3 frames, expected 7; add --timesteps 3 or 1"),
        (["imagenot"], "no data set is called 'imagenot': did you mean 'imagenet' or"),
    ],
)
def test_wrong_requests_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    for make, name in ((event_frames, "event_frames"), (image_folder, "image_folder"), (nmnist, "nmnist")):
        make(tmp_path / name)
    root = tmp_path / arguments[0] if (tmp_path / arguments[0]).exists() else tmp_path
    assert main(["data", *arguments, "--data.root", str(root)]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1


def test_frames_are_verified_also_where_the_first_file_is_broken(tmp_path: Path) -> None:
    event_frames(tmp_path)
    cut(tmp_path / "train" / "a" / "0.npz")
    np.savez(tmp_path / "train" / "a" / "2.npz", frames=np.ones((2, 2, 4, 4)))
    np.savez(tmp_path / "test" / "a" / "1.npz", frames=np.full((3, 2, 4, 4), np.nan))
    faults = verify(load_dataset("event_frames", tmp_path))
    assert [fault.split(": ")[0] for fault in faults] == [
        str(tmp_path / name) for name in ("train/a/0.npz", "train/a/2.npz", "test/a/1.npz")
    ]
    for path in (tmp_path / "train").rglob("*.npz"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"train/a/0\.npz: is no readable \.npz file"):
        load_dataset("event_frames", tmp_path)


def test_recordings_are_verified(tmp_path: Path) -> None:
    nmnist(tmp_path)
    cut(tmp_path / "N-MNIST" / "Train" / "3" / "00001.bin", 4)
    (tmp_path / "N-MNIST" / "Test" / "9" / "00001.bin").write_bytes(bytes([99, 2, 0, 0, 5]))
    dataset = load_dataset("nmnist", tmp_path)
    (tmp_path / "N-MNIST" / "Test" / "0" / "00001.bin").unlink()
    faults = verify(dataset)
    assert len(faults) == 3
    assert "Train/3/00001.bin: byte 0: ends after 4 bytes of a record of 5" in faults[0]
    assert "Test/0/00001.bin is missing" in faults[1]
    assert "Test/9/00001.bin: 1 of 1 events lie outside the sensor of 34x34 (height x width) pixels" in faults[2]


def test_progress_sees_every_sample_once_and_samples_in_memory_are_checked_too() -> None:
    seen: list[int] = []

    def track(numbers: range) -> range:
        seen.extend(numbers)
        return numbers

    train = TensorSamples(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2, -100]))
    test = TensorSamples(torch.zeros(1, 1, 3, 2, dtype=torch.uint8), torch.tensor([0]))
    dataset = Dataset("mine", train, test, ("a", "b"), (0.0,), (1.0,), "image", 1, (2, 2))
    assert verify(dataset, track) == [
        "mine: training sample 2 has label 2, expected 0 to 1",
        "mine: training sample 3 has label -100, expected 0 to 1",
        "mine: test sample 0 has the shape [1, 3, 2] of channels, height and width, expected [1, 2, 2]",
    ]
    assert seen == [0, 1, 2, 3, 4]


def test_a_broken_sample_names_its_file_and_the_command_that_finds_all(tmp_path: Path) -> None:
    train = load_dataset("image_folder", image_folder(tmp_path)).train
    cut(tmp_path / "train" / "ant" / "2.png")
    (tmp_path / "train" / "cat" / "0.png").unlink()
    for index, name in ((2, "ant/2.png"), (3, "cat/0.png")):
        with pytest.raises(BrokenSample) as error:
            train.subset(torch.tensor([1, index])).inputs(torch.tensor([0, 1]))
        assert str(error.value).startswith(f"{tmp_path}/train/{name}: is no readable image (")
        assert str(error.value).endswith("; `spikedistill data image_folder --verify` names every broken file")
        copy = pickle.loads(pickle.dumps(error.value))  # as worker processes send it
        assert (type(copy), str(copy), copy.fault) == (BrokenSample, str(error.value), error.value.fault)


def no_more_files(path: Path) -> torch.Tensor:
    raise OSError(24, "Too many open files")


def test_whatever_keeps_a_file_from_being_read_is_told_with_its_name() -> None:
    samples = FileSamples([Path("some/file")], torch.tensor([0]), no_more_files)
    with pytest.raises(BrokenSample, match=r"^some/file: \[Errno 24\] Too many open files$"):
        samples.inputs(torch.tensor([0]))
