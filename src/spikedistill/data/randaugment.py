"""RandAugment (Cubuk et al., 2020): operations drawn for every image, all at one strength.

Of 14 operations each image gets two, drawn uniformly and independently, at magnitude 9 of 10 on the scale of AutoAugment: shear
0.27, translation 150/331 * 0.9 of the side, rotation 27 degrees, enhancement factors 1 +- 0.81, 4 bits, threshold 25.6. Shear,
translation, rotation and enhancement have a random sign. The paper has these numbers for ResNet-50 on ImageNet.
"""

import torch
from torch import Tensor

from .autoaugment import apply_each

OPERATIONS = (
    None, "auto_contrast", "equalize", "rotate_either_way", "solarize", "color", "posterize", "contrast", "brightness",
    "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
COUNT = 2
MAGNITUDE = 9  # of 10


def randaugment(images: Tensor) -> Tensor:
    """Colour images `[B, 3, H, W]` in [0, 1], each changed by two operations. Changed images are rounded to 8 bits."""
    for _ in range(COUNT):
        drawn, sign = torch.randint(len(OPERATIONS), (len(images),)), torch.randint(2, (len(images),)) * 2 - 1
        strength = torch.full((len(images),), 0.9 * MAGNITUDE, dtype=torch.float64)
        images = apply_each(images, [OPERATIONS[k] for k in drawn.tolist()], strength, strength * sign)
    return images
