"""Pillow's operations on whole batches, equal to the last bit, because published networks are trained on images from Pillow.

Images here are levels: whole numbers 0..255 as float32 `[B, 3, H, W]`. Every operation returns levels, rounded as in Pillow.
Arguments that differ between images are float64 tensors `[B]` on the host, which are sent to the device without synchronisation.
Legend: B batch, H height, W width.
"""

import torch
from torch import Tensor

from .pixels import pixel_centres, take_pixels
from .sending import sent

GREY = 128.0  # of pixels from outside the image


def enhance(images: Tensor, ground: Tensor | float, factor: Tensor) -> Tensor:
    """`ground + factor (images - ground)`, clipped to levels (`ImageEnhance`): factor 0 is the ground, 1 the image."""
    factor = _of_each(factor, images)
    return (ground + factor * (images - ground)).clamp(0, 255).floor()


def grey(images: Tensor) -> Tensor:
    """The luminance `[B, 1, H, W]`, with Pillow's 16-bit weights."""
    red, green, blue = images.split(1, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()


def mean_grey(images: Tensor) -> Tensor:
    """The mean luminance `[B, 1, 1, 1]`, a level."""
    return (grey(images).mean((2, 3), keepdim=True, dtype=torch.float64) + 0.5).floor().to(images)


def smooth(images: Tensor) -> Tensor:
    """The mean of 3x3 pixels with weight 5 for the middle and 1 for the others; the outermost pixels are unchanged."""
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * images[..., 1:-1, 1:-1]
    smoothed = images.clone()
    smoothed[..., 1:-1, 1:-1] = (total / 13 + 0.5).floor()
    return smoothed


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper `bits` of every level."""
    step = _of_each(2.0 ** (8 - bits), images)
    return (images / step).floor() * step


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert levels at or above the threshold."""
    return torch.where(images < _of_each(threshold, images), images, 255 - images)


def auto_contrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255."""
    low, high = (extreme.double() for extreme in images.flatten(2).aminmax(dim=2, keepdim=True))
    # `255 / tensor` would round twice: PyTorch multiplies by the reciprocal
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    table = (levels * scale - low * scale).clamp(0, 255).floor()
    return _look_up(torch.where(high > low, table, levels), images)


def equalize(images: Tensor) -> Tensor:
    """Change the levels of each channel so that all are about equally frequent."""
    pixels = images.flatten(2).long()
    count = pixels.new_zeros(*pixels.shape[:2], 256).scatter_add_(2, pixels, torch.ones_like(pixels))
    brightest = count.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - brightest) // 255
    darker = count.cumsum(2) - count
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    return _look_up(torch.where(step > 0, table, torch.arange(256, device=images.device)), images)


def translate(images: Tensor, down: Tensor | float = 0.0, right: Tensor | float = 0.0) -> Tensor:
    """Shift images: each output pixel is the input's pixel that lies `down` rows below and `right` columns to the right of it."""
    y, x = pixel_centres(images)
    rows, columns = (
        (centre.double() + (sent(far, images.device).view(-1, 1, 1) if isinstance(far, Tensor) else far)).floor().long()
        for centre, far in ((y, down), (x, right))
    )
    return take_pixels(images, rows, columns, GREY)


def shear_y(images: Tensor, slope: Tensor) -> Tensor:
    """Move columns by `slope` times their x, interpolated by Pillow's cubic (Keys' with a = -1)."""
    height = images.shape[-2]
    y, x = (centre.double() for centre in pixel_centres(images))
    source = sent(slope, images.device).view(-1, 1, 1) * x + y
    first = (source - 0.5).floor()
    d = (source - 0.5 - first)[:, None]
    rows = first.long()[:, None].expand(images.shape)
    v1, v2, v3, v4 = (images.gather(2, (rows + k).clamp(0, height - 1)).double() for k in (-1, 0, 1, 2))
    value = v2 + d * (v3 - v1 + d * (2 * (v1 - v2) + v3 - v4 + d * (v2 - v1 - v3 + v4)))
    inside = ((source >= 0) & (source < height))[:, None]
    return torch.where(inside, value.clamp(0, 255).floor(), GREY).to(images)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate images counter-clockwise about their centre, with pixel positions in steps of 1/65536, as in Pillow."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees).view(-1, 1, 1)
    cos, sin = angle.cos(), angle.sin()
    y = torch.arange(height, device=images.device).view(1, -1, 1)
    x = torch.arange(width, device=images.device).view(1, 1, -1)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    start_x = width / 2 - cos * middle_x + sin * middle_y
    start_y = height / 2 - sin * middle_x - cos * middle_y
    # rounded on the host, so that all devices find the same pixels
    start_x, start_y, cos, sin, back = sent(
        torch.stack([_fixed(number) for number in (start_x, start_y, cos, sin, -sin)]), images.device
    )
    columns = start_x + cos * x + back * y
    rows = start_y + sin * x + cos * y
    return take_pixels(images, rows >> 16, columns >> 16, GREY)


def _of_each(number: Tensor, images: Tensor) -> Tensor:
    """A number for each image, with the device and dtype of the images."""
    return sent(number, images.device, images.dtype).view(-1, 1, 1, 1)


def _fixed(number: Tensor) -> Tensor:
    """A number in units of 1/65536."""
    return (number * 65536 + 0.5).floor().long()


def _look_up(table: Tensor, images: Tensor) -> Tensor:
    """Replace the levels of the images by those of a table `[B, 3, 256]`."""
    return table.gather(2, images.flatten(2).long()).view(images.shape).to(images)
