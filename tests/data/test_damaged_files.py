"""Every reader on damaged files: it names the file, or returns what the file held; nothing else comes out and nothing is run.

Files with a checksum are damaged in hundreds of places, and none of them may give other numbers than before.
"""

import gzip
import hashlib
import io
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from spikedistill.data import load_dataset
from spikedistill.data.images import read_image
from spikedistill.data.sets.cifar import Official, read_batch
from spikedistill.data.sets.event_frames import read_frames
from spikedistill.data.sets.idx import SOURCES, read_official
from spikedistill.data.sets.nmnist import read_frames as read_nmnist

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 12, 3), dtype=np.uint8)
COUNTS = RANDOM.integers(0, 4, (3, 2, 8, 8)).astype(np.float32)


def npz(values: np.ndarray, save: Callable[..., None] = np.savez_compressed) -> bytes:
    buffer = io.BytesIO()
    save(buffer, frames=values)
    return buffer.getvalue()


def image(kind: str, pixels: np.ndarray = PIXELS, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_in_two_parts() -> bytes:
    """Neither compressed nor in one part: what zlib adds to check the pixels is in the second, of which no decoder reads more."""
    content = image("PNG", PIXELS, compress_level=0)
    start = content.index(b"IDAT") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    parts = content[start : start + length - 4], content[start + length - 4 : start + length]
    chunks = [struct.pack(">I", len(p)) + b"IDAT" + p + struct.pack(">I", zlib.crc32(b"IDAT" + p)) for p in parts]
    return content[: start - 8] + b"".join(chunks) + content[start + length + 4 :]


LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 200]) + bytes(k % 10 for k in range(200))
SOURCE = replace(SOURCES["mnist"], md5={"labels": hashlib.md5(LABELS).hexdigest()})
# A pickle that Python 2 could have written: protocol 2, bytes as text.
BATCH = (
    b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x07K\x02eU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\n"
    b"q\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNN"
    b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", 6144) + RANDOM.bytes(6144) + b"tbu."
)
OFFICIAL = Official(hashlib.md5(BATCH).hexdigest())
EVENTS = RANDOM.integers(0, 34, (80, 5), dtype=np.uint8).tobytes()


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, what it holds, how it is read, and whether a checksum seals it."""

    name: str
    content: bytes
    read: Callable[[Path], Tensor]
    sealed: bool


KINDS = {
    "idx, compressed": Kind(
        "labels.gz",
        gzip.compress(LABELS, mtime=0),
        lambda path: read_official(path.with_suffix(""), (200,), SOURCE),
        True,
    ),
    "idx": Kind("labels", LABELS, lambda path: read_official(path, (200,), SOURCE), True),
    "CIFAR": Kind("batch", BATCH, lambda path: read_batch(path, b"labels", 2, 10, OFFICIAL).data, True),
    "N-MNIST": Kind("00001.bin", EVENTS, partial(read_nmnist, timesteps=4, slicing="time"), False),
    "frames, compressed": Kind("a.npz", npz(COUNTS), read_frames, True),
    "frames": Kind("a.npz", npz(COUNTS, np.savez), read_frames, True),
    "PNG": Kind("a.png", image("PNG"), partial(read_image, size=12), True),
    "PNG of 16 bits": Kind(
        "a.png", image("PNG", PIXELS[..., 0].astype(np.uint16) * 200), partial(read_image, size=12), True
    ),
    "PNG in two parts": Kind("a.png", png_in_two_parts(), partial(read_image, size=12), True),
    "JPEG": Kind("a.jpg", image("JPEG"), partial(read_image, size=12), False),
    "WebP": Kind("a.webp", image("WEBP", lossless=True), partial(read_image, size=12), False),
    "BMP": Kind("a.bmp", image("BMP"), partial(read_image, size=12), False),
    "GIF": Kind("a.gif", image("GIF", PIXELS[..., 0]), partial(read_image, size=12), False),
    "TIFF, compressed": Kind("a.tif", image("TIFF", compression="tiff_lzw"), partial(read_image, size=12), False),
    "TIFF": Kind("a.tif", image("TIFF"), partial(read_image, size=12), False),
}


def damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The content cut, with a bit flipped, with zeros or noise written over it, with bytes left out: 500 times."""
    dice = random.Random(len(content))
    for length in {round(k * len(content) / 150) for k in range(150)} | {len(content) - 1}:
        yield f"cut to {length}", content[:length]
    for _ in range(200):
        place, bit = dice.randrange(len(content)), dice.randrange(8)
        yield f"bit {bit} of {place}", content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
    for place in range(min(60, len(content))):  # the headers, where most is announced
        yield f"byte {place} full", content[:place] + b"\xff" + content[place + 1 :]
    for _ in range(30):
        place, length = dice.randrange(len(content)), dice.randrange(1, 64)
        yield f"{length} zeros at {place}", content[:place] + bytes(length) + content[place + length :]
        yield (
            f"{length} bytes of noise at {place}",
            content[:place] + dice.randbytes(length) + content[place + length :],
        )
        yield f"{length} bytes missing at {place}", content[:place] + content[place + length :]


