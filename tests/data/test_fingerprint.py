"""The fingerprint is the same for the same data wherever they lie, and another as soon as they are others."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikedistill.data import BrokenSample, Dataset, FileSamples, TensorSamples, fingerprint, load_dataset


def image_folder(root: Path) -> Path:
    for split, number in (("train", 3), ("test", 2)):
        for name in ("ant", "cat"):
            (root / split / name).mkdir(parents=True)
            for k in range(number):
                noise = np.random.default_rng(k).integers(0, 256, (8 + k, 8), dtype=np.uint8)
                Image.fromarray(noise).save(root / split / name / f"{k}.png")
    return root


def event_folders(root: Path) -> Path:
    for folder in ("train/a", "test/a", *(f"N-MNIST/{split}/{k}" for split in ("Train", "Test") for k in range(10))):
        (root / folder).mkdir(parents=True)
        np.savez(root / folder / "a.npz", frames=np.zeros((3, 2, 4, 4), np.uint8))
        (root / folder / "a.bin").write_bytes(bytes(5))
    return root


def test_the_same_files_in_another_folder_are_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint(load_dataset("image_folder", image_folder(tmp_path / "a" / "long" / "way")))
    assert first == fingerprint(load_dataset("image_folder", image_folder(tmp_path / "b")))
    monkeypatch.chdir(tmp_path)
    assert first == fingerprint(load_dataset("image_folder", "b"))
    (tmp_path / "b" / "test").rename(tmp_path / "b" / "val")
    assert first == fingerprint(load_dataset("image_folder", tmp_path / "b"))
    assert set(first) == {"train", "test"}
    assert all(len(digest) == 64 and int(digest, 16) for digest in first.values())


def new_image(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def add_30(folder: Path) -> None:
    for k in range(30):
        new_image(folder / f"more{k}.png")


def swap(a: Path, b: Path) -> None:
    a.rename(a.with_name("aside"))
    b.rename(a)
    a.with_name("aside").rename(b)


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "30 images added": (lambda root: add_30(root / "train" / "cat"), {"train"}),
    "an image added to the test set": (lambda root: new_image(root / "test" / "cat" / "9.png"), {"test"}),
    "an image removed": (lambda root: (root / "train" / "ant" / "1.png").unlink(), {"train"}),
    "an image renamed": (
        lambda root: (root / "train" / "ant" / "1.png").rename(root / "train" / "ant" / "7.png"),
        {"train"},
    ),
    "an image renamed in its place": (
        lambda root: (root / "train" / "ant" / "2.png").rename(root / "train" / "ant" / "7.png"),
        {"train"},
    ),
    "an image of another size": (
        lambda root: Image.new("RGB", (80, 80), (1, 2, 3)).save(root / "train" / "ant" / "1.png"),
        {"train"},
    ),
    "two images swapped": (
        lambda root: swap(root / "train" / "ant" / "0.png", root / "train" / "ant" / "2.png"),
        {"train"},
    ),
    "an image moved to another class": (
        lambda root: (root / "train" / "ant" / "1.png").rename(root / "train" / "cat" / "9.png"),
        {"train"},
    ),
    "a class added": (lambda root: new_image(root / "train" / "dog" / "0.png"), {"train", "test"}),
    "a class renamed": (
        lambda root: [(root / split / "cat").rename(root / split / "owl") for split in ("train", "test")],
        {"train", "test"},
    ),
    "a class removed": (
        lambda root: [shutil.rmtree(root / split / "cat") for split in ("train", "test")],
        {"train", "test"},
    ),
}


@pytest.mark.parametrize(("change", "changed"), CHANGES.values(), ids=CHANGES)
def test_other_files_are_other_data(tmp_path: Path, change: Callable[[Path], object], changed: set[str]) -> None:
    before = fingerprint(load_dataset("image_folder", image_folder(tmp_path)))
    change(tmp_path)
    after = fingerprint(load_dataset("image_folder", tmp_path))
    assert {split for split in before if before[split] != after[split]} == changed


def test_two_classes_with_their_names_swapped_are_other_data(tmp_path: Path) -> None:
    new_image(image_folder(tmp_path) / "train" / "cat" / "9.png")
    before = fingerprint(load_dataset("image_folder", tmp_path))
    swap(tmp_path / "train" / "ant", tmp_path / "train" / "cat")
    after = fingerprint(load_dataset("image_folder", tmp_path))
    assert before["train"] != after["train"]


def test_options_that_shape_the_samples_count(tmp_path: Path) -> None:
    event_folders(tmp_path)
    seen = [
        fingerprint(load_dataset("nmnist", tmp_path, timesteps=timesteps, slicing=slicing))["train"]
        for timesteps in (None, 4, 5)
        for slicing in ("number", "even", "time")
    ]
    assert len(set(seen)) == 9
    assert seen[0] == fingerprint(load_dataset("nmnist", tmp_path))["train"], "defaults are as good as given"
    frames = fingerprint(load_dataset("event_frames", tmp_path))
    assert frames == fingerprint(load_dataset("event_frames", tmp_path, timesteps=3))
    images = image_folder(tmp_path / "images")
    sizes = [fingerprint(load_dataset("image_folder", images, size=size)) for size in (16, 32)]
    assert sizes[0]["train"] != sizes[1]["train"]
    assert sizes[1] == fingerprint(load_dataset("image_folder", images))


def in_memory(**changes: object) -> dict[str, str]:
    data = torch.arange(4 * 12).view(4, 3, 2, 2).to(torch.uint8)
    samples = TensorSamples(data, torch.tensor([0, 1, 0, 1]))
    dataset = Dataset("mine", samples, samples, ("a", "b"), (0.5,) * 3, (0.5,) * 3, "image", 3, (2, 2))
    return fingerprint(replace(dataset, **changes))  # type: ignore[arg-type]


def test_values_labels_and_their_order_count_in_memory() -> None:
    data = torch.arange(4 * 12).view(4, 3, 2, 2).to(torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    one_level = data.clone()
    one_level[2, 1, 0, 1] += 1
    others = [
        TensorSamples(one_level, labels),
        TensorSamples(data, torch.tensor([1, 0, 0, 1])),
        TensorSamples(data.flip(0), labels.flip(0)),
        TensorSamples(data[:3], labels[:3]),
        TensorSamples(data.float(), labels),
        TensorSamples(data.view(4, 12, 1, 1), labels),
        TensorSamples(data[:0], labels[:0]),
    ]
    digests = [in_memory(train=samples)["train"] for samples in others]
    assert len({*digests, in_memory()["train"]}) == len(others) + 1
    assert in_memory(train=others[0])["test"] == in_memory()["test"]
    changed = [in_memory(classes=("a", "c")), in_memory(kind="events"), in_memory(options={"size": 2})]
    assert len({digest["train"] for digest in [*changed, in_memory()]}) == 4
    # the same values, laid out in memory otherwise
    assert in_memory(train=TensorSamples(data.to(memory_format=torch.channels_last), labels)) == in_memory()


def test_a_file_that_has_vanished_is_named(tmp_path: Path) -> None:
    dataset = load_dataset("image_folder", image_folder(tmp_path))
    (tmp_path / "train" / "cat" / "1.png").unlink()
    with pytest.raises(
        BrokenSample, match=r"No such file or directory: .*train/cat/1\.png'; `spikedistill data image_f"
    ):
        fingerprint(dataset)


def test_names_in_no_known_encoding_have_a_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9"
    path.write_bytes(b"abc")
    samples = FileSamples([path], torch.tensor([0]), lambda path: torch.zeros(1), tmp_path)
    assert in_memory(train=samples, classes=("caf\udce9",))["train"] != in_memory(train=samples)["train"]


@pytest.mark.data
def test_official_data_have_one_fingerprint_each(data_root: Path) -> None:
    names = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
    seen = [digest for name in names for digest in fingerprint(load_dataset(name, data_root)).values()]
    assert len(set(seen)) == 2 * len(names)
