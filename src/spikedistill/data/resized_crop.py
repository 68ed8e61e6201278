"""Random parts of images, of random size and shape, scaled to the network's input (Szegedy et al., 2015)."""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .images import image_of, levels_of, read_with

if TYPE_CHECKING:
    from PIL.Image import Image

RESIZED_CROP = "resized-crop"
"""The name among augmentations; it is drawn while an image is read, the others on batches."""

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
_TRIES = 10


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_box(height: int, width: int, generator: torch.Generator) -> Box:
    """Draw a part of an image: a share of 0.08 to 1 of its pixels, 3/4 to 4/3 as wide as high.

    Ten draws are tried. If none lies inside, the largest part in the middle with an allowed ratio is taken, as in torchvision.
    """
    for _ in range(_TRIES):
        area = height * width * _uniform(*SCALE, generator)
        ratio = math.exp(_uniform(math.log(RATIO[0]), math.log(RATIO[1]), generator))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(_whole(height - h, generator), _whole(width - w, generator), h, w)
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return Box((height - h) // 2, (width - w) // 2, h, w)


def read_resized_crop(path: Path, seed: int, size: int | tuple[int, int], channels: int = 3) -> Tensor:
    """A random part of the image of a file, `[channels, H, W]` uint8, scaled bilinearly; the same seed gives the same part.

    Raises:
        UserError: as `read_image`.
    """
    return read_with(path, partial(_cropped, size=size, channels=channels, seed=seed))


def _cropped(image: "Image", size: int | tuple[int, int], channels: int, seed: int) -> Tensor:
    from PIL import Image

    height, width = (size, size) if isinstance(size, int) else size
    seen = image_of(image, channels)
    box = draw_box(seen.height, seen.width, torch.Generator().manual_seed(seed))
    part = (box.left, box.top, box.left + box.width, box.top + box.height)
    return levels_of(seen.crop(part).resize((width, height), Image.Resampling.BILINEAR), channels)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=generator))


def _whole(most: int, generator: torch.Generator) -> int:
    return int(torch.randint(most + 1, (), generator=generator))
