"""The memory layout of sequences: `[T, B * C, N]`, or `[T, B * N, C]` if the channels come last, with N positions.

So compiled loops have two sizes per timestep rather than three.
"""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether each timestep of `[T, B, C, H, W]` lies in memory as `[B, H, W, C]`; false if as `[B, C, H, W]`."""
    return x.ndim == 5 and not x[0].is_contiguous() and x[0].is_contiguous(memory_format=torch.channels_last)


def is_dense(x: Tensor) -> bool:
    """Whether `[T, B, C, ...]` lies in memory in one of the two orders, without gaps or repetitions."""
    return x.is_contiguous() or (is_channels_last(x) and x.permute(0, 1, 3, 4, 2).is_contiguous())


def as_stored(x: Tensor, like: Tensor) -> Tensor:
    """`[t, B, C, ...]` in the memory layout of `like`, `[t, rows, values]`; a view if x has that layout."""
    if is_channels_last(like):
        return x.permute(0, 1, 3, 4, 2).contiguous().flatten(1, 3)
    x = x.contiguous()  # kernels read without strides
    return x.flatten(3).flatten(1, 2) if x.ndim > 3 else x.reshape(len(x), 1, -1)


def as_shown(stored: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_stored`: a view `[t, B, C, ...]` with the samples' shape of `like`."""
    if is_channels_last(like):
        return stored.unflatten(1, (like.shape[1], *like.shape[3:])).permute(0, 1, 4, 2, 3)
    return stored.view(len(stored), *like.shape[1:])


def mean_in_time(x: Tensor, segments: int) -> Tensor:
    """Means `[m, B, ...]` over m segments of one length, in the memory layout of x, which `Tensor.mean` would change."""
    if not is_channels_last(x):
        return x.unflatten(0, (segments, -1)).mean(1)
    return as_shown(as_stored(x, x).unflatten(0, (segments, -1)).mean(1), x)


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """`[C]`, or `[1]` for `[t, B, C]`, in a form that broadcasts over a timestep of `as_stored(like, like)`."""
    return values if is_channels_last(like) else values.repeat(like.shape[1] if like.ndim > 3 else 1).unsqueeze(1)