def outcome(kind: Kind, path: Path, content: bytes) -> Tensor | None:
    """What the file reads as, None where it is refused, which must be in a line that names it."""
    path.touch()
    with path.open(
        "r+b"
    ) as file:  # a file emptied first is flushed to the disk when it is closed, thousands of times here
        file.write(content)
        file.truncate()
    try:
        return kind.read(path)
    except (ValueError, OSError) as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000
    return None


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_damage_is_named_or_harmless(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / kind.name
    sound = outcome(kind, path, kind.content)
    assert sound is not None
    refused = tried = 0
    for damage, content in damaged(kind.content):
        found = outcome(kind, path, content)
        tried += content != kind.content
        refused += found is None
        if found is not None:
            assert (found.shape, found.dtype) == (sound.shape, sound.dtype), damage
            assert not kind.sealed or torch.equal(found, sound), damage
    assert tried > 300
    assert refused > (0.8 if kind.sealed else 0.2) * tried


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "content", [b"", b"\0", b"<html>404</html>", b"\x1f\x8b\x08", b"PK\x03\x04", b"version https://git-lfs"]
)
def test_another_file_in_its_place_is_named(tmp_path: Path, kind: Kind, content: bytes) -> None:
    assert outcome(kind, tmp_path / kind.name, content) is None


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_no_file_is_named(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / kind.name
    for make in (lambda: None, path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        make()
        with pytest.raises((ValueError, OSError), match=kind.name):
            kind.read(path)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(start=st.integers(0, 60), rest=st.binary(max_size=200), name=st.sampled_from(sorted(KINDS)))
def test_any_bytes_after_the_beginning_of_a_file(tmp_path: Path, start: int, rest: bytes, name: str) -> None:
    outcome(KINDS[name], tmp_path / KINDS[name].name, KINDS[name].content[:start] + rest)


class Harm:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, (f"open({str(self.victim)!r}, 'w').close()",))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_nothing_in_a_file_is_run(tmp_path: Path, kind: Kind) -> None:
    victim = tmp_path / "victim"
    objects = np.array([Harm(victim)], object)
    for content in (pickle.dumps(Harm(victim)), pickle.dumps({"data": Harm(victim)}, protocol=2), npz(objects, savez)):
        assert outcome(kind, tmp_path / kind.name, content) is None
        assert not victim.exists()
    np.load(io.BytesIO(npz(objects, savez)), allow_pickle=True)["frames"]
    assert victim.exists(), "the same bytes do harm to a reader that allows it, so the test means something"


savez = partial(np.savez, allow_pickle=True)


def announce(shape: tuple[int, ...], data: bytes, descr: str = "<f4", version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npz file whose array announces a shape and holds only `data`."""
    member = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    {(1, 0): np.lib.format.write_array_header_1_0, (2, 0): np.lib.format.write_array_header_2_0}[version](
        member, header
    )
    return archive(member.getvalue() + data)


def archive(member: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("frames.npy", member)
    return buffer.getvalue()


def with_size(content: bytes, size: int) -> bytes:
    """A zip archive of one file, whose list announces another size of it."""
    place = content.rindex(b"PK\x01\x02") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


HONEST = (3, 2, 8, 8)
BOMBS = {
    "10^12 values, none there": (announce((10**8, 2, 50, 100), b""), "more than 268435456 values"),
    "10^30 values": (announce((10**27, 2, 50, 10), b""), "more than 268435456 values"),
    "a product that overflows to little": (announce((2**62, 2, 2, 2**32), b""), "more than 268435456 values"),
    "no values": (announce((0, 2, 10**12, 10**12), b""), "expected [T, 2, H, W]"),
    "less than nothing": (announce((-1, 2, -8, 8), b""), "expected [T, 2, H, W]"),
    "more than is there": (announce((2**20, 2, 8, 8), bytes(1536)), "1664 bytes, expected 536871040"),
    "less than is there": (announce(HONEST, bytes(1540)), "1668 bytes, expected 1664"),
    "a size in the archive's list": (with_size(announce((2**20, 2, 8, 8), bytes(1536)), 2**29 + 128), "no readable"),
    "texts of a gigabyte": (announce(HONEST, b"", f"<U{2**28}"), "no finite numbers"),
    "lists in lists": (archive(b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"[" * 9000), "no readable"),
    "another compression": (archive(bytes(2**20), zipfile.ZIP_LZMA), "compressed by another method than numpy's"),
    "version 2.0": (announce(HONEST, bytes(1536), version=(2, 0)), "another version than 1.0"),
}


def peak(run: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy hold meanwhile."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("content", "message"), BOMBS.values(), ids=BOMBS)
def test_an_array_that_announces_more_than_it_holds_is_refused_first(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)

    def read() -> None:
        with pytest.raises(ValueError, match=r"a\.npz: ") as error:
            read_frames(path)
        assert message in str(error.value)

    assert peak(read) < 2**24


def test_an_array_that_unpacks_to_gigabytes_is_refused_by_the_shape_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz(np.zeros((1000, 2, 50, 100), np.uint8)))
    assert path.stat().st_size < 20_000

    def read() -> None:
        with pytest.raises(
            ValueError, match=r"'frames' has shape \[1000, 2, 50, 100\], other files have \[3, 2, 8, 8\]"
        ):
            read_frames(path, shape=HONEST)

    assert peak(read) < 2**20


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_gigabyte_in_a_small_archive_is_not_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    path = tmp_path / name / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(2**24)) * 64)
    assert path.stat().st_size < 2**21

    def read() -> None:
        with pytest.raises(FileNotFoundError, match=r"images-idx3-ubyte\.gz: holds more than 67108864 bytes"):
            load_dataset(name, tmp_path)

    assert peak(read) < 2**28


@pytest.mark.parametrize("name", ["a.bin", "data_batch_1"])
def test_a_file_far_longer_than_an_official_one_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    read = KINDS["N-MNIST" if name == "a.bin" else "CIFAR"].read

    def refuse() -> None:
        with pytest.raises(ValueError, match=rf"{name}: holds more than \d+ bytes, which no official file does"):
            read(path)

    assert peak(refuse) < 2**20


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (COUNTS.astype(np.float64) * 1e300, "(float64) holds values that are no finite numbers"),
        (np.where(COUNTS == 1, np.nan, COUNTS), "holds values that are no finite numbers"),
        (np.where(COUNTS == 1, np.inf, COUNTS), "holds values that are no finite numbers"),
        (np.where(COUNTS == 1, -np.inf, COUNTS), "holds values that are no finite numbers"),
        (-COUNTS, "'frames' holds -3.0, expected counts of events, at least 0"),
        ((COUNTS - 1).astype(np.int8), "'frames' holds -1.0, expected counts of events"),
        (COUNTS.astype(complex), "(complex128) holds values that are no finite numbers"),
        (COUNTS.astype("datetime64[s]"), "(datetime64[s]) holds values that are no finite numbers"),
        (COUNTS.astype([("count", "f4")]), "holds values that are no finite numbers"),
    ],
)
def test_frames_of_other_than_counts_are_refused_by_name(tmp_path: Path, values: np.ndarray, message: str) -> None:
    (tmp_path / "a.npz").write_bytes(npz(values))
    with pytest.raises(ValueError, match=r"a\.npz: ") as error:
        read_frames(tmp_path / "a.npz")
    assert message in str(error.value)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", ">i4", "u8", "f2", ">f4", "f8"])
def test_frames_of_every_type_of_number_and_order_in_memory_are_read(tmp_path: Path, dtype: str) -> None:
    expected = COUNTS.astype(dtype).astype(np.float32)
    for values in (COUNTS.astype(dtype), np.asfortranarray(COUNTS.astype(dtype))):
        (tmp_path / "a.npz").write_bytes(npz(values))
        assert (read_frames(tmp_path / "a.npz").numpy() == expected).all()
