"""Moves pixels: each output pixel is a copy of one input pixel (nearest neighbour, as in Pillow).

Legend: B batch, C channels, H height, W width; pixel (row h, column w) has its centre at (h + 0.5, w + 0.5).
"""

import torch
from torch import Tensor


def take_pixels(images: Tensor, rows: Tensor, columns: Tensor, fill: float = 0.0) -> Tensor:
    """Images `[B, C, H, W]` whose pixel (h, w) shows the pixel at `rows[b, h, w]`, `columns[b, h, w]`, or `fill` outside.

    `rows` and `columns` are int64 and broadcast to `[B, H, W]`.
    """
    B, C, H, W = images.shape
    inside = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
    source = (rows.clamp(0, H - 1) * W + columns.clamp(0, W - 1)).expand(B, H, W).flatten(1)
    taken = images.flatten(2).gather(2, source[:, None].expand(-1, C, -1)).view(B, C, H, W)
    return torch.where(inside[:, None], taken, fill)


def pixel_centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """The centres' y `[1, H, 1]` and x `[1, 1, W]`, in pixels from the upper left corner."""
    H, W = images.shape[-2:]
    y = torch.arange(H, device=images.device).view(1, H, 1) + 0.5
    x = torch.arange(W, device=images.device).view(1, 1, W) + 0.5
    return y, x


def at(images: Tensor, y: Tensor, x: Tensor, fill: float = 0.0) -> Tensor:
    """Images whose every pixel is the input's pixel that contains the point (y, x), or `fill` outside."""
    return take_pixels(images, y.floor().long(), x.floor().long(), fill)


def rotate(images: Tensor, degrees: Tensor, fill: float = 0.0) -> Tensor:
    """Images turned counter-clockwise about their centre, each by its own angle in `degrees` `[B]`."""
    H, W = images.shape[-2:]
    angle = torch.deg2rad(degrees).view(-1, 1, 1)
    y, x = pixel_centres(images)
    y, x = y - H / 2, x - W / 2
    cos, sin = angle.cos(), angle.sin()
    return at(images, sin * x + cos * y + H / 2, cos * x - sin * y + W / 2, fill)
