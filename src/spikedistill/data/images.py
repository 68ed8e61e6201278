"""Reads pixels from image files: turned upright, scaled from their range to 8 bits, on a white background."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .files import check_is_no_pipe, data_error
from .preprocess import Resize

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow may use only the readers of these formats, for any file name, because some of its other readers run programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
BACKGROUND = (255, 255, 255)
# Mean and standard deviation of ImageNet's images in [0, 1], by the number of channels: grey and colour. Grey means
# luminance, 0.299 R + 0.587 G + 0.114 B: its mean follows from the means of the colours, and its deviation is the mean
# of their deviations.
MEANS: dict[int, tuple[float, ...]] = {1: (0.459,), 3: (0.485, 0.456, 0.406)}
STDS: dict[int, tuple[float, ...]] = {1: (0.226,), 3: (0.229, 0.224, 0.225)}
# of TIFF and EXIF
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC, BLACK_IS_ZERO = 0x0112, 258, 262, 1


def read_image(
    path: Path,
    size: int | tuple[int, int],
    channels: int = 3,
    resize: Resize = "crop",
    fill: Sequence[float] = (),
) -> Tensor:
    """The image of a file, `[channels, H, W]` uint8.

    - It is turned upright according to its EXIF orientation.
    - Transparent pixels show a white background.
    - A 16-bit grey level v becomes round(v / 257), so that 65535 becomes 255; of 16-bit colours the upper byte is taken.
    - Of an animation or of several pages the first is read.
    - With 3 channels a grey image has three equal channels; with 1 channel a colour image becomes its luminance.

    Args:
        path: the file.
        size: height and width, or one number for both.
        channels: 3 for colour or 1 for grey.
        resize: see `Preprocess`.
        fill: see `Preprocess`; default the mean of ImageNet.

    Raises:
        UserError: if the file is missing, damaged (the checksums of a PNG file are verified), no image in one of
        `FORMATS`, of
            32 bits per channel, or of more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    return read_with(path, lambda image: pixels_of(image, size, channels, resize, fill))


