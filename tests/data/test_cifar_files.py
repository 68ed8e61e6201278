"""CIFAR files, written here opcode by opcode as Python 2 pickled them, and files that mean harm."""

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikedistill.data import load_dataset, pickles
from spikedistill.data.sets.cifar import (
    CIFAR10,
    CIFAR100,
    PAGE,
    Official,
    content_digest,
    read_batch,
    read_names,
    safe_unpickle,
)


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
        (batch_file(array(IMAGES), number_list(LABELS))[:-600], "is damaged (it ends too early)"),
        (b"", "is damaged (it ends too early)"),
        (b"<html>not found</html>", "is damaged (no official file has the instruction b'<')"),
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


def names_file(entries: dict[str, int | list[str]]) -> bytes:
    """A file of names as Python 2 pickled it, where every text is remembered for being used again."""
    number = 1

    def remembered(content: bytes) -> bytes:
        nonlocal number
        number += 1
        return content + (b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<i", number))

    content = b"\x80\x02}q\x01("
    for key, value in entries.items():
        content += remembered(string(key.encode()))
        if isinstance(value, int):
            content += b"M" + struct.pack("<H", value)
        else:
            content += remembered(b"]") + b"(" + b"".join(remembered(string(name.encode())) for name in value) + b"e"
    return content + b"u."


def words(text: str) -> list[str]:
    return text.split()


NAMES = words("airplane automobile bird cat deer dog frog horse ship truck")
FINE_NAMES = words("""
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox
girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""")
COARSE_NAMES = words("""
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
vehicles_2""")
BATCHES_META = names_file({"num_cases_per_batch": 10_000, "label_names": NAMES, "num_vis": 3072})
META = names_file({"fine_label_names": FINE_NAMES, "coarse_label_names": COARSE_NAMES})


def test_the_published_checksums_are_those_of_the_official_names(tmp_path: Path) -> None:
    path = tmp_path / "meta"
    for content, key, names, official in (
        (BATCHES_META, b"label_names", NAMES, CIFAR10["batches.meta"]),
        (META, b"fine_label_names", FINE_NAMES, CIFAR100["meta"]),
    ):
        assert hashlib.md5(content).hexdigest() == official.md5
        assert hashlib.sha256("\n".join(names).encode()).hexdigest() == official.content
        path.write_bytes(content)
        assert read_names(path, key, len(names), official) == tuple(names)
        path.write_bytes(names_file({key.decode(): names}))  # made anew, with the same names
        assert read_names(path, key, len(names), official) == tuple(names)
        for wrong in (names[::-1], [*names[:-1], names[-1] + "s"]):
            path.write_bytes(names_file({key.decode(): wrong}))
            with pytest.raises(ValueError, match=f"meta: has md5 [0-9a-f]{{32}}, the official file has {official.md5}"):
                read_names(path, key, len(names), official)


def test_a_batch_passes_by_its_md5_or_by_its_images_and_labels_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    content = batch_file(array(IMAGES), number_list(LABELS))
    md5, digest = hashlib.md5(content).hexdigest(), content_digest(IMAGES, LABELS)

    def check(images: np.ndarray, labels: list[int], official: Official) -> None:
        path.write_bytes(batch_file(array(images), number_list(labels)))
        read_batch(path, b"labels", 4, 10, official)

    check(IMAGES, LABELS, Official(md5))
    check(IMAGES, LABELS, Official(md5, "another"))
    check(IMAGES[::-1], LABELS[::-1], Official("another", digest))
    one_level = IMAGES.copy()
    one_level[2, 1000] ^= 1
    for images, labels, official in (
        (IMAGES, LABELS, Official("another")),
        (IMAGES[::-1], LABELS[::-1], Official(md5)),
        (one_level, LABELS, Official(md5, digest)),
        (IMAGES, [0, 3, 9, 3], Official(md5, digest)),  # two labels swapped
        (IMAGES[[0, 1, 2, 2]], LABELS, Official(md5, digest)),  # one twice, one not at all
    ):
        with pytest.raises(
            ValueError, match=rf"has md5 [0-9a-f]{{32}}, the official file has {official.md5}; download"
        ):
            check(images, labels, official)


@pytest.mark.parametrize(
    ("name", "folder", "meta", "key", "first"),
    [
        ("cifar10", "cifar-10-batches-py", "batches.meta", b"label_names", "data_batch_1"),
        ("cifar100", "cifar-100-python", "meta", b"fine_label_names", "train"),
    ],
)
def test_missing_files_and_all_wrong_ones_are_named(
    tmp_path: Path, name: str, folder: str, meta: str, key: bytes, first: str
) -> None:
    with pytest.raises(FileNotFoundError, match=f"{folder}/{meta} is missing: download it from {PAGE}"):
        load_dataset(name, tmp_path)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / meta).write_bytes(b"\x80\x02}" + string(key) + b"](" + string(b"cat") + b"es.")
    with pytest.raises(FileNotFoundError, match=f"{first} is missing: .*; also .*{meta}: holds no list of 100? names"):
        load_dataset(name, tmp_path)
    for file in CIFAR10 if name == "cifar10" else CIFAR100:
        (tmp_path / folder / file).write_bytes(b"no pickle")
    with pytest.raises(ValueError, match="is damaged") as error:
        load_dataset(name, tmp_path)
    for file in CIFAR10 if name == "cifar10" else CIFAR100:
        assert f"{folder}/{file}: is damaged" in str(error.value)


