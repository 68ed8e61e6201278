"""Random erasing (Zhong et al., AAAI 2020): a rectangle of an image becomes noise.

With probability 1/2, a rectangle of 2 to 40 percent of the image's pixels, from 0.3 to 1/0.3 times as high as wide, at any place at
which it fits. Its values are uniform in [0, 1), drawn for each pixel and channel. As published this comes before normalisation.
"""

import torch
from torch import Tensor

from .sending import sent

CHANCE = 0.5
AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)
_TRIES = 20  # rectangles drawn for each image, of which the first that fits is taken


def erase(images: Tensor) -> Tensor:
    """Images `[B, C, H, W]` in [0, 1], in half of which a rectangle is noise."""
    rows, columns = (sent(part, images.device) for part in draw_rectangles(len(images), *images.shape[-2:]))
    noise = sent(torch.rand(images.shape, dtype=torch.float32), images.device).to(images.dtype)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], noise, images)


def draw_rectangles(batch: int, H: int, W: int) -> tuple[Tensor, Tensor]:
    """Which rows `[B, H]` and columns `[B, W]` of each image are erased; none of the images that are left as they are."""
    area = torch.empty(batch, _TRIES).uniform_(*AREA) * H * W
    aspect = torch.empty(batch, _TRIES).uniform_(*ASPECT)
    heights, widths = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (heights < H) & (widths < W)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits
    erased = fits.any(1, keepdim=True) & (torch.rand(batch, 1) < CHANCE)
    parts = []
    for length, sizes in ((H, heights), (W, widths)):
        size = torch.where(erased, sizes.gather(1, first), 0.0)
        start = (torch.rand(batch, 1) * (length - size + 1)).floor()
        place = torch.arange(length)
        parts.append((place >= start) & (place < start + size))
    return parts[0], parts[1]
