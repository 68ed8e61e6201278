"""Options of neurons that are learned: as a value, and as its text in files and on the command line."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from .errors import UserError

Per = Literal["layer", "channel"]
_TEXT = re.compile(r"learned(?:_per_(layer|channel))?(?::(.+))?")


@dataclass(frozen=True)
class Learned:
    """An option of neurons that is trained with the weights, such as `LIF(threshold=Learned(0.8))`.

    Its short form is a text: "learned", "learned:0.8" with an initial value, "learned_per_channel", or "learned_per_channel:0.8".

    Attributes:
        start: the initial value; None is the default of the option.
        per: "layer" learns one value, "channel" one for each channel. None is the default of the layer of neurons.

    Raises:
        UserError: if `start` is not a finite number, or `per` is neither of the two.
    """

    start: float | None = None
    per: Per | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.start, int | float) and not isinstance(self.start, bool) and math.isfinite(self.start)
        if self.start is not None and not number:
            raise UserError(f"Learned(start={self.start!r}): expected a finite number, at which training starts")
        if self.per not in (None, "layer", "channel"):
            raise UserError(f"Learned(per={self.per!r}): expected 'layer' or 'channel'")

    @classmethod
    def of(cls, option: object) -> Self | None:
        """The option, or the value of its short form; None for an option that is not learned.

        Raises:
            UserError: for a text that begins with "learned" and is not a short form.
        """
        if isinstance(option, cls):
            return option
        if not isinstance(option, str) or not option.startswith("learned"):
            return None
        try:
            per, start = _TEXT.fullmatch(option).groups()  # type: ignore[union-attr]
            return cls(None if start is None else float(start), cast(Per | None, per))
        except (AttributeError, ValueError):
            raise UserError(
                f"{option!r}: expected 'learned', 'learned:0.8' to start at 0.8, or the same with 'learned_per_channel'"
            ) from None

    def __str__(self) -> str:
        """The short form."""
        per = "" if self.per is None else f"_per_{self.per}"
        return f"learned{per}" + ("" if self.start is None else f":{self.start!r}")


def in_our_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of neurons without `learn_decay`, by which earlier versions recorded a learned decay."""
    ours = dict(options)
    if ours.pop("learn_decay", False):
        ours["decay"] = str(Learned(ours.get("decay")))
    return ours
