"""Event frames of users' files: counts of events, and fewer frames of the same events."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import data_error


def as_counts(path: Path, name: str, counts: np.ndarray, remedy: str) -> Tensor:
    """Counts of events as float32.

    Raises:
        UserError: if a value is negative or not finite; the message names the file and the array.
    """
    with np.errstate(over="ignore"):
        frames = counts.astype(np.float32)
    if not np.isfinite(frames).all():
        raise data_error(path, f"{name!r} ({counts.dtype}) holds values that are no finite numbers", remedy)
    if (frames < 0).any():
        raise data_error(path, f"{name!r} holds {frames.min()}, expected counts of events, at least 0", remedy)
    return torch.from_numpy(frames)


@dataclass(frozen=True)
class Merging:
    """Adds up neighbouring event frames, so that fewer frames contain all events.

    Attributes:
        timesteps: the number of frames afterwards.
    """

    timesteps: int

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames `[..., T, 2, H, W]` as `[..., timesteps, 2, H, W]`; `timesteps` divides T."""
        return frames.unflatten(-4, (self.timesteps, -1)).sum(-4)


def merging(path: Path, found: int, timesteps: int | None) -> Merging | None:
    """The transform that makes `timesteps` frames of the `found` frames of a recording; None if they stay as they are.

    Raises:
        UserError: if one number does not divide the other; the message names the file.
    """
    if timesteps in (None, found):
        return None
    if timesteps < 1 or found % timesteps:
        possible = [str(T) for T in range(found, 0, -1) if found % T == 0]
        raise data_error(
            path,
            f"holds {found} frames, expected {timesteps}",
            f"add --timesteps {' or '.join(possible[:6])}, because frames are added up in groups of equal size",
        )
    return Merging(timesteps)


def padded(frames: Tensor, timesteps: int) -> Tensor:
    """Frames `[L, ...]` with empty ones after them, `[timesteps, ...]`."""
    return torch.cat([frames, frames.new_zeros(timesteps - len(frames), *frames.shape[1:])])


def frames_in_words(found: int, size: tuple[int, int], merge: Merging | None) -> str:
    """What happens to recordings of `found` frames, in words."""
    said = f"recordings of {found} event frames of {size[0]}x{size[1]} (height x width) are "
    if merge is None:
        return said + "taken as they are"
    return said + f"merged to {merge.timesteps}, each the sum of {found // merge.timesteps} (--timesteps)"
