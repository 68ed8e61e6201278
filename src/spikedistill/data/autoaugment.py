"""AutoAugment's CIFAR-10 policy (Cubuk et al., 2019), a sub-policy drawn for every image, as used to train published spiking
networks.

The code of these networks copies a common PyTorch version from before October 2019, which works on 8-bit images with Pillow. In it
`rotate` always turns counter-clockwise, shears interpolate, and sub-policy 16 equalises with probability 0.8; the paper's table has
0.6. Shear, translation and enhancement have a random sign. Legend: B batch, H height, W width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import pillow
from .sending import sent

# (operation, probability, strength), two for each sub-policy.
POLICY = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("auto_contrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.8, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("auto_contrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 1)),
)


class Draw(NamedTuple):
    """The random draws for a batch."""

    policy: Tensor  # index of each image's sub-policy, [B]
    applied: Tensor  # whether its two operations are applied, [2, B] bool
    sign: Tensor  # the sign of their strengths, [2, B], -1 or 1


def autoaugment(images: Tensor) -> Tensor:
    """Colour images `[B, 3, H, W]` in [0, 1], each changed by the sub-policy drawn for it. Changed images are rounded to 8 bits."""
    return apply_policies(images, draw_policies(len(images)))


def draw_policies(batch: int) -> Draw:
    """Draw a sub-policy for each of `batch` images uniformly, its operations by their probabilities, and their signs evenly."""
    policy = torch.randint(len(POLICY), (batch,))
    probability = torch.tensor([[step[1] for step in steps] for steps in POLICY])[policy].T
    applied = torch.rand(2, batch) < probability
    sign = torch.randint(2, (2, batch)) * 2 - 1
    return Draw(policy, applied, sign)


def apply_policies(images: Tensor, draw: Draw) -> Tensor:
    """The images `[B, 3, H, W]` after their sub-policies. At each of the two places, images with the same operation are grouped.

    The draw is on the host, also for images on another device.
    """
    for place in (0, 1):
        steps = [POLICY[k][place] for k in draw.policy.tolist()]
        names = [
            step[0] if applied else None for step, applied in zip(steps, draw.applied[place].tolist(), strict=True)
        ]
        strength = torch.tensor([step[2] for step in steps], dtype=torch.float64)
        images = apply_each(images, names, strength, strength * draw.sign[place])
    return images


def apply_each(images: Tensor, names: Sequence[str | None], strength: Tensor, signed: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` in [0, 1], each after the operation of its name, if it has one; see `apply`."""
    images = images.clone()
    for operation in sorted({name for name in names if name is not None}):
        chosen = torch.tensor([b for b, name in enumerate(names) if name == operation])
        index = sent(chosen, images.device)
        levels = (255 * images[index].float()).round()
        levels = apply(operation, levels, strength[chosen], signed[chosen])
        images[index] = levels.to(images.dtype) / 255
    return images


def apply(operation: str, levels: Tensor, strength: Tensor, signed: Tensor) -> Tensor:
    """One operation on levels 0..255 `[B, 3, H, W]` at strengths `[B]` in 0..9; `signed` has the strengths with their signs.

    Both are on the host. At strength 9: shear 0.3, translation 150/331 of the side, rotation 30 degrees, enhancement factors 1 ±
    0.9, 4 bits, threshold 0.
    """
    H, W = levels.shape[-2:]
    match operation:
        case "shear_x":
            return pillow.shear_y(levels.mT, signed * (0.3 / 9)).mT
        case "shear_y":
            return pillow.shear_y(levels, signed * (0.3 / 9))
        case "translate_x":
            return pillow.translate(levels, right=signed * (150 / 331 / 9) * W)
        case "translate_y":
            return pillow.translate(levels, down=signed * (150 / 331 / 9) * H)
        case "rotate":
            return pillow.rotate(levels, strength * (30 / 9))
        case "rotate_either_way":
            return pillow.rotate(levels, signed * (30 / 9))
        case "color":
            return pillow.enhance(levels, pillow.grey(levels), 1 + 0.1 * signed)
        case "contrast":
            return pillow.enhance(levels, pillow.mean_grey(levels), 1 + 0.1 * signed)
        case "brightness":
            return pillow.enhance(levels, 0.0, 1 + 0.1 * signed)
        case "sharpness":
            return pillow.enhance(levels, pillow.smooth(levels), 1 + 0.1 * signed)
        case "posterize":
            return pillow.posterize(levels, (8 - 4 / 9 * strength).round())
        case "solarize":
            return pillow.solarize(levels, 256 * (1 - strength / 9))
        case "auto_contrast":
            return pillow.auto_contrast(levels)
        case "equalize":
            return pillow.equalize(levels)
        case "invert":
            return 255 - levels
    raise AssertionError(operation)
