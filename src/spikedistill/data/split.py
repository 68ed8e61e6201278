"""Parts of a training set: hold-out sets, so that the test set is never used for selection, and smaller balanced sets."""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..seeds import derive_seed
from .dataset import Dataset, Samples

UNBALANCED = 3  # times as many samples as in the smallest class


def split_holdout(targets: Tensor, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of the samples to train on and of those held out, at random, every class in proportion.

    Args:
        targets: class of every sample, `[N]`.
        fraction: share held out, in [0, 1): ceil(fraction · N) samples.
        seed: the same seed gives the same split; all runs use 0, whatever their own seed.

    Returns:
        Two int64 tensors in ascending order, which share nothing and together hold 0..N-1.

    Raises:
        UserError: if `fraction` is out of range, or leaves either part fewer samples than there are classes.
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
        holdout: share held out, as for `split_holdout`; it is taken first, so it is the same for every size of training
            set.
        count: the number of samples to train on, the first of `balanced_order`; default all, in their order.
    """
    kept, aside = split_holdout(targets, holdout)
    return (kept if count is None else kept[balanced_order(targets[kept])[:count]]), aside


def with_wrong_labels(samples: Samples, share: float, classes: int) -> Samples:
    """The samples, of which round(share · N), drawn at random, have the label of another class, drawn evenly.

    The same share of the same samples always gives the same labels.

    Args:
        samples: of the training set.
        share: of wrong labels, in [0, 1).
        classes: how many there are, 2 or more.
    """
    N = len(samples)
    random = np.random.default_rng(derive_seed(N))
    wrong = random.permutation(N)[: round(share * N)]
    targets = samples.targets.clone()
    away = torch.from_numpy(random.integers(1, classes, len(wrong)))
    targets[wrong] = (targets[wrong] + away) % classes
    return replace(samples, targets=targets)  # type: ignore[type-var]  # all kinds of samples are dataclasses


def test_places(targets: Tensor, names: Sequence[str], share: float, classes: Sequence[str]) -> Tensor:
    """Which samples of a training set serve as its test set, bool `[N]`.

    Of a class with n samples they are round(share · n), at least 1 and at most n - 1: those whose names have the lowest SHA-256, so
    that a sample that is added or removed moves one other at most.

    Args:
        targets: class of every sample, `[N]`.
        names: name of every sample; all are different.
        share: share of each class, above 0 and below 1.
        classes: names of the classes, for the error.

    Raises:
        UserError: if `share` is out of range, or a class has fewer than two samples.
    """
    if not 0 < share < 1:
        raise UserError(f"test_share is the share of each class to test on, above 0 and below 1; got {share}")
    order = sorted(range(len(names)), key=lambda place: hashlib.sha256(os.fsencode(names[place])).digest())
    drawn = torch.tensor(order)
    counts = torch.bincount(targets, minlength=len(classes))
    if counts.min() < 2:
        few = int(counts.argmin())
        raise UserError(
            f"class {classes[few]!r} has {int(counts[few])} sample, expected 2 or more for --data.test-share, to train and to test "
            "on: add samples or leave the class out"
        )
    wanted = (counts * share).round().long().clamp(min=1).minimum(counts - 1)
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    chosen[drawn] = position_in_class(targets[drawn]) < wanted[targets[drawn]]
    return chosen


def position_in_class(targets: Tensor) -> Tensor:
    """How many samples of the same class come before each sample, `[N]` int64."""
    by_class = targets.argsort(stable=True)
    counts = torch.bincount(targets)
    first = counts.cumsum(0) - counts
    position = torch.empty_like(by_class)
    position[by_class] = torch.arange(len(targets)) - first[targets[by_class]]
    return position


def balanced_order(targets: Tensor) -> Tensor:
    """All indices in a fixed order in which every prefix is balanced: the first sample of each class, the second of each, ..."""
    return position_in_class(targets).argsort(stable=True)


def samples_per_class(dataset: Dataset) -> str:
    """How many training samples a class has, in words, with a hint if some have several times as many as others."""
    counts = torch.bincount(dataset.train.targets, minlength=len(dataset.classes))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[least] == counts[most]:
        return f"training samples of each class: {int(counts[least])}"
    fewest, largest = (f"{int(counts[k])} ({dataset.classes[k]})" for k in (least, most))
    said = f"training samples of a class: {fewest} to {largest}"
    if counts[most] < UNBALANCED * counts[least]:
        return said
    return f"{said}, unbalanced: --objective.class-weights balanced gives every class the same weight"
