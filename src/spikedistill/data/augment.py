"""Augmentation of a whole batch at once, with separate random draws for every sample.

All random numbers of the library's augmentations come from torch's global CPU generator, on every device: the same seed gives the
same batch. They are sent to the device without synchronisation, and nothing is read back. Legend: B batch, C channels, H height, W
width; pixel (row h, column w) covers [w, w+1) x [h, h+1).
"""

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..registry import Registry
from .autoaugment import autoaugment
from .erasing import erase
from .pixels import rotate, take_pixels
from .randaugment import randaugment
from .resized_crop import RESIZED_CROP
from .sending import sent

Augmentation = Callable[[Tensor], Tensor]
_Own = TypeVar("_Own", bound=Augmentation)

# Written to a run's manifest, and to the fingerprint in its checkpoints. If you change the result of an augmentation for the same
# draws, raise its version here, so that earlier runs are read as they were made. Augmentations that are not named have version 1.
_CHANGED = {"autoaugment": 2}  # 1: the paper's table, 2: that of published networks
AUGMENTATION_VERSION = max(_CHANGED.values())
"""The version of the library's augmentations. A run is not resumed if one of its augmentations has changed version."""
_OF_COLOURS = ("autoaugment", "randaugment")
PADDING = 4
HOLE = 16
SHIFT = 5
DEGREES = 30
# The number of samples that a registered augmentation is tried on.
_TRIED = 8

AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", "spikedistill.augmentations")
"""Augmentations by name."""


def augment(inputs: Tensor, names: tuple[str, ...]) -> Tensor:
    """Augment a batch by the named operations, in their order.

    - "crop": the image is moved by up to 4 pixels each way; pixels from outside are zero (He et al., 2016).
    - "flip": left to right, with probability 1/2.
    - "autoaugment": one of the 25 CIFAR-10 sub-policies (Cubuk et al., 2019), drawn for every image, in the form used to train
      published spiking networks (see `autoaugment.py`); only for colour images.
    - "cutout": a square of 16x16 around any pixel, clipped at the border, set to zero (DeVries and Taylor, 2017).
      As published this comes before normalisation.
    - "randaugment": two of 14 operations, drawn for every image, at magnitude 9 of 10 (Cubuk et al., 2020); only for colour images.
    - "erase": in half of the images a rectangle of 2 to 40 percent becomes noise (Zhong et al., 2020); only for images.
    - "nda": one of roll by up to 5 pixels each way, rotation by up to 30 degrees, and cutout (Li et al., 2022).
    - "resized-crop": nothing here, because it is drawn while an image file is read (see `resized_crop.py`).
    - any name of `register_augmentation`.

    Args:
        inputs: images `[B, C, H, W]` in [0, 1], or event frames `[T, B, C, H, W]`; all timesteps of a sample are treated alike.
        names: any of the above.

    Returns:
        The augmented batch, of the same shape, dtype and device.

    Raises:
        UserError: for an unknown name, another number of axes, integers, one of another kind of images than it takes, or a
            registered augmentation that returns something else.
    """
    augmentations = [AUGMENTATIONS[name] for name in names]
    if inputs.ndim not in (4, 5) or not inputs.is_floating_point():
        raise UserError(
            "augmentation takes images [B, C, H, W] or event frames [T, B, C, H, W] as floats (uint8 images divided by "
            f"255); got {list(inputs.shape)} {inputs.dtype}"
        )
    for name in names:
        if name in _OF_COLOURS and (inputs.ndim == 5 or inputs.shape[1] != 3):
            raise UserError(f"{name!r} takes colour images [B, 3, H, W]; got {list(inputs.shape)}: leave it out")
        if name == "erase" and inputs.ndim == 5:
            raise UserError(f"'erase' takes images [B, C, H, W]; got {list(inputs.shape)}: leave it out")
    for augmentation in augmentations:
        inputs = augmentation(inputs)
    return inputs.contiguous() if inputs.ndim == 5 else inputs


def augmentation_version(names: tuple[str, ...]) -> int:
    """The version since which these augmentations have been the same."""
    return max((_CHANGED.get(name, 1) for name in names), default=1)


def augmentation_identity(names: tuple[str, ...]) -> str:
    """A text that changes if these augmentations do: their version, and the files or modules of registered ones."""
    origins = {name: AUGMENTATIONS.origin(name) for name in names}
    own = [f"{name} of {Path(origin).stem}" for name, origin in origins.items() if origin is not None]
    return ", ".join([str(augmentation_version(names)), *own])


def register_augmentation(name: str) -> Callable[[_Own], _Own]:
    """Register an augmentation under a name, for `--data.augment NAME`.

    Use it as a decorator of a function that takes a batch, images `[B, C, H, W]` in [0, 1] or event frames `[T, B, C, H, W]`, and
    returns a batch of the same shape, dtype and device. It receives a copy, which it may change in place.

    Draw all random numbers from torch's global generator (`torch.rand(...)`): training seeds it before every batch, so that a run
    can be repeated and resumed exactly. Other generators are refused when a run begins.

    Args:
        name: free, without spaces, commas and equals signs.

    Raises:
        UserError: if the name is taken.
    """

    def enter(own: _Own) -> _Own:
        @functools.wraps(own)
        def checked(inputs: Tensor) -> Tensor:
            out = own(inputs.clone())
            expected = f"{list(inputs.shape)} {inputs.dtype} on {inputs.device}"
            if not isinstance(out, Tensor):
                raise UserError(f"augmentation {name!r} returned a {type(out).__name__}, expected a tensor {expected}")
            if (out.shape, out.dtype, out.device) != (inputs.shape, inputs.dtype, inputs.device):
                got = f"{list(out.shape)} {out.dtype} on {out.device}"
                raise UserError(f"augmentation {name!r} returned {got} for a batch {expected}: expected the same")
            return out

        AUGMENTATIONS.register(name, checked)
        return own

    return enter


