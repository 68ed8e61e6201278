"""Converts images and event frames, given as files, arrays or Pillow images, to the input of a network."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .images import SUFFIXES, pixels_of, read_image
from .preprocess import Preprocess
from .sets.event_frames import read_frames

_IMAGES = "expected paths, Pillow images, arrays of bytes (uint8) or of numbers in [0, 1]"
# Interpolation and noise take images a little out of [0, 1]; bytes, and images that were normalised, lie far outside.
_SLACK = 0.25


def samples_of(given: Any, taken: Preprocess) -> list[Any]:
    """The samples in `given` as a list: paths, Pillow images, arrays or tensors.

    Args:
        given: one sample, or a batch of them as a list, an array, a tensor or a folder of files; see `as_input` for the kinds.
        taken: what the network takes.

    Raises:
        UserError: for nothing, another kind of object, or an array whose axes can be read in two ways.
    """
    if isinstance(given, str | os.PathLike):
        return _files_in(Path(given), taken) if Path(given).is_dir() else [given]
    if _is_pillow(given):
        return [given]
    if isinstance(given, np.ndarray | Tensor) or hasattr(given, "__array__"):
        samples = _split(given if isinstance(given, Tensor) else np.asarray(given), taken)
    elif isinstance(given, Iterable) and not isinstance(given, Mapping | bytes):
        samples = list(given)
    else:
        raise UserError(f"got a {type(given).__name__}, {_IMAGES if taken.kind == 'image' else _FRAMES}")
    if not samples:
        raise UserError(f"got no sample, {_IMAGES if taken.kind == 'image' else _FRAMES}")
    return samples


def _files_in(folder: Path, taken: Preprocess) -> list[Any]:
    """The files of samples in a folder and its folders, sorted by their paths.

    Raises:
        UserError: if there is none.
    """
    suffixes = SUFFIXES if taken.kind == "image" else (".npz",)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not found:
        raise UserError(f"{folder} holds no file that ends in {', '.join(suffixes)}")
    return list(found)


def as_input(samples: Sequence[Any], taken: Preprocess) -> Tensor:
    """The input of a network: images `[B, C, H, W]` in [0, 1], or event frames `[T, B, C, H, W]`.

    Images are paths, Pillow images, or arrays and tensors `[H, W]`, `[H, W, C]` or `[C, H, W]`. Whole numbers 0 to 255 are
    resized as in training; floating-point numbers in [0, 1] must have the network's own size. A network of three
    channels gets grey images as three equal channels, and one of one channel the luminance of colour images. Event
    frames are paths of `.npz` files, or counts `[T, 2, H, W]`.

    Raises:
        FileNotFoundError: if a file is missing.
        UserError: for a sample that cannot be read or does not fit; the message names its place in the batch.
    """
    make = _image if taken.kind == "image" else _frames
    made = []
    for place, sample in enumerate(samples):
        try:
            made.append(make(sample, taken))
        except UserError as error:
            raise UserError(f"sample {place}: {error}" if len(samples) > 1 else str(error)) from error
    if taken.kind == "image":
        return torch.stack(made)
    if len(lengths := {len(frames) for frames in made}) > 1:
        raise UserError(
            f"got recordings of {', '.join(map(str, sorted(lengths)))} frames, expected equally many in a batch"
        )
    return torch.stack(made, 1)


def check_range(images: Tensor) -> None:
    """Refuse images far outside [0, 1].

    Raises:
        UserError: if they lie far outside; the message names the range and what to do.
    """
    if not images.is_floating_point():
        raise UserError(f"got images of {images.dtype}, expected floating-point numbers in [0, 1]: divide bytes by 255")
    if not images.numel():
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError("got images with NaN or infinity, expected numbers in [0, 1]")
    advice = (
        "divide bytes by 255"
        if low >= 0
        else "give images that are not normalised, because the network does that itself"
    )
    raise UserError(f"got images from {low:.4g} to {high:.4g}, expected numbers in [0, 1]: {advice}")


# Images


def _image(sample: Any, taken: Preprocess) -> Tensor:
    """One image `[C, H, W]` in [0, 1]."""
    if isinstance(sample, str | os.PathLike):
        path = _existing(sample)
        _check_has_colours(taken, f"{path} is an image file")
        return _in_unit(read_image(path, taken.size, taken.channels, taken.resize, taken.fill))
    if _is_pillow(sample):
        _check_has_colours(taken, "got a Pillow image")
        return _in_unit(_resized(sample, taken))
    if not isinstance(sample, np.ndarray | Tensor):
        raise UserError(f"got a {type(sample).__name__}, {_IMAGES}")
    image = _channels_first(sample, taken)
    if image.is_floating_point():
        check_range(image)
        if tuple(image.shape[-2:]) != taken.size:
            raise UserError(
                f"got numbers of {_by(image.shape[-2:])} pixels, expected {_by(taken.size)}: give bytes (uint8), which are "
                "resized as in training, or resize them first"
            )
        return _with_channels(image.to(torch.get_default_dtype()), taken.channels)
    if tuple(image.shape[-2:]) == taken.size and len(image) in (1, 3, taken.channels):
        return _in_unit(_with_channels(image, taken.channels))
    _check_has_colours(taken, f"got bytes of {_by(image.shape[-2:])} pixels")
    from PIL import Image

    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return _in_unit(_resized(Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels), taken))


def _channels_first(sample: np.ndarray | Tensor, taken: Preprocess) -> Tensor:
    """The array of one image as a tensor `[c, H, W]`, of bytes or of floating-point numbers."""
    axes = _axes(sample.shape, taken, single=True)
    values = _bytes_or_numbers(sample)
    return values[None] if axes == "HW" else values.permute(2, 0, 1) if axes == "HWC" else values


def _bytes_or_numbers(sample: np.ndarray | Tensor) -> Tensor:
    """An array as uint8 or floating-point numbers.

    Raises:
        UserError: for other values.
    """
    values = (
        np.asarray(sample.detach().cpu()) if isinstance(sample, Tensor) and not sample.is_floating_point() else sample
    )
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.dtype != np.uint16:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise UserError(f"got an array of whole numbers from {low} to {high}, expected 0 to 255")
        values = values.astype(np.uint8)
    if isinstance(values, np.ndarray) and (values.dtype.kind == "f" or values.dtype == np.uint8):
        values = torch.from_numpy(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False)))
    if not isinstance(values, Tensor):
        raise UserError(
            f"got an array of {values.dtype}, expected whole numbers 0 to 255 (uint8) or floating-point numbers in [0, 1]"
        )
    return values.detach().cpu()


def _split(batch: np.ndarray | Tensor, taken: Preprocess) -> list[Any]:
    """The samples of an array, which holds one or many."""
    if taken.kind == "events":
        return _split_recordings(batch, taken)
    return [batch] if _axes(batch.shape, taken) in ("HW", "HWC", "CHW") else list(batch)


def _axes(shape: Sequence[int], taken: Preprocess, *, single: bool = False) -> str:
    """The axes of an array of images.

    Raises:
        UserError: if there are none or two ways to read them.
    """
    colours = taken.channels in (1, 3)
    counts = (1, 3, 4) if colours else (taken.channels,)
    last, first = (len(shape) > 2 and shape[place] in counts for place in (-1, -3))
    many = "N" if len(shape) == 4 else ""
    if len(shape) == 2 and colours:
        return "HW"
    if len(shape) in (3, 4) and not (single and many):
        stack = len(shape) == 3 and colours and not single  # grey images one after the other
        if last != first:
            if first and stack and taken.channels == 1 and shape[0] > 1:
                raise UserError(
                    f"an array {list(shape)} is one colour image or {shape[0]} grey ones: give array[None] for one, or "
                    "array[:, None] for several"
                )
            return f"{many}HWC" if last else f"{many}CHW"
        if last:
            fit = tuple(shape[-3:-1]) == taken.size, tuple(shape[-2:]) == taken.size
            if fit[0] != fit[1]:
                return f"{many}HWC" if fit[0] else f"{many}CHW"
            raise UserError(
                f"an array {list(shape)} may have its channels first or last: give Pillow images, or call model(x, timesteps) with "
                "the channels first"
            )
        if stack:
            return "NHW"
    one, more = "[H, W, C] or [C, H, W]", "" if single else ", or [N, H, W, C] or [N, C, H, W]"
    raise UserError(f"got an array {list(shape)}, expected {one}{more} with {_counted(counts)} channels")


def _with_channels(image: Tensor, channels: int) -> Tensor:
    """The image in grey or in colour, depending on the channels of the network."""
    if len(image) == channels:
        return image
    if len(image) == 1 and channels == 3:
        return image.expand(3, -1, -1)
    if len(image) == 3 and channels == 1:  # the luminance, rounded for bytes as Pillow does
        if image.is_floating_point():
            return (image * image.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)
        weights = torch.tensor([19595, 38470, 7471]).view(3, 1, 1)
        return ((image.int() * weights).sum(0, keepdim=True) + 32768 >> 16).to(torch.uint8)
    raise UserError(f"got an image of {len(image)} channels, expected {channels}")


def _resized(image: Any, taken: Preprocess) -> Tensor:
    try:
        return pixels_of(image, taken.size, taken.channels, taken.resize, taken.fill)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise exceptions of every kind
        raise UserError(f"got an image that Pillow cannot read ({' '.join(str(error).split())[:200]})") from error


def _check_has_colours(taken: Preprocess, came: str) -> None:
    if taken.channels not in (1, 3):
        raise UserError(
            f"{came}, and this network takes {taken.channels} channels: expected arrays [{taken.channels}, {taken.size[0]}, "
            f"{taken.size[1]}]"
        )


def _in_unit(pixels: Tensor) -> Tensor:
    return pixels.to(torch.get_default_dtype()) / 255


def _is_pillow(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "PIL"


def _existing(path: str | os.PathLike[str]) -> Path:
    """The path of a file.

    Raises:
        FileNotFoundError: if there is none.
        UserError: if it is a folder.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f'{file} is a folder: give its files, sorted(Path("{file}").glob("*.png"))')
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: check the path")
    return file


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _counted(counts: Sequence[int]) -> str:
    return " or ".join(filter(None, [", ".join(map(str, counts[:-1])), str(counts[-1])]))


