"""idx files, written here from the format: two zero bytes, type, number of axes, lengths as big-endian int32, then the data."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from spikedistill.data import load_dataset
from spikedistill.data.sets.idx import SOURCES, parse_idx, read_official

PAGE = "https://example.org/page"


def idx_bytes(values: np.ndarray, kind: int = 0x08) -> bytes:
    header = bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_fashion(root: Path, images: bytes, labels: bytes) -> None:
    folder = root / "fashion_mnist"
    folder.mkdir()
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))


def test_a_file_is_read_as_it_was_written() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3))
    assert (parse_idx(Path("x"), idx_bytes(images), (5, 4, 3), PAGE) == images).all()
    assert parse_idx(Path("x"), bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), (2,), PAGE).tolist() == [7, 9]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "starts with 3c68746d, an idx file of 5 images of 4x3 with 00000803"),
        (b"", "starts with , an idx file"),
        (idx_bytes(np.zeros((5, 4, 3)), kind=0x0D), "starts with 00000d03"),
        (idx_bytes(np.zeros(5)), "starts with 00000801"),
        (idx_bytes(np.zeros((5, 4, 3)))[:9], "announces nothing, expected 5 images of 4x3"),
        (idx_bytes(np.zeros((6, 4, 3))), "announces 6 images of 4x3, expected 5 images of 4x3"),
        (idx_bytes(np.zeros((5, 4, 4))), "announces 5 images of 4x4, expected 5 images of 4x3"),
        (idx_bytes(np.zeros((5, 4, 3)))[:-1], "holds 59 bytes of data, its header announces 60"),
        (idx_bytes(np.zeros((5, 4, 3))) + b"0", "holds 61 bytes of data, its header announces 60"),
    ],
    ids=["a web page", "empty", "floats", "labels", "cut header", "count", "size", "too short", "too long"],
)
def test_another_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"^some/file: ") as error:
        parse_idx(Path("some/file"), content, (5, 4, 3), PAGE)
    assert message in str(error.value)
    assert f"download it again from {PAGE}" in str(error.value)


def test_missing_labels_are_named_with_the_page_and_the_root_options(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        load_dataset("mnist", tmp_path)
    for part in (
        f"{tmp_path}/mnist/train-images-idx3-ubyte.gz is missing",
        SOURCES["mnist"].page,
        "--data.root",
        "$SPIKEDISTILL_DATA",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("damage", ["truncated", "no gzip", "flipped bit", "broken stream"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str) -> None:
    write_fashion(tmp_path, idx_bytes(np.arange(10)), idx_bytes(np.arange(10)))
    path = tmp_path / "fashion_mnist" / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-5]
    elif damage == "no gzip":
        content = bytearray(b"not a gzip file")
    else:
        content[15 if damage == "flipped bit" else 10] ^= 255  # the content, or the kind of its first block
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: cannot be read .*download it again from https"):
        load_dataset("fashion_mnist", tmp_path)


def test_labels_and_images_swapped_are_told_apart(tmp_path: Path) -> None:
    write_fashion(tmp_path, images=idx_bytes(np.zeros(60_000)), labels=b"")
    with pytest.raises(ValueError, match="starts with 00000801, an idx file of 60000 images of 28x28 with 00000803"):
        load_dataset("fashion_mnist", tmp_path)


def test_as_many_labels_as_images_are_required(tmp_path: Path) -> None:
    stem = tmp_path / "train-labels-idx1-ubyte"
    stem.write_bytes(idx_bytes(np.zeros(59_999)))
    with pytest.raises(ValueError, match="announces 59999 labels, expected 60000 labels"):
        read_official(stem, (60_000,), SOURCES["mnist"])


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    stem = tmp_path / "t10k-labels-idx1-ubyte"
    labels = np.arange(10_000) % 10
    labels[17] = 10
    stem.write_bytes(idx_bytes(labels))
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte: holds label 10, expected 0 to 9"):
        read_official(stem, (10_000,), SOURCES["mnist"])


def test_a_well_formed_file_that_is_not_the_official_one_is_refused(tmp_path: Path) -> None:
    stem = tmp_path / "t10k-labels-idx1-ubyte"
    stem.with_suffix(".gz").write_bytes(gzip.compress(idx_bytes(np.arange(10_000) % 10)))
    official = SOURCES["mnist"].md5["t10k-labels-idx1-ubyte"]
    with pytest.raises(ValueError, match=rf"ubyte\.gz: has md5 [0-9a-f]{{32}}, the official file has {official}"):
        read_official(stem, (10_000,), SOURCES["mnist"])


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_official_files_pass_compressed_and_not(data_root: Path, tmp_path: Path, name: str) -> None:
    dataset = load_dataset(name, data_root)
    assert dataset.train.inputs(torch.tensor([3, 0])).shape == (2, 1, 28, 28)
    assert dataset.train.inputs(torch.tensor([3, 0])).dtype == torch.uint8
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    # the first labels of both, as printed by the data sets' own pages
    assert dataset.train.targets[:5].tolist() == {"mnist": [5, 0, 4, 1, 9], "fashion_mnist": [9, 0, 0, 3, 0]}[name]
    scaled = dataset.train.inputs(torch.arange(60_000)).float() / 255
    assert dataset.mean[0] == pytest.approx(scaled.mean().item(), abs=5e-5)
    assert dataset.std[0] == pytest.approx(scaled.std().item(), abs=5e-5)

    stem = data_root / name / "t10k-labels-idx1-ubyte.gz"
    unpacked = tmp_path / "t10k-labels-idx1-ubyte"
    unpacked.write_bytes(gzip.decompress(stem.read_bytes()))
    assert torch.equal(read_official(unpacked, (10_000,), SOURCES[name]).long(), dataset.test.targets)
