"""What pixels become, whatever kind of image file holds them. PNG files are written here from the format."""

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from spikedistill.data.images import SUFFIXES, read_image

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(kind: int, bits: int, row: bytes, width: int = 2, **chunks: bytes) -> bytes:
    """A PNG image of `width` times `width` pixels, all rows alike and packed as the format says, with chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, width, bits, kind, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * width))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def big(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def colours(path: Path, content: bytes) -> list[list[int]]:
    """The colours of the first row of an image of two by two pixels."""
    path.write_bytes(content)
    return read_image(path, 2)[:, 0].T.tolist()


def first(path: Path, content: bytes | None = None) -> list[int]:
    if content is not None:
        path.write_bytes(content)
    return read_image(path, 1)[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("level", "expected"),
    [(8000, 31), (0, 0), (65535, 255), (128, 0), (129, 1), (257, 1), (32768, 128), (65406, 254), (65407, 255)],
)
def test_a_16_bit_grey_level_keeps_its_share_of_the_range(tmp_path: Path, level: int, expected: int) -> None:
    assert expected == round(level / 65535 * 255)
    assert first(tmp_path / "a.png", png(GREY, 16, big(level), width=1)) == [expected] * 3
    for byte_order in "<>":  # Pillow's I;16 and I;16B
        Image.fromarray(np.full((3, 3), level, f"{byte_order}u2")).save(tmp_path / "a.tif")
        assert first(tmp_path / "a.tif") == [expected] * 3


def test_a_whole_image_of_8000_reads_as_31(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 50), 8000, np.uint16)).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png", 32), torch.full((3, 32, 32), 31, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("kind", "row"),
    [(COLOUR, big(8000, 16000, 65535)), (COLOUR_ALPHA, big(8000, 16000, 65535, 65535))],
    ids=["colour", "with an alpha channel"],
)
def test_16_bit_colours_keep_their_range(tmp_path: Path, kind: int, row: bytes) -> None:
    assert first(tmp_path / "a.png", png(kind, 16, row, width=1)) == [31, 62, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_levels_of_an_unknown_range_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4), 1).save(tmp_path / "a.tif")
    with pytest.raises(
        ValueError, match=r"a\.tif: .*32 bits or signed, so black and white are unknown: save it with 8"
    ):
        read_image(tmp_path / "a.tif", 4)


def test_tiff_of_12_bits_or_of_white_as_zero_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((1, 1), 8000, np.uint16)).save(path)
    content = path.read_bytes()
    for tag, value in ((258, 12), (262, 0)):  # bits per sample; which level is white
        old = struct.pack("<HHI", tag, 3, 1)
        place = content.index(old) + len(old)
        path.write_bytes(content[:place] + struct.pack("<H", value) + content[place + 2 :])
        with pytest.raises(ValueError, match=r"a\.tif: is no readable image \("):
            read_image(path, 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(GREY, 1, bytes([0b01000000])), [0, 255]),
        (png(GREY, 2, bytes([0b01110000])), [85, 255]),
        (png(GREY, 4, bytes([0x1F])), [17, 255]),
        (png(GREY, 8, bytes([7, 9])), [7, 9]),
        (png(GREY, 1, bytes([0b01000000]), tRNS=big(0)), [255, 255]),
        (png(GREY, 2, bytes([0b01100000]), tRNS=big(1)), [255, 170]),
        (png(GREY, 4, bytes([0x12]), tRNS=big(1)), [255, 34]),
        (png(GREY, 8, bytes([7, 9]), tRNS=big(7)), [255, 9]),
        (png(GREY, 16, big(8000, 8001), tRNS=big(8000)), [255, 31]),
        (png(GREY, 16, big(8000, 8001), tRNS=big(1)), [31, 31]),
        (png(GREY_ALPHA, 8, bytes([100, 0, 100, 255])), [255, 100]),
        (png(GREY_ALPHA, 16, big(25700, 0, 25700, 65535)), [255, 100]),
    ],
)
def test_grey_of_any_depth_and_with_any_transparency(tmp_path: Path, content: bytes, expected: list[int]) -> None:
    assert colours(tmp_path / "a.png", content) == [[level] * 3 for level in expected]


RED, BLUE = [255, 0, 0], [0, 0, 255]
WHITE = [255, 255, 255]
PLTE = bytes(RED + BLUE)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(PALETTE, 8, bytes([0, 1]), PLTE=PLTE), [RED, BLUE]),
        (png(PALETTE, 1, bytes([0b01000000]), PLTE=PLTE), [RED, BLUE]),
        (png(PALETTE, 8, bytes([0, 1]), PLTE=PLTE, tRNS=b"\0"), [WHITE, BLUE]),
        (png(PALETTE, 8, bytes([0, 1]), PLTE=PLTE, tRNS=b"\xff\0"), [RED, WHITE]),
        # 51 of 255 opaque: 0.2 red + 0.8 white
        (png(PALETTE, 8, bytes([0, 1]), PLTE=PLTE, tRNS=b"\x33"), [[255, 204, 204], BLUE]),
        (png(COLOUR, 8, bytes(RED + BLUE), tRNS=big(*RED)), [WHITE, BLUE]),
        (png(COLOUR_ALPHA, 8, bytes([*RED, 0, *BLUE, 51])), [WHITE, [204, 204, 255]]),
    ],
)
def test_palettes_and_transparent_colours_show_white_behind_them(
    tmp_path: Path, content: bytes, expected: list[list[int]]
) -> None:
    assert colours(tmp_path / "a.png", content) == expected


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    # Pillow has only the upper bytes, so 8000 cannot be told from 8001
    (tmp_path / "a.png").write_bytes(png(COLOUR, 16, big(8000, 0, 0, 8001, 0, 0), tRNS=big(8000, 0, 0)))
    with pytest.raises(ValueError, match="16-bit colours stands for transparent: save it with an alpha channel"):
        read_image(tmp_path / "a.png", 1)


def test_other_colour_spaces_become_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert first(tmp_path / "a.jpg") == pytest.approx(RED, abs=3)
    Image.new("YCbCr", (8, 8), (76, 85, 255)).save(tmp_path / "b.jpg", quality=100)
    assert first(tmp_path / "b.jpg") == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_every_exif_orientation_is_applied_once(tmp_path: Path, suffix: str) -> None:
    """Black, grey, light and white quarters, turned back to where they were before the camera was."""
    upright = Image.fromarray(np.kron(np.array([[0, 85], [170, 255]], np.uint8), np.ones((8, 8), np.uint8)))
    for orientation, stored in (
        (1, upright),
        (2, upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        (3, upright.rotate(180)),
        (4, upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
        (5, upright.transpose(Image.Transpose.TRANSPOSE)),
        (6, upright.rotate(90)),
        (7, upright.transpose(Image.Transpose.TRANSVERSE)),
        (8, upright.rotate(-90)),
        (9, upright),  # no such orientation
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"quality": 100} if suffix in ("jpg", "webp") else {}
        stored.convert("RGB").save(tmp_path / f"a.{suffix}", exif=exif, **options)
        pixels = read_image(tmp_path / f"a.{suffix}", 16)[0]
        quarters = [int(pixels[y, x]) for y in (4, 12) for x in (4, 12)]
        assert quarters == pytest.approx([0, 85, 170, 255], abs=3), orientation


@pytest.mark.parametrize(
    ("name", "exif"),
    [
        ("a.jpg", b"II*\0\x08\0\0\0\xff\xffnonsense"),
        ("a.png", b"MM"),
        ("a.webp", b"MM\xff*\0\0\0\x08"),
        ("b.png", b"MM\0*\0"),
    ],
)
def test_metadata_that_cannot_be_read_do_not_hide_the_pixels(tmp_path: Path, name: str, exif: bytes) -> None:
    path = tmp_path / name
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path, exif=b"Exif\0\0" + exif, quality=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first(path) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_or_pages_the_first_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert first(tmp_path / f"a.{suffix}") == RED


def test_a_small_file_of_many_pixels_is_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    for side in (10_000, 60_000):  # where Pillow warns, and where it refuses
        header = struct.pack(">IIBBBBB", side, side, 1, GREY, 0, 0, 0)
        (tmp_path / "a.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user's own settings change nothing
            with pytest.raises(ValueError, match=r"a\.png: announces more than 89478485 pixels.*smaller or remove it$"):
                read_image(tmp_path / "a.png", 8)


def test_a_name_is_no_leave_to_run_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to Ghostscript; here `gs` is a program that leaves a file behind."""
    program, victim = tmp_path / "bin" / "gs", tmp_path / "victim"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 9\ntouch '{victim}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ValueError, match=r"a\.png: is no readable image"):
        read_image(path, 8)
    assert not victim.exists()
    with Image.open(path) as image, pytest.raises(OSError):  # noqa: PT011
        image.load()
    assert victim.exists(), "Pillow by itself runs it, so the test means something"


def test_every_suffix_that_is_taken_can_be_read(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / f"a{suffix}")
        assert first(tmp_path / f"a{suffix}") == pytest.approx(RED, abs=12)


def test_turning_agrees_with_pillow_on_photographs_of_any_shape(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        with Image.open(tmp_path / "a.png") as image:
            expected = ImageOps.fit(ImageOps.exif_transpose(image), (16, 16), Image.Resampling.BICUBIC)
        assert (read_image(tmp_path / "a.png", 16).permute(1, 2, 0).numpy() == np.array(expected)).all()
