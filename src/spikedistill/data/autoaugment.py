"""AutoAugment's CIFAR-10 policy (Cubuk et al., 2019), a sub-policy drawn for every image of a batch.

The colour operations are kornia's, which agree with those of Pillow that the policy was found with. kornia's own `AutoAugment`
draws one sub-policy for the whole batch and takes strengths from other, one-sided scales; here a strength m of 0..9 has a random
sign, as in the code that spiking networks are commonly trained with. Legend: B batch, H height, W width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .pixels import at, pixel_centres, rotate

GREY = 128 / 255  # what comes in from outside the image

# (operation, probability, strength), two for each sub-policy: the paper's appendix.
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
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
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
    """What chance decides for a batch."""

    policy: Tensor  # index of each image's sub-policy, [B]
    applied: Tensor  # whether its two operations take place, [2, B] bool
    sign: Tensor  # the sign of their strengths, [2, B], -1 or 1


def autoaugment(images: Tensor) -> Tensor:
    """Colour images `[B, 3, H, W]` in [0, 1], each changed by a sub-policy of its own."""
    return apply_policies(images, draw_policies(len(images)))


def draw_policies(batch: int) -> Draw:
    """A sub-policy for each of `batch` images, uniformly, its operations by their probabilities, signs evenly."""
    policy = torch.randint(len(POLICY), (batch,))
    probability = torch.tensor([[step[1] for step in steps] for steps in POLICY])[policy].T
    applied = torch.rand(2, batch) < probability
    sign = torch.randint(2, (2, batch)) * 2 - 1
    return Draw(policy, applied, sign)


def apply_policies(images: Tensor, draw: Draw) -> Tensor:
    """The images `[B, 3, H, W]` after their sub-policies: at each of two places, images with the same operation are grouped."""
    images = images.clone()
    for place in (0, 1):
        steps = [POLICY[k][place] for k in draw.policy.tolist()]
        for operation in sorted({step[0] for step in steps}):
            chosen = [b for b, step in enumerate(steps) if step[0] == operation and draw.applied[place, b]]
            if chosen:
                strength = torch.tensor([steps[b][2] for b in chosen], dtype=images.dtype)
                signed = strength * draw.sign[place, chosen]
                index = torch.tensor(chosen).to(images.device)
                images[index] = apply(operation, images[index], strength.to(images.device), signed.to(images.device))
    return images


def apply(operation: str, images: Tensor, strength: Tensor, signed: Tensor) -> Tensor:
    """One operation on images `[B, 3, H, W]` at strengths `[B]` in 0..9, `signed` being the same with their signs.

    At 9: shear 0.3, translation 150/331 of the side, rotation 30 degrees, enhancement factors 1 ± 0.9, 4 bits, threshold 0.
    """
    import kornia.enhance as enhance

    H, W = images.shape[-2:]
    y, x = pixel_centres(images)
    part = signed.view(-1, 1, 1) / 9
    factor = 1 + 0.1 * signed
    match operation:
        case "shear_y":
            return at(images, y + 0.3 * part * x, x, GREY)
        case "translate_x":
            return at(images, y, x + 150 / 331 * W * part, GREY)
        case "translate_y":
            return at(images, y + 150 / 331 * H * part, x, GREY)
        case "rotate":
            return rotate(images, 30 / 9 * signed, GREY)
        case "color":
            return enhance.adjust_saturation_with_gray_subtraction(images, factor)
        case "contrast":
            return enhance.adjust_contrast_with_mean_subtraction(images, factor)
        case "brightness":
            return enhance.adjust_brightness_accumulative(images, factor)
        case "sharpness":
            return enhance.sharpness(images, factor)
        case "posterize":
            return enhance.posterize(images, (8 - 4 / 9 * strength).round().int())
        case "solarize":
            return enhance.solarize(images, 256 / 255 * (1 - strength / 9))
        case "auto_contrast":
            varied = images.amax((2, 3), keepdim=True) > images.amin((2, 3), keepdim=True)
            return torch.where(varied, enhance.normalize_min_max(images), images)
        case "equalize":
            return enhance.equalize(images)
        case "invert":
            return enhance.invert(images)
    raise AssertionError(operation)
