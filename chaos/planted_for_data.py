"""Hostile files in data sets."""

import io
import os
import struct
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from .files_of_data import IDX, make_frames, make_images, make_recordings
from .files_of_runs import call
from .hostile import Case, Payload, bomb, nothing, payload

FRAMES, IMAGE, RECORDING = Path("train/left/000.npz"), Path("train/cat/001.png"), Path("N-MNIST/Train/3/00000.bin")


def verified(name: str) -> None:
    call(["data", name, "--verify", "--data.root", "."])


def images(folder: Path) -> None:
    make_images(folder, 2)


def frames(kind: str, trap: Path) -> None:
    match kind:
        case "objects":
            np.savez(FRAMES, frames=np.array([Payload(trap)], object))
            np.load(FRAMES, allow_pickle=True)["frames"]
            trap.rmdir()
        case "a pickle":
            FRAMES.write_bytes(payload(trap))
        case "an array of 2^60 values":
            _archive(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824, 2, 32768, 16384), }", b"")
        case "an array of 8 GiB in 8 MiB":
            _archive(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1024, 2, 2048, 2048), }", bomb(8192, -15))
        case "a header with a call":
            _archive(b"__import__('os').mkdir(%r)" % str(trap), b"")
        case "a pipe":
            FRAMES.unlink()
            os.mkfifo(FRAMES)
        case "a link to /dev/zero":
            FRAMES.unlink()
            FRAMES.symlink_to("/dev/zero")


def _archive(described: bytes, compressed: bytes) -> None:
    """An .npz file with this header of an array, and these bytes in the place of its compressed values."""
    header = described + b" " * (-(len(described) + 11) % 64) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(npy) + packer.flush(zlib.Z_FULL_FLUSH) + compressed
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("frames.npy", body)
    # stored as it is, and told to be compressed: method 8 in both places that say so
    content = bytearray(buffer.getvalue())
    content[8] = 8
    content[content.rindex(b"PK\x01\x02") + 10] = 8
    FRAMES.write_bytes(content)


def image(kind: str, trap: Path) -> None:
    IMAGE.unlink()
    match kind:
        case "100,000 x 100,000 pixels":
            IMAGE.write_bytes(_png(100_000, 100_000, bomb(256, 15)))
        case "pixels of 1 GiB in 1 MiB":
            IMAGE.write_bytes(_png(16, 16, bomb(1024, 15)))
        case "PostScript":
            IMAGE.write_text(f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n({trap}) (w) file\nshowpage\n")
        case "a pickle":
            IMAGE.write_bytes(payload(trap))
        case "a pipe":
            os.mkfifo(IMAGE)
        case "a link to /dev/zero":
            IMAGE.symlink_to("/dev/zero")
        case "a folder":
            IMAGE.mkdir()


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def recording(kind: str, trap: Path) -> None:
    RECORDING.unlink()
    match kind:
        case "8 GiB of zeros":
            with RECORDING.open("wb") as file:
                file.truncate(8 << 30)  # which take no place on the disk
        case "a pipe":
            os.mkfifo(RECORDING)


def official(kind: str, trap: Path) -> None:
    """Files in the place of MNIST's and CIFAR-10's."""
    mnist, cifar = Path("mnist"), Path("cifar-10-batches-py")
    mnist.mkdir()
    cifar.mkdir()
    for name in ("batches.meta", *(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        match kind:
            case "a payload in a pickle":
                (cifar / name).write_bytes(payload(trap))
            case "a pickle of 100,000 brackets":
                (cifar / name).write_bytes(b"\x80\x02" + b"(" * 100_000 + b"]" * 100_000 + b".")
            case "a pickle that asks for 8 GiB":
                (cifar / name).write_bytes(b"\x80\x05\x8e" + struct.pack("<Q", 8 << 30) + b".")
    for name in (IDX, IDX.replace("train", "t10k")):
        for file in (name, name.replace("images-idx3", "labels-idx1")):
            (mnist / f"{file}.gz").write_bytes(bomb(4096, 31))


CIFAR = ("a payload in a pickle", "a pickle of 100,000 brackets", "a pickle that asks for 8 GiB")
CASES = {
    "event frames (.npz)": [
        Case(kind, make_frames, partial(frames, kind), partial(verified, "event_frames"))
        for kind in (
            *("objects", "a pickle", "an array of 2^60 values", "an array of 8 GiB in 8 MiB", "a header with a call"),
            *("a pipe", "a link to /dev/zero"),
        )
    ],
    "images": [
        Case(kind, images, partial(image, kind), partial(verified, "image_folder"))
        for kind in (
            *("100,000 x 100,000 pixels", "pixels of 1 GiB in 1 MiB", "PostScript", "a pickle"),
            *("a pipe", "a link to /dev/zero", "a folder"),
        )
    ],
    "recordings and official files": [
        *(
            Case(kind, make_recordings, partial(recording, kind), partial(verified, "nmnist"))
            for kind in ("8 GiB of zeros", "a pipe")
        ),
        *(Case(kind, nothing, partial(official, kind), partial(verified, "cifar10")) for kind in CIFAR),
        Case("a file that unpacks to 4 GiB", nothing, partial(official, "a bomb"), partial(verified, "mnist")),
    ],
}