# Of a few bytes each; Python's own reader takes gigabytes for the first; of more tuples than these the next two end its process.
HARMFUL = {
    "a place in memory of a large number": (b"\x80\x02]r\xff\xff\xff\x7f.", "holds a list"),
    "tuples in tuples as a key": (b"\x80\x02})" + b"\x85" * 50_000 + b"Ns.", "a key is no text"),
    "tuples in tuples in a set": (b"\x80\x04\x8f()" + b"\x85" * 50_000 + b"\x90.", "the instruction b'\\x8f'"),
    "a buffer of an exabyte": (b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".", "the instruction b'\\x96'"),
    "text of an exabyte": (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".", "it ends too early"),
    "an array of an exabyte": (
        batch_file(array(IMAGES).replace(b"J\x04\0\0\0", b"\x8a\x08" + b"\xff" * 7 + b"\x0f"), b"]"),
        "does not match its own shape",
    ),
    "lists in lists as a label": (
        batch_file(array(IMAGES), b"](K\x00K\x01K\x02" + b"]" * 100_000 + b"a" * 99_999 + b"e"),
        "holds label something else",
    ),
    "a label of ten thousand digits": (
        batch_file(array(IMAGES), b"](K\x00K\x01K\x02\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000 + b"e"),
        "holds label something else",
    ),
    "a registered type": (b"\x80\x02\x82\x01.", "the instruction b'\\x82'"),
    "an object of another process": (b"\x80\x02K\x01Q.", "the instruction b'Q'"),
}


@pytest.mark.parametrize(("content", "message"), HARMFUL.values(), ids=HARMFUL)
def test_what_a_pickle_announces_is_not_taken_on_trust(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match="batch: ") as error:
        read(tmp_path / "batch", content)
    assert message in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "start", [b"\x80\x02", b"\x80\x04\x95" + struct.pack("<Q", 2001)], ids=["plain", "in one part"]
)
def test_a_pickle_of_more_instructions_than_an_official_file_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(pickles, "MOST_READS", 1000)  # of 2**20, which take a second
    with pytest.raises(ValueError, match="more instructions than any official file has"):
        read(tmp_path / "batch", start + b"]" * 2000 + b".")


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


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "key", "count", "official"),
    [
        ("cifar-10-batches-py/test_batch", b"labels", 10_000, CIFAR10["test_batch"]),
        ("cifar-10-batches-py/data_batch_3", b"labels", 10_000, CIFAR10["data_batch_3"]),
        ("cifar-100-python/test", b"fine_labels", 10_000, CIFAR100["test"]),
        ("cifar-100-python/train", b"fine_labels", 50_000, CIFAR100["train"]),
    ],
)
def test_one_bit_of_an_official_image_is_noticed(
    data_root: Path, tmp_path: Path, file: str, key: bytes, count: int, official: Official
) -> None:
    content = bytearray((data_root / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(ValueError, match=f"the official file has {official.md5}"):
        read_batch(tmp_path / "batch", key, count, 100, official)