def try_augmentations(names: tuple[str, ...], inputs: Tensor) -> None:
    """Try augmentations on the first samples of a batch.

    Raises:
        UserError: for what `augment` refuses, and for a registered augmentation that returns numbers that are not finite, or
            draws random numbers from another generator than torch's global one.
    """
    for name in names:
        _ = AUGMENTATIONS[name]  # imports the package that declares it
    own = [name for name in names if AUGMENTATIONS.origin(name) is not None]
    inputs = inputs.narrow(inputs.ndim - 4, 0, min(_TRIED if own else 1, inputs.shape[inputs.ndim - 4]))
    with torch.random.fork_rng(devices=[]):
        augment(inputs, names)
        for name in own:
            _try_own(name, inputs)


def _try_own(name: str, inputs: Tensor) -> None:
    before = random.getstate(), str(np.random.get_state())
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        results.append(augment(inputs, (name,)))
    if not results[0].isfinite().all():
        raise UserError(f"augmentation {name!r} returned numbers that are not finite: expected images in [0, 1]")
    if before != (random.getstate(), str(np.random.get_state())) or not torch.equal(*results):
        raise UserError(
            f"augmentation {name!r} draws random numbers from another generator than torch's global one, so a run could not be "
            "resumed exactly: use torch.rand(...), torch.randint(...) and the like"
        )


def _alike_over_time(of_images: Augmentation) -> Augmentation:
    """Apply an augmentation of images to event frames too: timesteps become channels, so that all are treated alike."""

    @functools.wraps(of_images)
    def augmentation(inputs: Tensor) -> Tensor:
        if inputs.ndim == 4:
            return of_images(inputs)
        T, _, C = inputs.shape[:3]
        return of_images(inputs.transpose(0, 1).flatten(1, 2)).unflatten(1, (T, C)).transpose(0, 1)

    return augmentation


def crop(images: Tensor) -> Tensor:
    return _cropped(images, _moves(len(images), PADDING))


def flip(images: Tensor) -> Tensor:
    flipped = sent(torch.randint(2, (len(images), 1, 1, 1)).bool(), images.device)
    return torch.where(flipped, images.flip(-1), images)


def cutout(images: Tensor) -> Tensor:
    return _holed(images, *_centres(len(images), images.shape[-2:]))


def one_of_nda(images: Tensor) -> Tensor:
    """One of roll, rotation and cutout for each image; all are computed for all images, so that no shape depends on the draws."""
    B = len(images)
    choice = torch.randint(3, (B,))
    rolled, tilted, holed = (choice == k for k in range(3))
    # each image uses only the draws of the operation that is applied to it
    moves = torch.zeros(2, B, 1, 1, dtype=torch.int64)
    moves[:, rolled] = _moves(int(rolled.sum()), SHIFT)
    degrees = torch.zeros(B)
    degrees[tilted] = (2 * torch.rand(int(tilted.sum())) - 1) * DEGREES
    centres = torch.zeros(2, B, 1, dtype=torch.int64)
    centres[:, holed] = torch.stack(_centres(int(holed.sum()), images.shape[-2:]))
    of_each = _rolled(images, moves), rotate(images, sent(degrees, images.device)), _holed(images, *centres)
    choice = sent(choice, images.device).view(-1, 1, 1, 1)
    return torch.where(choice == 0, of_each[0], torch.where(choice == 1, of_each[1], of_each[2]))


for _name, _of_images in {
    "crop": crop,
    "flip": flip,
    "autoaugment": autoaugment,
    "cutout": cutout,
    "randaugment": randaugment,
    "erase": erase,
    "nda": one_of_nda,
}.items():
    AUGMENTATIONS.register(_name, _alike_over_time(_of_images))
AUGMENTATIONS.register(RESIZED_CROP, lambda images: images)


def _moves(batch: int, most: int) -> Tensor:
    """Draw whole numbers from -most..most, `[2, B, 1, 1]`: the rows and columns to move each image by."""
    return torch.randint(-most, most + 1, (2, batch, 1, 1))


def _cropped(images: Tensor, moves: Tensor) -> Tensor:
    rows, columns = _moved(images, moves)
    return take_pixels(images, rows, columns)


def _rolled(images: Tensor, moves: Tensor) -> Tensor:
    rows, columns = _moved(images, moves)
    return take_pixels(images, rows % images.shape[-2], columns % images.shape[-1])


def _moved(images: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `[B, H, 1]` and columns `[B, 1, W]` of the input's pixels that moved images show."""
    H, W = images.shape[-2:]
    moves = sent(moves, images.device)
    rows = torch.arange(H, device=images.device)[:, None] + moves[0]
    columns = torch.arange(W, device=images.device) + moves[1]
    return rows, columns


def _centres(batch: int, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Draw a pixel for each image: its row `[B, 1]` and column `[B, 1]`."""
    return torch.randint(size[0], (batch, 1)), torch.randint(size[1], (batch, 1))


def _holed(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Images with a hole around a pixel."""
    rows, columns = (
        _near(length, c, images.device) for length, c in zip(images.shape[-2:], (row, column), strict=True)
    )
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def _near(length: int, centre: Tensor, device: torch.device) -> Tensor:
    """Whether each place of an axis lies in a hole around `centre` `[B, 1]`, bool `[B, length]`."""
    distance = torch.arange(length, device=device) - sent(centre, device)
    return (distance >= -(HOLE // 2)) & (distance < HOLE // 2)
