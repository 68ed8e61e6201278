"""What attacks get: samples of the kind that they change, and classes to reach."""

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

_ROUNDING = 0.01  # that images may leave [0, 1] by, after they were resized


def check_kind(attack: Any, samples: Tensor, *, events: bool | None = None) -> None:
    """Refuse samples that an attack of `spikedistill.robustness` does not fit.

    Args:
        attack: an attack; one without the attribute `of_events` takes everything.
        samples: what it is to change.
        events: whether samples are counts of events, if that is known.

    Raises:
        UserError: for event frames under an attack on images, and the reverse.
    """
    wants, name = getattr(attack, "of_events", None), getattr(attack, "name", type(attack).__name__)
    if wants is False and (events or samples.min() < -_ROUNDING or samples.max() > 1 + _ROUNDING):
        what = "event frames" if events else f"samples from {samples.min():g} to {samples.max():g}"
        raise UserError(f"the attack {name} moves pixels of [0, 1], and got {what}: use an attack on events for counts")
    if wants is True and events is False:
        raise UserError(f"the attack {name} adds and removes events, and got images: use an attack on images")


def class_to_reach(target: Tensor, classes: int, turn: int = 0) -> Tensor:
    """For each label the class that a targeted attack aims at: the next one, and at further turns those after it.

    Args:
        target: labels `[B]`.
        classes: their number.
        turn: 0 for the next class; a label's own is never among them.

    Raises:
        UserError: for fewer than two classes.
    """
    if classes < 2:
        raise UserError(f"the network tells {classes} class apart, and a targeted attack needs another one to reach")
    return (target + 1 + turn % (classes - 1)) % classes


def noise_of(shape: torch.Size, seed: int) -> Tensor:
    """Noise in [-1, 1], from which attacks begin."""
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1
