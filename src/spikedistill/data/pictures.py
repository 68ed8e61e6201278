"""A picture of some samples of each class; events move in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .batches import as_network_input
from .dataset import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_CLASSES, _SAMPLES = 12, 8
_CELL, _GAP, _NAMES = 64, 4, 130  # pixels
_FRAME_MILLISECONDS = 200
# What pixels that became darker and brighter take from white, of red, green and blue.
_TAKEN = torch.tensor([[0.15, 0.75, 0.85], [0.9, 0.55, 0.1]])


def draw_samples(dataset: Dataset, path: Path) -> None:
    """Write a PNG with a row of training samples for each of the first classes; one of events has a frame for each timestep."""
    rows = [_row(dataset, k) for k in range(min(len(dataset.classes), _CLASSES))]
    pages = [_page(frames, dataset.classes) for frames in zip(*rows, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    moving = {"save_all": True, "append_images": pages[1:], "duration": _FRAME_MILLISECONDS, "loop": 0}
    pages[0].save(path, "PNG", **(moving if len(pages) > 1 else {}))


def _row(dataset: Dataset, label: int) -> Tensor:
    """Colours `[T or 1, 3, _CELL, width]` of samples of a class, side by side."""
    places = (dataset.train.targets == label).nonzero().flatten()[:_SAMPLES]
    inputs = dataset.train.inputs(places) if len(places) else dataset.train.inputs(torch.tensor([0]))[:0]
    pixels = as_network_input(inputs, dataset.kind)
    if dataset.kind == "events":
        strongest = pixels.amax((0, 2, 3, 4), keepdim=True).clamp_min(1e-9)
        shade = (pixels / strongest).sqrt()  # a few counts of many stay visible
        colours = 1 - torch.einsum("tbphw,pc->tbchw", shade, _TAKEN).clamp(0, 1)
    else:
        colours = pixels.unsqueeze(0).expand(-1, -1, 3, -1, -1)
    T, B, _, H, W = colours.shape
    scale = _CELL / max(H, W)
    size = max(1, round(H * scale)), max(1, round(W * scale))
    cells = F.interpolate(colours.flatten(0, 1).float(), size, mode="nearest").unflatten(0, (T, B))
    row = torch.ones(T, 3, _CELL, _SAMPLES * (_CELL + _GAP))
    for k in range(B):
        left = k * (_CELL + _GAP)
        row[..., : size[0], left : left + size[1]] = cells[:, k]
    return row


def _page(rows: Sequence[Tensor], classes: Sequence[str]) -> "Picture":
    """Rows `[3, _CELL, width]` below one another, with the names of their classes."""
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (_NAMES + rows[0].shape[-1], len(rows) * (_CELL + _GAP)), "white")
    draw = ImageDraw.Draw(page)
    for k, row in enumerate(rows):
        top = k * (_CELL + _GAP)
        page.paste(Image.fromarray((row.movedim(0, -1) * 255).round().byte().numpy()), (_NAMES, top))
        draw.text((4, top + _CELL // 2 - 6), classes[k][:20], fill="black")
    return page
