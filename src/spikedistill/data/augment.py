"""Augmentation of a whole batch at once, every sample by its own draw.

All random numbers come from torch's global CPU generator, whatever the device: the same seed gives the same batch.
Legend: B batch, C channels, H height, W width; pixel (row h, column w) covers [w, w+1) x [h, h+1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .autoaugment import autoaugment
from .pixels import rotate, take_pixels

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
        ValueError: an unknown name, another number of axes, integers, or "autoaugment" of anything but colour images.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {name!r}; choose from {', '.join(AUGMENTATIONS)}")
    if inputs.ndim not in (4, 5) or not inputs.is_floating_point():
        raise ValueError(
            "augmentation takes images [B, C, H, W] or event frames [T, B, C, H, W] as floats (uint8 images divided by "
            f"255); got {list(inputs.shape)} {inputs.dtype}"
        )
    if "autoaugment" in names and (inputs.ndim == 5 or inputs.shape[1] != 3):
        raise ValueError(f"'autoaugment' takes colour images [B, 3, H, W]; got {list(inputs.shape)}: leave it out")
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
    rows, columns = _moved(images, PADDING)
    return take_pixels(images, rows, columns)


def roll(images: Tensor) -> Tensor:
    rows, columns = _moved(images, SHIFT)
    return take_pixels(images, rows % images.shape[-2], columns % images.shape[-1])


def flip(images: Tensor) -> Tensor:
    flipped = torch.randint(2, (len(images), 1, 1, 1)).bool().to(images.device)
    return torch.where(flipped, images.flip(-1), images)


def tilt(images: Tensor) -> Tensor:
    degrees = (2 * torch.rand(len(images)) - 1) * DEGREES
    return rotate(images, degrees.to(images.device))


def cutout(images: Tensor) -> Tensor:
    return images.masked_fill(_hole(images, -2) & _hole(images, -1), 0.0)


def one_of_nda(images: Tensor) -> Tensor:
    choice = torch.randint(3, (len(images),))
    augmented = images.clone()
    for k, operation in enumerate((roll, tilt, cutout)):
        chosen = (choice == k).nonzero()[:, 0].to(images.device)
        augmented[chosen] = operation(images[chosen])
    return augmented


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "crop": crop,
    "flip": flip,
    "autoaugment": autoaugment,
    "cutout": cutout,
    "nda": one_of_nda,
}


def _moved(images: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Rows `[B, H, 1]` and columns `[B, 1, W]`, each sample's moved by a whole number drawn from -most..most."""
    H, W = images.shape[-2:]
    moves = torch.randint(-most, most + 1, (2, len(images), 1, 1)).to(images.device)
    rows = torch.arange(H, device=images.device)[:, None] + moves[0]
    columns = torch.arange(W, device=images.device) + moves[1]
    return rows, columns


def _hole(images: Tensor, axis: int) -> Tensor:
    """Where a hole drawn for every image lies along `axis`: `[B, 1, H, 1]` or `[B, 1, 1, W]`, True inside."""
    length = images.shape[axis]
    centre = torch.randint(length, (len(images), 1)).to(images.device)
    distance = torch.arange(length, device=images.device) - centre
    inside = (distance >= -(HOLE // 2)) & (distance < HOLE // 2)
    return inside[:, None, :, None] if axis == -2 else inside[:, None, None, :]
