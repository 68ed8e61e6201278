"""Parts of a training set: hold-out sets, so that the test set selects nothing, and smaller balanced sets."""

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..seeds import derive_seed


def split_holdout(targets: Tensor, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of the samples to train on and of those held out, at random, every class in proportion.

    Args:
        targets: class of every sample, `[N]`.
        fraction: share held out, in [0, 1): ceil(fraction · N) samples.
        seed: the same seed gives the same split; runs of every seed share that of 0.

    Returns:
        Two int64 tensors in ascending order, which share nothing and together hold 0..N-1.

    Raises:
        UserError: `fraction` is out of range, or leaves either part fewer samples than there are classes.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"the hold-out is a share of the training set, at least 0 and below 1; got {fraction}")
    samples = torch.arange(len(targets))
    if fraction == 0:
        return samples, samples[:0]
    counts = torch.bincount(targets)
    classes, held_out = int((counts > 0).sum()), math.ceil(fraction * len(targets))
    if counts[counts > 0].min() < 2 or held_out < classes or len(targets) - held_out < classes:
        raise UserError(
            f"cannot hold out {held_out} of {len(targets)} samples with every one of {classes} classes on both sides; "
            "change the hold-out fraction"
        )
    from sklearn.model_selection import train_test_split

    train, holdout = train_test_split(
        np.arange(len(targets)), test_size=held_out, stratify=targets.numpy(), random_state=derive_seed(seed) % 2**32
    )
    return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(holdout))


def training_indices(targets: Tensor, holdout: float, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Indices of the samples that a run trains on, and of those held out.

    Args:
        targets: class of every sample, `[N]`.
        holdout: share held out, as for `split_holdout`; it comes off first, so it is the same for every size of training set.
        count: train on the first so many in `balanced_order`; default all, in their own order.
    """
    kept, aside = split_holdout(targets, holdout)
    return (kept if count is None else kept[balanced_order(targets[kept])[:count]]), aside


def position_in_class(targets: Tensor) -> Tensor:
    """How many samples of the same class come before each sample, `[N]` int64."""
    by_class = targets.argsort(stable=True)
    counts = torch.bincount(targets)
    first = counts.cumsum(0) - counts
    position = torch.empty_like(by_class)
    position[by_class] = torch.arange(len(targets)) - first[targets[by_class]]
    return position


def balanced_order(targets: Tensor) -> Tensor:
    """All indices in a fixed order whose every beginning is balanced: the first sample of each class, the second of each, ..."""
    return position_in_class(targets).argsort(stable=True)
