"""Batches of mixed samples: MixUp (Zhang et al., 2018) and CutMix (Yun et al., 2019).

With a permutation of the batch and a share lambda, drawn from Beta(alpha, alpha) for the batch, the loss of mixed samples
is lambda times that with their own labels plus 1 - lambda times that with their partners'.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .sending import sent

Mix = Literal["none", "mixup", "cutmix"]


class Mixed(NamedTuple):
    """A batch of mixed samples.

    Attributes:
        inputs: as before.
        partners: the place in the batch of what each sample is mixed with, `[B]`.
        share: lambda, of the sample itself.
    """

    inputs: Tensor
    partners: Tensor
    share: float


def mixed(inputs: Tensor, how: Mix, alpha: float) -> Mixed:
    """Mix the samples of a batch.

    - "mixup": x = lambda x_i + (1 - lambda) x_j.
    - "cutmix": a rectangle of x_i, a share of 1 - lambda of its pixels around any of them, shows x_j. Lambda becomes the
      share that is left.

    Args:
        inputs: images `[B, C, H, W]` in [0, 1], or event frames `[T, B, C, H, W]`, all timesteps of which are treated alike.
        how: "mixup" or "cutmix".
        alpha: of the Beta distribution; 1 is uniform, and smaller ones mix less.
    """
    batch = inputs.ndim - 4
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    partners = sent(torch.randperm(inputs.shape[batch]), inputs.device)
    others = inputs.index_select(batch, partners)
    if how == "mixup":
        return Mixed(share * inputs + (1 - share) * others, partners, share)
    H, W = inputs.shape[-2:]
    side = (1 - share) ** 0.5
    (top, bottom), (left, right) = (_part(length, side) for length in (H, W))
    found = inputs.clone()
    found[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return Mixed(found, partners, 1 - (bottom - top) * (right - left) / (H * W))


def _part(length: int, share: float) -> tuple[int, int]:
    """A part of an axis around a random place, clipped at its ends."""
    centre, half = int(torch.randint(length, ())), int(length * share) // 2
    return max(0, centre - half), min(length, centre + half)
