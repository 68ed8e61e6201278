"""Samples of a data set of PyTorch: what one may be, and how it is read."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .dataset import BrokenSample, Samples
from .event_counts import padded
from .images import pixels_of

# Number of samples that represent a larger data set, in the mean of its images and in its fingerprint.
SOME = 2000
_NEAR = 1e-4  # rounding may exceed [0, 1] by this


@dataclass(frozen=True)
class Form:
    """What a sample is: "image" with shape `[C, H, W]`, or "events" with shape `[T, C, H, W]`, and the type that it is kept in."""

    kind: Literal["image", "events"]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, value: Tensor) -> "Form":
        """The form of a sample."""
        return cls("events" if value.ndim == 4 else "image", tuple(value.shape), value.dtype)


@dataclass(frozen=True, eq=False)
class TorchSamples:
    """Samples of a data set of PyTorch, read when they are used.

    Attributes:
        source: the data set.
        places: places of the samples in the data set, `[N]`.
        targets: class of every sample, `[N]` int64.
        form: what every sample must be.
        split: "training" or "test", for messages.
        lengths: the frames of each recording, if they differ, `[N]`; shorter ones than `form` says are padded.
    """

    source: Any
    places: Tensor
    targets: Tensor
    form: Form
    split: str
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.places)

    def inputs(self, indices: Tensor) -> Tensor:
        frames = [None] * len(indices) if self.lengths is None else self.lengths[indices].tolist()
        places = self.places[indices].tolist()
        return torch.stack([self._read(place, T) for place, T in zip(places, frames, strict=True)])

    def subset(self, indices: Tensor) -> "TorchSamples":
        lengths = None if self.lengths is None else self.lengths[indices]
        return replace(self, places=self.places[indices], targets=self.targets[indices], lengths=lengths)

    def identity(self) -> Iterator[bytes | memoryview]:
        yield f"{self.form.dtype} {[len(self), *self.form.shape]}".encode()
        with same_draws(0):
            for place in spread(len(self)).tolist():
                yield self.inputs(torch.tensor([place])).flatten().view(torch.uint8).numpy().data
        if self.lengths is not None:
            yield self.lengths.contiguous().numpy().data

    def _read(self, place: int, frames: int | None) -> Tensor:
        what = f"{self.split} sample {place}"
        try:
            value = values_of(pair_of(self.source[place], what)[0], what, self.form.shape[-3])
            form = Form.of(value)
        except UserError as error:
            raise BrokenSample(str(error)) from None
        expected = self.form.shape if frames is None else (frames, *self.form.shape[1:])
        if form.shape != expected or form.dtype != self.form.dtype:
            of_its_own = "its length says" if frames is not None else "the first training sample is"
            several = self.form.kind == "events" and frames is None
            raise BrokenSample(
                f"{what} is {list(form.shape)} of {form.dtype}, and {of_its_own} {list(expected)} of "
                f"{self.form.dtype}: give all samples one size and type, such as by a transform"
                + ("; recordings of different length need lengths=(train, test)" if several else "")
            )
        return value if frames is None else padded(value, self.form.shape[0])


@contextmanager
def same_draws(seed: int) -> Iterator[None]:
    """Seed the generators of PyTorch, NumPy and Python, which transforms draw from; afterwards they are as before."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def draws_at_random(samples: Samples) -> bool:
    """Whether transforms of a user's data set change its samples from one reading to the next, tested on 8 samples."""
    if not isinstance(samples, TorchSamples):
        return False
    readings = []
    for seed in (0, 1):
        with same_draws(seed):
            readings.append(samples.inputs(spread(len(samples), 8)))
    return not torch.equal(*readings)


def spread(count: int, most: int = SOME) -> Tensor:
    """Places of at most `most` samples, spread evenly over all."""
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).round().long()


def pair_of(item: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        got = f"{len(item)} values" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
        raise UserError(f"{what} is {got}, expected (x, y), the input and the number of its class")
    return item[0], item[1]


def values_of(x: Any, what: str, channels: int | None = None) -> Tensor:
    """A sample as uint8 or float32, `[C, H, W]` or `[T, C, H, W]`."""
    from PIL import Image, ImageOps

    if isinstance(x, Image.Image):
        upright = ImageOps.exif_transpose(x)
        wanted = channels or (1 if upright.mode in ("1", "L") or upright.mode.startswith("I;16") else 3)
        return pixels_of(upright, (upright.height, upright.width), wanted)
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "buif":
            raise UserError(f"{what} is an array of {x.dtype}, expected numbers")
        wide = {"f": np.float32 if x.dtype.itemsize <= 4 else np.float64, "b": np.bool_}.get(x.dtype.kind, np.int64)
        x = torch.from_numpy(
            x.astype(np.uint8 if x.dtype == np.uint8 else wide)
        )  # a copy, in this machine's byte order
    if not isinstance(x, Tensor):
        raise UserError(f"{what} is a {type(x).__name__}, expected a tensor, a NumPy array or a Pillow image")
    x = x.detach().cpu()
    if x.ndim == 2:
        x = x.unsqueeze(0)
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise UserError(
            f"{what} is {list(x.shape)}, expected an image [C, H, W] or [H, W], or event frames [T, C, H, W]"
        )
    if x.ndim == 3 and x.shape[2] <= 4 < min(x.shape[:2]):
        raise UserError(f"{what} is {list(x.shape)}, with the channels last, expected [C, H, W]: x.permute(2, 0, 1)")
    return _in_range(x, what).contiguous()


def _in_range(x: Tensor, what: str) -> Tensor:
    if x.is_complex():
        raise UserError(f"{what} holds complex numbers, expected uint8 or floating-point numbers")
    if x.ndim == 4:
        counts = x.float()
        if not counts.isfinite().all() or counts.min() < 0:
            raise UserError(f"{what} holds event frames with NaN, infinite or negative numbers, expected counts")
        return counts
    if x.dtype == torch.bool:
        return x.to(torch.uint8) * 255
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        x = x.long()
    low, high = x.min().item(), x.max().item()
    if not x.is_floating_point():
        if low < 0 or high > 255:
            raise UserError(f"{what} holds whole numbers from {low} to {high}, expected 0 to 255, or [0, 1]")
        return x.to(torch.uint8)
    if not x.isfinite().all():
        raise UserError(f"{what} holds NaN or infinite numbers, expected [0, 1]")
    if low < -_NEAR:
        raise UserError(
            f"{what} holds numbers from {low:.3g} to {high:.3g}, expected [0, 1]: leave Normalize out of its transform, because "
            "the network normalises images itself"
        )
    if high > 1 + _NEAR:
        raise UserError(f"{what} holds numbers up to {high:.4g}, expected [0, 1]: divide by 255, or give uint8")
    return x.float().clamp(0, 1)
