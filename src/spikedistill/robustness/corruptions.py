"""Common corruptions of images in five severities, with the constants of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019).

| corruption | severity 1 to 5 |
|---|---|
| noise | standard deviation 0.04, 0.06, 0.08, 0.09, 0.1 |
| blur | Gaussian of 0.4, 0.6, 0.7, 0.8, 1.0 pixels, cut off at 4 standard deviations, with the edge continued |
| brightness | value of HSV raised by 0.05, 0.1, 0.15, 0.2, 0.3 |
| contrast | distance from the mean of each channel times 0.75, 0.5, 0.4, 0.3, 0.15 |
| jpeg | quality 80, 65, 58, 50, 40 |
| pixelate | 0.95, 0.9, 0.85, 0.75, 0.65 of the side, and back |

Images are in [0, 1], `[B, C, H, W]` with one or three channels. Noise is drawn anew for every batch.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .attacks import Attack, Look, dice_of

SEVERITIES = (1, 2, 3, 4, 5)


def noise(images: Tensor, deviation: float, dice: torch.Generator) -> Tensor:
    return images + deviation * torch.randn(images.shape, generator=dice).to(images)


def blur(images: Tensor, deviation: float) -> Tensor:
    reach = int(4 * deviation + 0.5)
    x = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weight = torch.exp(-0.5 * (x / deviation).square())
    weight = (weight / weight.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, weight[:, :, :, None], groups=images.shape[1])
    return F.conv2d(rows, weight[:, :, None], groups=images.shape[1])


def brightness(images: Tensor, more: float) -> Tensor:
    value = images.amax(1, keepdim=True)
    raised = (value + more).clamp(max=1)
    # hue and saturation stay: all channels grow alike, and black becomes grey
    return torch.where(value > 0, images * (raised / value.clamp(min=1e-12)), raised)


def contrast(images: Tensor, share: float) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * share + mean


def jpeg(images: Tensor, quality: float) -> Tensor:
    from PIL import Image

    def stored(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return _by_pillow(images, stored)


def pixelate(images: Tensor, share: float) -> Tensor:
    from PIL import Image

    box = Image.Resampling.BOX

    def coarse(image: Image.Image) -> Image.Image:
        small = image.resize((max(1, int(image.width * share)), max(1, int(image.height * share))), box)
        return small.resize(image.size, box)

    return _by_pillow(images, coarse)


CORRUPTIONS: dict[str, tuple[Callable[..., Tensor], Sequence[float]]] = {
    "noise": (noise, (0.04, 0.06, 0.08, 0.09, 0.1)),
    "blur": (blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "jpeg": (jpeg, (80, 65, 58, 50, 40)),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
}
"""Corruptions by name, with their constants."""


@dataclass(frozen=True)
class Corruption(Attack):
    """A common corruption.

    Attributes:
        kind: a name of `CORRUPTIONS`.
        severity: 1 to 5.
    """

    name: ClassVar[str] = "corruption"
    uses_gradients: ClassVar[bool] = False
    seeks_mistakes: ClassVar[bool] = False
    eps: float = 0.0
    kind: str = "noise"
    severity: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in CORRUPTIONS or self.severity not in SEVERITIES:
            raise UserError(
                f"got {self.kind!r} of severity {self.severity}, expected one of {', '.join(CORRUPTIONS)}, of 1 to 5"
            )

    def __call__(self, look: Look, x: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise UserError(f"corruptions are of images [B, 1 or 3, H, W]; got {list(x.shape)}")
        corrupt, constants = CORRUPTIONS[self.kind]
        drawn = {"dice": dice_of(0, start)} if self.kind == "noise" else {}
        return corrupt(x, constants[self.severity - 1], **drawn).clamp(0, 1)


def _by_pillow(images: Tensor, change: Callable[..., object]) -> Tensor:
    import numpy as np
    from PIL import Image

    levels = (255 * images).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    made = [
        np.asarray(change(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image))) for image in levels
    ]
    changed = torch.from_numpy(np.stack(made).reshape(levels.shape)).permute(0, 3, 1, 2)
    return changed.to(images) / 255
