"""The weights of classes in a run's loss: turns the setting of a configuration into one number for each class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError
from ..setting_types import BALANCED

_FLAG = "--objective.class-weights"


def class_weights(written: Sequence[str] | None, classes: Sequence[str], targets: Tensor) -> Tensor | None:
    """The weight of each class.

    Args:
        written: ("balanced",), one number for each class in their order, or texts `NAME=number`; classes that are not named
            have the weight 1. None for no weights.
        classes: names of the C classes.
        targets: labels of the training samples, `[N]`.

    Returns:
        The weights `[C]` in float32. "balanced" gives class c, with n_c training samples, N / (C n_c), as scikit-learn does:
        then all classes have the same total weight, and the mean weight over the samples is 1.

    Raises:
        UserError: for another number of weights than classes, an unknown class, weights that are all 0, or "balanced"
            with a class that has no training sample.
    """
    if written is None:
        return None
    if tuple(written) == BALANCED:
        weights = _balanced(classes, targets)
    elif "=" in written[0]:
        weights = _by_name(written, classes)
    else:
        weights = [float(number) for number in written]
    if len(weights) != len(classes):
        raise UserError(
            f"{_FLAG} has {len(weights)} numbers, and there are {len(classes)} classes ({_some(classes)}): give one number for "
            f"each class in this order, NAME=number for some of them, or {BALANCED[0]}"
        )
    if not any(weights):
        raise UserError(
            f"{_FLAG} are all 0, so that nothing would be learned: give at least one class a weight above 0"
        )
    return torch.tensor(weights, dtype=torch.float32)


def class_weights_line(weights: Tensor, classes: Sequence[str]) -> str:
    """In one line: the weight of each class."""
    named = [f"{name} {weight:.3g}" for name, weight in zip(classes, weights.tolist(), strict=True)]
    return f"class weights: {_some(named)}"


def _balanced(classes: Sequence[str], targets: Tensor) -> list[float]:
    counts = torch.bincount(targets, minlength=len(classes)).tolist()
    if missing := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise UserError(
            f"{_FLAG} balanced needs training samples of every class, and there are none of {_some(missing)}: give numbers"
        )
    return [len(targets) / (len(classes) * count) for count in counts]


def _by_name(written: Sequence[str], classes: Sequence[str]) -> list[float]:
    given: dict[str, float] = {}
    for text in written:
        name, _, number = text.rpartition("=")
        if name not in classes:
            raise UserError(f"{_FLAG} {text} names no class: the classes are {_some(classes)}")
        if name in given:
            raise UserError(f"{_FLAG} names the class {name} twice: give each class one number")
        given[name] = float(number)
    return [given.get(name, 1.0) for name in classes]


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
