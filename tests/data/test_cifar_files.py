"""CIFAR files, written here opcode by opcode as Python 2 pickled them, and files that mean harm."""

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikedistill.data import load_dataset
from spikedistill.data.cifar import PAGE, check_balance, read_batch, safe_unpickle


def string(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def array(values: np.ndarray, kind: bytes = b"u1") -> bytes:
    """A numpy array in a pickle of protocol 2: reconstruct(ndarray, (0,), 'b'), then its state."""
    rows, columns = values.shape
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
        b"(K\x01J" + struct.pack("<i", rows) + b"J" + struct.pack("<i", columns) + b"\x86"
        b"cnumpy\ndtype\n" + string(kind) + b"K\x00K\x01\x87R(K\x03" + string(b"|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", values.nbytes) + values.tobytes() + b"tb"
    )


def number_list(values: list[int]) -> bytes:
    return b"](" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"e"


def batch_file(images: bytes, labels: bytes, key: bytes = b"labels") -> bytes:
    return b"\x80\x02}(" + string(b"data") + images + string(key) + labels + b"u."


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
LABELS = [3, 0, 9, 3]


def read(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return read_batch(path, b"labels", 4, 10)


def test_a_batch_is_read_as_numpy_and_pickle_wrote_it(tmp_path: Path) -> None:
    content = batch_file(array(IMAGES), number_list(LABELS))
    samples = read(tmp_path / "batch", content)
    assert samples.targets.tolist() == LABELS
    # channel planes one after another, rows within: image 2, green, row 5, column 7 is byte 1024 + 5 * 32 + 7
    assert samples.data.shape == (4, 3, 32, 32)
    assert samples.data[2, 1, 5, 7].item() == IMAGES[2, 1024 + 5 * 32 + 7]
    assert (samples.data.reshape(4, -1).numpy() == IMAGES).all()


class Harm:
    """Unpickled without care, this writes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"open({str(self.victim)!r}, 'w').close()",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    content = pickle.dumps({"data": Harm(victim)}, protocol=protocol)
    with pytest.raises(
        ValueError, match=r"batch: asks Python to import '\w+\.exec'.*was refused; delete it and download"
    ):
        read(tmp_path / "batch", content)
    assert not victim.exists()
    pickle.loads(content)
    assert victim.exists(), "the same bytes do harm to an ordinary reader, so the test means something"


@pytest.mark.parametrize(
    "name", ["os\nsystem", "builtins\neval", "numpy\nload", "numpy.core.multiarray\nfromfile", "numpy\nndarray.tofile"]
)
def test_every_other_name_is_refused(tmp_path: Path, name: str) -> None:
    module, attribute = name.split("\n")
    with pytest.raises(ValueError, match=f"asks Python to import '{module}.{attribute}'"):
        read(tmp_path / "batch", b"\x80\x02c" + name.encode() + b"\n" + string(b"x") + b"\x85R.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (batch_file(array(IMAGES), number_list(LABELS))[:-600], "is damaged (pickle data was truncated)"),
        (b"", "is damaged (Ran out of input)"),
        (b"<html>not found</html>", "is damaged (invalid load key, '<'.)"),
        (b"\x80\x02]q\x00.", "holds a list, expected a dictionary"),
        (
            b"\x80\x02}(" + string(b"labels") + number_list(LABELS) + b"u.",
            "holds no array under 'data', expected [4, 3072]",
        ),
        (batch_file(number_list(LABELS), number_list(LABELS)), "holds no array under 'data', expected [4, 3072]"),
        (batch_file(array(IMAGES[:3]), number_list(LABELS)), "holds an array of shape [3, 3072] under 'data'"),
        (batch_file(array(IMAGES[:, :3000]), number_list(LABELS)), "holds an array of shape [4, 3000] under 'data'"),
        (
            batch_file(array(IMAGES.view("f4"), b"f4"), number_list(LABELS)),
            "is damaged (an array is not made of unsigned",
        ),
        (batch_file(array(IMAGES).replace(b"J\x04\0\0\0", b"J\x05\0\0\0"), number_list(LABELS)), "match its own shape"),
        (batch_file(array(IMAGES, b"i1"), number_list(LABELS)), "is damaged (an array is not made of unsigned bytes"),
        (batch_file(array(IMAGES), number_list(LABELS), b"fine_labels"), "holds no list of labels under 'labels'"),
        (batch_file(array(IMAGES), number_list(LABELS[:3])), "holds 3 labels under 'labels' for 4 images"),
        (batch_file(array(IMAGES), number_list([0, 1, 10, 2])), "holds label 10, expected 0 to 9"),
        (batch_file(array(IMAGES), number_list([0, 1, -1, 2])), "holds label -1, expected 0 to 9"),
        (batch_file(array(IMAGES), b"](" + string(b"cat") * 4 + b"e"), "holds label b'cat', expected 0 to 9"),
    ],
)
def test_a_wrong_batch_is_named_with_what_it_holds(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match="batch: ") as error:
        read(tmp_path / "batch", content)
    assert message in str(error.value)
    assert f"download it again from {PAGE}" in str(error.value)


def test_another_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(batch_file(array(IMAGES), number_list(LABELS)))
    with pytest.raises(ValueError, match=r"has md5 [0-9a-f]{32}, the official file has 0123"):
        read_batch(path, b"labels", 4, 10, md5="0123")


def test_unequal_classes_are_refused(tmp_path: Path) -> None:
    samples = read(tmp_path / "batch", batch_file(array(IMAGES), number_list([0, 1, 1, 1])))
    with pytest.raises(ValueError, match="test_batch: holds 1 images of class 0, expected 2"):
        check_balance(Path("test_batch"), samples, 2)


@pytest.mark.parametrize(
    ("name", "folder", "meta"),
    [("cifar10", "cifar-10-batches-py", "batches.meta"), ("cifar100", "cifar-100-python", "meta")],
)
def test_missing_files_and_wrong_names_are_refused(tmp_path: Path, name: str, folder: str, meta: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{folder}/{meta} is missing: download it from {PAGE}"):
        load_dataset(name, tmp_path)
    (tmp_path / folder).mkdir()
    key = b"label_names" if name == "cifar10" else b"fine_label_names"
    (tmp_path / folder / meta).write_bytes(b"\x80\x02}" + string(key) + b"](" + string(b"cat") + b"es.")
    with pytest.raises(ValueError, match=f"{meta}: holds no list of 100? names under '{key.decode()}'"):
        load_dataset(name, tmp_path)


def test_a_missing_training_batch_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = b"".join(string(bytes([65 + k])) for k in range(10))
    (folder / "batches.meta").write_bytes(b"\x80\x02}" + string(b"label_names") + b"](" + names + b"es.")
    with pytest.raises(FileNotFoundError, match="data_batch_1 is missing"):
        load_dataset("cifar10", tmp_path)


def test_lists_numbers_and_bytes_pass(tmp_path: Path) -> None:
    content = pickle.dumps({"a": [1, 2.5, None, True]}, protocol=2)
    assert safe_unpickle(tmp_path, content) == {"a": [1, 2.5, None, True]}


@pytest.mark.data
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_official_files_pass(data_root: Path, name: str, classes: int) -> None:
    dataset = load_dataset(name, data_root)
    assert len(dataset.classes) == classes
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert torch.bincount(dataset.train.targets).tolist() == [50_000 // classes] * classes
    assert dataset.train.inputs(torch.tensor([0, 49_999])).shape == (2, 3, 32, 32)
    images = dataset.train.inputs(torch.arange(50_000)).numpy()
    levels = np.arange(256) / 255
    share = np.stack([np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(3)]) / (50_000 * 1024)
    mean = share @ levels
    assert dataset.mean == pytest.approx(mean, abs=2e-4)
    if name == "cifar100":  # CIFAR-10's published deviation is another, see below
        assert dataset.std == pytest.approx(np.sqrt(share @ levels**2 - mean**2), abs=2e-4)


@pytest.mark.data
def test_known_cifar10_images_have_their_labels(data_root: Path) -> None:
    dataset = load_dataset("cifar10", data_root)
    # the first training images, as everybody's tutorials show them
    names = [dataset.classes[label] for label in dataset.train.targets[:5].tolist()]
    assert names == ["frog", "truck", "truck", "deer", "automobile"]
    assert dataset.train.inputs(torch.tensor([0]))[0, :, 0, 0].tolist() == [59, 62, 63]
    # the published deviation is the mean of the images' own
    some = dataset.train.inputs(torch.arange(10_000)) / 255
    assert dataset.std == pytest.approx(some.std((2, 3)).mean(0).tolist(), abs=1e-3)