# Event frames

_FRAMES = "expected paths of .npz files, or counts of events [T, 2, H, W]"


def _frames(sample: Any, taken: Preprocess) -> Tensor:
    """One recording `[T, C, H, W]`."""
    if isinstance(sample, str | os.PathLike):
        frames = read_frames(_existing(sample))
    elif isinstance(sample, np.ndarray | Tensor):
        frames = torch.as_tensor(sample).detach().cpu()
        if frames.dtype == torch.bool or frames.is_complex():
            raise UserError(f"got an array of {frames.dtype}, expected counts of events")
        frames = frames.to(torch.float32)
    else:
        raise UserError(f"got a {type(sample).__name__}, {_FRAMES}")
    if frames.ndim != 4 or tuple(frames.shape[1:]) != (taken.channels, *taken.size) or not len(frames):
        expected = ["T", str(taken.channels), *map(str, taken.size)]
        raise UserError(f"got event frames {list(frames.shape)}, expected [{', '.join(expected)}]")
    if not frames.isfinite().all() or (frames < 0).any():
        raise UserError("got event frames with negative numbers, NaN or infinity, expected counts of events")
    return frames.to(torch.get_default_dtype())


def _split_recordings(batch: np.ndarray | Tensor, taken: Preprocess) -> list[Any]:
    if batch.ndim == 5:
        return list(batch)
    return [batch]
