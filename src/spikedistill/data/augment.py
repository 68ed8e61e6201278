"""Augmentation of a whole batch at once, every sample by its own draw.

All random numbers come from torch's global CPU generator, whatever the device: the same seed gives the same batch. They are sent to
the device without waiting for it, and nothing is read back.
Legend: B batch, C channels, H height, W width; pixel (row h, column w) covers [w, w+1) x [h, h+1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UserError
from .autoaugment import autoaugment
from .pixels import rotate, take_pixels
from .sending import sent

# Goes into a run's manifest, and into the fingerprint that its checkpoints carry. Whoever changes what an augmentation makes of the
# same draws raises its version here, so that runs made before are read as they were made. Those that are not named have version 1.
_CHANGED = {"autoaugment": 2}  # from the paper's table to that of published networks
AUGMENTATION_VERSION = max(_CHANGED.values())
PADDING = 4
HOLE = 16
SHIFT = 5
DEGREES = 30


def augment(inputs: Tensor, names: tuple[str, ...]) -> Tensor:
    """Augment a batch by the named operations, in their order.

    - "crop": the image moved by up to 4 pixels each way, zeros coming in from outside (He et al., 2016).
    - "flip": left to right, with probability 1/2.
    - "autoaugment": one of the 25 CIFAR-10 sub-policies (Cubuk et al., 2019), drawn for every image, in the form that published
      spiking networks are trained with (see `autoaugment.py`); colour images only.
    - "cutout": a square of 16x16 around any pixel, clipped at the border, set to zero (DeVries and Taylor, 2017).
      As published this comes before normalisation.
    - "nda": one of roll by up to 5 pixels each way, rotation by up to 30 degrees, and cutout (Li et al., 2022).

    Args:
        inputs: images `[B, C, H, W]` in [0, 1], or event frames `[T, B, C, H, W]`, all timesteps of a sample treated alike.
        names: any of the above.

    Returns:
        The augmented batch, of the same shape, dtype and device.

    Raises:
        UserError: an unknown name, another number of axes, integers, or "autoaugment" of anything but colour images.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise UserError(f"unknown augmentation {name!r}; choose from {', '.join(AUGMENTATIONS)}")
    if inputs.ndim not in (4, 5) or not inputs.is_floating_point():
        raise UserError(
            "augmentation takes images [B, C, H, W] or event frames [T, B, C, H, W] as floats (uint8 images divided by "
            f"255); got {list(inputs.shape)} {inputs.dtype}"
        )
    if "autoaugment" in names and (inputs.ndim == 5 or inputs.shape[1] != 3):
        raise UserError(f"'autoaugment' takes colour images [B, 3, H, W]; got {list(inputs.shape)}: leave it out")
    # Timesteps become channels, so that whatever happens to a sample happens to all of its timesteps.
    images = inputs.transpose(0, 1).flatten(1, 2) if inputs.ndim == 5 else inputs
    for name in names:
        images = AUGMENTATIONS[name](images)
    if inputs.ndim == 5:
        return images.unflatten(1, (inputs.shape[0], inputs.shape[2])).transpose(0, 1).contiguous()
    return images


def augmentation_version(names: tuple[str, ...]) -> int:
    """The version since which these augmentations have been what they are."""
    return max((_CHANGED.get(name, 1) for name in names), default=1)


def crop(images: Tensor) -> Tensor:
    return _cropped(images, _moves(len(images), PADDING))


def flip(images: Tensor) -> Tensor:
    flipped = sent(torch.randint(2, (len(images), 1, 1, 1)).bool(), images.device)
    return torch.where(flipped, images.flip(-1), images)


def cutout(images: Tensor) -> Tensor:
    return _holed(images, *_centres(len(images), images.shape[-2:]))


def one_of_nda(images: Tensor) -> Tensor:
    """Every operation is computed for all images, so that no shape depends on the draws."""
    B = len(images)
    choice = torch.randint(3, (B,))
    rolled, tilted, holed = (choice == k for k in range(3))
    # each image has the draws of its own operation only
    moves = torch.zeros(2, B, 1, 1, dtype=torch.int64)
    moves[:, rolled] = _moves(int(rolled.sum()), SHIFT)
    degrees = torch.zeros(B)
    degrees[tilted] = (2 * torch.rand(int(tilted.sum())) - 1) * DEGREES
    centres = torch.zeros(2, B, 1, dtype=torch.int64)
    centres[:, holed] = torch.stack(_centres(int(holed.sum()), images.shape[-2:]))
    of_each = _rolled(images, moves), rotate(images, sent(degrees, images.device)), _holed(images, *centres)
    choice = sent(choice, images.device).view(-1, 1, 1, 1)
    return torch.where(choice == 0, of_each[0], torch.where(choice == 1, of_each[1], of_each[2]))


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "crop": crop,
    "flip": flip,
    "autoaugment": autoaugment,
    "cutout": cutout,
    "nda": one_of_nda,
}


def _moves(batch: int, most: int) -> Tensor:
    """Whole numbers drawn from -most..most, `[2, B, 1, 1]`: rows and columns to move each image by."""
    return torch.randint(-most, most + 1, (2, batch, 1, 1))


def _cropped(images: Tensor, moves: Tensor) -> Tensor:
    rows, columns = _moved(images, moves)
    return take_pixels(images, rows, columns)


def _rolled(images: Tensor, moves: Tensor) -> Tensor:
    rows, columns = _moved(images, moves)
    return take_pixels(images, rows % images.shape[-2], columns % images.shape[-1])


def _moved(images: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `[B, H, 1]` and columns `[B, 1, W]` of the pixels that moved images show."""
    H, W = images.shape[-2:]
    moves = sent(moves, images.device)
    rows = torch.arange(H, device=images.device)[:, None] + moves[0]
    columns = torch.arange(W, device=images.device) + moves[1]
    return rows, columns


def _centres(batch: int, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Any pixel for each image: its row `[B, 1]` and column `[B, 1]`."""
    return torch.randint(size[0], (batch, 1)), torch.randint(size[1], (batch, 1))


def _holed(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Images with a hole around a pixel."""
    rows, columns = (
        _near(length, c, images.device) for length, c in zip(images.shape[-2:], (row, column), strict=True)
    )
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def _near(length: int, centre: Tensor, device: torch.device) -> Tensor:
    """Which places of an axis lie in a hole around `centre` `[B, 1]`, bool `[B, length]`."""
    distance = torch.arange(length, device=device) - sent(centre, device)
    return (distance >= -(HOLE // 2)) & (distance < HOLE // 2)