def read_with(path: Path, convert: Callable[["Image"], Tensor]) -> Tensor:
    """What becomes of the image of a file, by a function.

    Raises:
        UserError: as `read_image`.
    """
    from PIL import Image

    check_is_no_pipe(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata of sound pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with path.open("rb") as file:
                return convert(_open(file))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        fault = f"announces more than {Image.MAX_IMAGE_PIXELS} pixels, which could take all memory"
        raise data_error(path, fault, "make the image smaller or remove it") from error
    except Exception as error:  # Pillow's decoders raise exceptions of every kind
        raise data_error(path, f"is no readable image ({error})", "replace or remove it") from error


def pixels_of(
    image: "Image",
    size: int | tuple[int, int],
    channels: int = 3,
    resize: Resize = "crop",
    fill: Sequence[float] = (),
) -> Tensor:
    """An image of Pillow, `[channels, H, W]` uint8, converted like a file by `read_image`."""
    return levels_of(_resized(image_of(image, channels), size, resize, fill or MEANS[channels]), channels)


def image_of(image: "Image", channels: int) -> "Image":
    """An image of Pillow turned upright, in colour or in grey."""
    seen = _in_colour(_upright(image))
    return seen if channels == 3 else seen.convert("L")


def levels_of(image: "Image", channels: int) -> Tensor:
    """The levels of an image of Pillow, `[channels, H, W]` uint8."""
    levels = np.empty((channels, image.height, image.width), np.uint8)
    for plane, band in zip(levels, image.split(), strict=True):  # faster than moving the colours of each pixel apart
        plane[:] = np.asarray(band)
    return torch.from_numpy(levels)


def look_at(path: Path) -> tuple[int, int, bool] | None:
    """Height, width, and whether it is in colour, from the first bytes of an image file; None if they cannot be read."""
    from PIL import Image

    try:
        check_is_no_pipe(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                # the `getexif` of PNG files would decode the pixels
                turned = Image.Image.getexif(image).get(ORIENTATION, 1) in (5, 6, 7, 8)
                height, width = (image.width, image.height) if turned else (image.height, image.width)
                return height, width, image.mode not in ("1", "L", "LA", "I", "F") and not image.mode.startswith("I;")
    except Exception:  # Pillow's decoders raise exceptions of every kind
        return None


def _resized(image: "Image", size: int | tuple[int, int], resize: Resize, fill: Sequence[float]) -> "Image":
    from PIL import Image, ImageOps

    height, width = (size, size) if isinstance(size, int) else size
    if resize == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    if resize == "stretch":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    if resize == "centre":
        return _centre(image, height, width)
    scale = min(width / image.width, height / image.height)
    inner = min(width, max(1, round(image.width * scale))), min(height, max(1, round(image.height * scale)))
    levels = tuple(round(255 * value) for value in fill)
    padded = Image.new(image.mode, (width, height), levels if len(levels) > 1 else levels[0])
    padded.paste(image.resize(inner, Image.Resampling.BICUBIC), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return padded


def _centre(image: "Image", height: int, width: int) -> "Image":
    """The middle of an image whose shorter side is scaled to 8/7 of the wanted one, as torchvision computes 256 and 224."""
    from PIL import Image

    wanted, found = (height, width), (image.height, image.width)
    shorter = 0 if height * image.width >= width * image.height else 1
    scaled = [round(_AROUND * wanted[shorter])] * 2
    scaled[1 - shorter] = max(wanted[1 - shorter], int(scaled[shorter] * found[1 - shorter] / found[shorter]))
    large = image.resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR)
    top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
    return large.crop((left, top, left + width, top + height))


# Images for ImageNet's test are 256 pixels high or wide, of which networks see 224.
_AROUND = 8 / 7


def _open(file: IO[bytes]) -> "Image":
    from PIL import Image

    image = Image.open(file, formats=FORMATS)
    if image.format == "PNG":
        image.verify()  # its checksums, which decoding ignores; afterwards it must be opened again
        file.seek(0)
        image = Image.open(file, formats=FORMATS)
        _scale_transparent_level(image)
    return image


def _scale_transparent_level(image: "Image") -> None:
    """Scale the transparent level of a PNG file like the pixels; Pillow scales only the pixels."""
    if "transparency" in image.info:
        stored_as = image.tile[0][3]  # type: ignore[attr-defined]
        if stored_as in ("L;2", "L;4"):
            image.info["transparency"] *= 255 // (3 if stored_as == "L;2" else 15)
        elif stored_as == "RGB;16B":
            raise UserError("one of its 16-bit colours stands for transparent: save it with an alpha channel")


def _upright(image: "Image") -> "Image":
    """The image turned according to its EXIF orientation, or as stored if that cannot be read."""
    from PIL.Image import Transpose

    image.load()  # this turns a TIFF image already
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:
        return image
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation or 1)
    return image if turn is None else image.transpose(turn)


def _in_colour(image: "Image") -> "Image":
    """The image as RGB on the background.

    Raises:
        UserError: if its levels have a range that the file does not state.
    """
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    elif image.mode in ("I", "F"):
        raise UserError(
            "its levels are of 32 bits or signed, so black and white are unknown: save it with 8 or 16 unsigned bits per channel"
        )
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, BACKGROUND)
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return image.convert("RGB")


def _from_16_bits(image: "Image") -> "Image":
    """A grey image of 16 bits with 8 bits, and with an alpha channel if one of its levels is transparent."""
    from PIL import Image

    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(BITS_PER_SAMPLE) != (16,) or tags.get(PHOTOMETRIC) != BLACK_IS_ZERO:
            raise UserError("its levels have 12 bits, or white is 0: save it with 8 or 16 bits and black as 0")
    levels = np.asarray(image)
    grey = Image.fromarray((levels / 257).round().astype(np.uint8))
    if "transparency" in image.info:
        opaque = levels != image.info["transparency"]
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return grey
