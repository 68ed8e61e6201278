"""Arrays of images or event frames as the inputs of a network: their axes and the values that they may hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .array_files import Announced
from .dataset import Samples, TensorSamples
from .event_counts import Merging, as_counts
from .files import MOST_VALUES, data_error
from .images import pixels_of
from .preprocess import Resize
from .statistics import statistics
from .stored import AT_ONCE, StoredSamples


class Form(NamedTuple):
    """The axes of the inputs after the axis of the samples.

    Attributes:
        axes: "HW", "HWC", "CHW" or "TCHW".
        channels: C; 1 for "HW".
        size: H and W.
        timesteps: T of event frames, else None.
    """

    axes: str
    channels: int
    size: tuple[int, int]
    timesteps: int | None = None


class Inputs(NamedTuple):
    """The inputs of one split, in memory or still in their file."""

    path: Path
    name: str
    values: np.ndarray | Announced

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype


def form_of(inputs: Inputs) -> Form:
    """What the axes are.

    Raises:
        UserError: if the axes are ambiguous or not supported.
    """
    shape, sample = inputs.shape, inputs.shape[1:]
    known = "[N, H, W], [N, H, W, C] or [N, C, H, W] for images, [N, T, 2, H, W] for event frames"

    def wrong(fault: str, remedy: str) -> UserError:
        return data_error(inputs.path, f"{inputs.name!r} has shape {list(shape)}{fault}", remedy)

    if len(shape) < 3:
        raise wrong(f", expected {known}", "tables and one-dimensional signals are not supported")
    if len(shape) > 5 or min(shape) < 1 or math.prod(sample) > MOST_VALUES:
        raise wrong(f", expected {known}", f"give each sample at most {MOST_VALUES} values and each axis at least one")
    if inputs.dtype.kind not in "biuf":
        raise data_error(
            inputs.path, f"{inputs.name!r} holds values of type {inputs.dtype}, expected numbers", "save it as uint8"
        )
    if len(shape) == 3:
        return Form("HW", 1, (sample[0], sample[1]))
    if len(shape) == 5:
        if sample[1] != 2:
            raise wrong(f", expected {known}", "give event frames two polarities on the third axis")
        return Form("TCHW", 2, (sample[2], sample[3]), sample[0])
    first, last = sample[0], sample[2]
    if first == last or max(first, last) <= 4:
        raise wrong(
            ", whose channels may be on the second or the last axis", "give images a height and width above 4, unlike C"
        )
    if first < last:
        return Form("CHW", first, (sample[1], last))
    return Form("HWC", last, (first, sample[1]))


def described(form: Form) -> str:
    sides = f"{form.size[0]}x{form.size[1]}"
    if form.timesteps is not None:
        return f"recordings of {form.timesteps} event frames of {sides}"
    return f"images of {sides} (height x width) in {form.channels} channel{'s' if form.channels > 1 else ''}"


@dataclass(frozen=True)
class Resizing:
    """Resizes images of bytes one by one, in the same way as images of files."""

    size: tuple[int, int]
    resize: Resize
    fill: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        from PIL import Image

        pixels = (image.squeeze(0) if len(image) == 1 else image.permute(1, 2, 0) for image in images)
        return torch.stack(
            [
                pixels_of(Image.fromarray(one.contiguous().numpy()), self.size, images.shape[1], self.resize, self.fill)
                for one in pixels
            ]
        )


Prepare = Resizing | Merging


def samples_of(inputs: Inputs, form: Form, targets: Tensor, prepare: Prepare | None = None) -> Samples:
    """The samples of an array, after a check of all values.

    Raises:
        UserError: if a value is out of range, or all images are of whole numbers 0 and 1, which as levels are nearly black.
    """
    convert = partial(converted, path=inputs.path, name=inputs.name, form=form, prepare=prepare)
    if isinstance(inputs.values, Announced):
        stored = StoredSamples(inputs.path, inputs.values, convert, torch.arange(len(targets)), targets)
        highest = [_level(stored.inputs(places)) for places in torch.arange(len(stored)).split(_at_once(inputs))]
        _check_levels(inputs, highest)
        return stored
    step = _at_once(inputs)
    parts = [convert(inputs.values[start : start + step]) for start in range(0, len(inputs.values), step)]
    _check_levels(inputs, [_level(part) for part in parts])
    return TensorSamples(torch.cat(parts), targets)


def _level(images: Tensor) -> int | None:
    """The highest level of images of bytes; None for other inputs."""
    return int(images.max()) if images.dtype == torch.uint8 else None


def _check_levels(inputs: Inputs, highest: Sequence[int | None]) -> None:
    known = [level for level in highest if level is not None]
    if known and max(known) == 1:
        raise data_error(
            inputs.path,
            f"{inputs.name!r} holds no whole numbers but 0 and 1, expected levels from 0 to 255",
            "save black and white images as bool, or as floating-point numbers in [0, 1]",
        )


def _at_once(inputs: Inputs) -> int:
    """The number of samples to convert at once."""
    return max(1, AT_ONCE // (math.prod(inputs.shape[1:]) * inputs.dtype.itemsize))


def converted(values: np.ndarray, *, path: Path, name: str, form: Form, prepare: Prepare | None) -> Tensor:
    """Stored values `[B, ...]` as inputs: images uint8 or float32 in [0, 1] `[B, C, H, W]`, event frames float32 `[B, T, 2, H, W]`.

    Raises:
        UserError: if a value is out of range.
    """
    if form.timesteps is not None:
        counts = as_counts(path, name, values, "save counts of events")
        return counts if prepare is None else prepare(counts)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise data_error(path, f"{name!r} holds NaN or infinity, expected numbers in [0, 1]", "remove such samples")
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            advice = "divide by 255" if low >= 0 and high <= 255 else "scale them"
            raise data_error(path, f"{name!r} holds numbers from {low:g} to {high:g}, expected [0, 1]", advice)
        images: np.ndarray = values.astype(np.float32)
    elif values.dtype.kind == "b":
        images = values.astype(np.uint8) * np.uint8(255)
    else:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            advice = "divide by 65535 and save as float32" if low >= 0 and high <= 65535 else "scale them"
            raise data_error(path, f"{name!r} holds whole numbers from {low} to {high}, expected 0 to 255", advice)
        images = values.astype(np.uint8)
    tensor = torch.from_numpy(images)
    tensor = tensor[:, None] if form.axes == "HW" else tensor.permute(0, 3, 1, 2) if form.axes == "HWC" else tensor
    tensor = tensor.contiguous()
    return tensor if prepare is None else prepare(tensor)


def statistics_of(samples: Samples, form: Form) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images, see `statistics`."""
    at_once = max(1, AT_ONCE // (math.prod(form.size) * form.channels * 8))
    return statistics(samples.inputs(places) for places in torch.arange(len(samples)).split(at_once))
